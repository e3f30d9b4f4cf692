"""The first look on the Discover page, without a browser: what it shows and what it says of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from backend.core.progress import silent
from backend.methods.agreement import in_words
from backend.methods.chosen_senders import SendersRequest
from backend.methods.stage import NO_TEST
from backend.methods.stages import Criteria
from backend.studies import jobs, studies
from backend.studies.previews import FewTokens, Gradients, Look, run_previews
from backend.studies.stages import run_stages
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.prompts import Prompts
from backend.tasks.setting import Setting
from circuitviz.preview_charts import MISSED, OTHER, RANKED
from shell.discover import discovery, preview, previewing
from shell.discover.discovery import Plan
from shell.discover.previewing import PreviewPlan
from tests import planted
from tests.dashboard import ROOT
from tests.shell.apps import opened, press, rerun

N, K = 12, 3
KEPT = {key: len(heads) for key, heads in planted.CIRCUIT.items()}
CRITERIA = Criteria(KEPT, fdr=NO_TEST)


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery.jobs, "_jobs", type(jobs._jobs)())


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of the planted model."""
    return planted.saved(tmp_path_factory.mktemp("models") / "planted")


WAYS = [(previewing.GRADIENTS, Gradients()), (previewing.FEW_TOKENS, FewTokens())]


def look(model: str, by: Gradients | FewTokens = WAYS[0][1]) -> Look:
    return Look(Setting(model, Prompts(ENTITY_TRACKING, N, 0, (3,))), CRITERIA, by=by)


def page(model: str, **values: Any) -> AppTest:
    test = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    test.query_params.update({"n": "50", "model": model, "boxes": "3"})
    kept = {f"discover_keep_{key}": n for key, n in KEPT.items()}
    given = {"discover_n": N, "discover_fdr": NO_TEST, "preview_checked": K} | kept | values
    for key, value in given.items():
        test.session_state[key] = value
    return rerun(test.switch_page("pages/discover.py"))


def finish(
    test: AppTest, model: str, n_checked: int, by: Gradients | FewTokens = WAYS[0][1]
) -> AppTest:
    job = previewing.job_of(PreviewPlan(look(model, by), n_checked))
    assert job is not None
    job.future.exception(120)
    return rerun(test)


def charts(test: AppTest) -> list[dict[str, Any]]:
    return [json.loads(chart.proto.spec) for chart in test.get("vega_lite_chart")]


def said(test: AppTest) -> list[str]:
    return [each.value for each in (*test.caption, *test.markdown)]


@pytest.mark.parametrize(("words", "by"), WAYS, ids=[words for words, _ in WAYS])
def test_previews_and_then_exact_scores_beside_them(
    model: str, words: str, by: Gradients | FewTokens
) -> None:
    test = page(model)
    assert not any(button.label.startswith("Preview 4") for button in test.button)
    test.toggle(key="preview_shown").set_value(True)
    rerun(test)
    assert any("no circuit is made of them" in text for text in said(test))
    test.segmented_control(key="preview_by").set_value(words)
    rerun(test)
    test = finish(press(test, "Preview 4 stages"), model, 0, by)
    assert len(charts(test)) == 4
    assert sum("Preview, not exact]" in text for text in said(test)) == 4
    assert sum("Not checked yet" in text for text in said(test)) == 4
    assert sum("highest in previews, which may be wrong" in text for text in said(test)) == 3
    # Nothing exact is there: no stage has run, and no circuit is found.
    assert any(button.label == "Run all four stages" for button in test.button)
    assert any("when the stages have run" in text for text in said(test))

    test = finish(press(test, "Check 3 heads"), model, K, by)
    assert len(charts(test)) == 8
    for each in run_previews(look(model, by), K, silent):
        assert each.checked
        assert in_words(each.checked) in said(test)

    [*run_stages(look(model).setting, CRITERIA, (), "D", silent)]
    rerun(test)
    assert sum("All 16 heads exactly" in text for text in said(test)) == 1
    assert not any("highest in previews" in text for text in said(test))
    assert sum("kept by exact scores" in text for text in said(test)) == 3


def test_frames_have_the_previews_and_exact_scores(model: str) -> None:
    for each in run_previews(look(model), K, silent):
        assert each.checked
        assert isinstance(each.checked_by, SendersRequest)
        shown = preview.preview_frame(each.preview)
        assert shown["score"].tolist() == each.preview.estimated.mean.flatten().tolist()
        assert not shown["kept"].any()
        frame = preview.agreement_frame(each.preview, each.checked).set_index("name")
        assert len(frame) == len(each.checked_by.senders)
        for head, exact in each.checked.exact.items():
            row = frame.loc[str(head)]
            assert (row.exact, row.preview) == (exact, each.preview.estimated.mean[head])
            if head in each.preview.top(K):
                assert row.kind == RANKED
            else:
                assert row.kind == (MISSED if head in each.checked.missed else OTHER)


def test_a_failure_is_told_and_the_page_goes_on(tmp_path: Path) -> None:
    gone = str(tmp_path / "gone")
    test = press(page(gone, preview_shown=True), "Preview 4 stages")
    finish(test, gone, 0)
    assert any("There is no model" in error.value for error in test.error)
    assert any(button.label == "Run all four stages" for button in test.button)


@pytest.mark.parametrize("by", [by for _, by in WAYS], ids=str)
def test_the_job_can_be_shown_again(model: str, by: Gradients | FewTokens) -> None:
    from shell.frame import places

    asked = PreviewPlan(look(model, by), K)
    previewing.run(asked)
    job = previewing.job_of(asked)
    assert job is not None
    job.future.exception(120)
    assert f"Preview, {by}, 3 heads checked" in job.title
    assert places.page_of(asked) == "pages/discover.py"
    plan = Plan(asked.look.setting, asked.look.criteria, asked.look.score)
    assert Look(plan.setting, plan.criteria, plan.score, by) == asked.look


@pytest.mark.parametrize(("words", "by"), WAYS, ids=[words for words, _ in WAYS])
def test_a_stored_preview_opens_as_it_was_estimated(
    model: str, words: str, by: Gradients | FewTokens
) -> None:
    request = look(model, by).request("A", ())
    [*studies.run(request, silent)]
    there = opened(page(model), studies.find(request))
    assert there.session_state["preview_shown"]
    assert there.session_state["preview_by"] == words
