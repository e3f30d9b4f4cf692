"""The search on the Discover page, without a browser: the curve, the marked circuit, the click."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from backend.core.metrics import Ablation, Metric, Score
from backend.methods.pruning import Growth
from backend.methods.search import Search, SearchRequest, members_of
from backend.methods.stage import NO_TEST
from backend.models import catalogue
from backend.studies import jobs, studies
from backend.tasks.circuit import Circuit
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.prompts import Prompts
from backend.tasks.setting import Setting
from shell.discover import discovery
from shell.frame import places
from tests import planted
from tests.dashboard import ROOT
from tests.shell.apps import opened, press, rerun

N = 20
EXPECTED = Circuit.of(ENTITY_TRACKING, planted.CIRCUIT)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return planted.saved(tmp_path_factory.mktemp("planted"))


@pytest.fixture(autouse=True)
def _fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "ADDED_CIRCUITS", tmp_path)
    monkeypatch.setattr(discovery.jobs, "_jobs", type(jobs._jobs)())


def page(model: str, **values: Any) -> AppTest:
    test = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    test.query_params.update({"n": "50", "model": model, "boxes": "3"})
    exact = {"metric": Metric.logit_difference, "search_ablation": Ablation.resample}
    asked = {"discover_n": N, "discover_fdr": NO_TEST} | exact | values
    test.run()
    for key, value in asked.items():
        test.session_state[key] = value
    return rerun(test.switch_page("pages/discover.py"))


def discovered(test: AppTest, model: str) -> AppTest:
    press(test, "Run all four stages")
    setting = Setting(model, Prompts(ENTITY_TRACKING, N, 0, (3,)))
    job = jobs.known(("discover", setting, Score.probability))
    assert job is not None
    job.future.exception(120)
    return rerun(test)


def searched(test: AppTest) -> tuple[SearchRequest, Search]:
    press(test, "Search among")
    study = test.session_state["search"]
    parts = study.job.future.result(120)
    rerun(test)
    return study.request, parts[1]


def curves(test: AppTest) -> list[dict[str, Any]]:
    specs = [json.loads(chart.proto.spec) for chart in test.get("vega_lite_chart")]
    return [spec for spec in specs if "heads in the circuit" in json.dumps(spec)]


def test_the_planted_circuit_is_found_and_taken_with_one_click(folder: str, tmp_path: Path) -> None:
    test = page(folder)
    assert any("of all stages: run them first" in caption.value for caption in test.caption)
    discovered(test, folder)
    assert not curves(test)
    request, found = searched(test)
    assert (request.metric, request.ablation) == (Metric.logit_difference, Ablation.resample)
    assert len(curves(test)) == 1
    assert next(m.value for m in test.metric if m.label.startswith("Heads of")) == "5"
    point = found.within(0.05)
    assert point
    said = " ".join(each.value for each in test.markdown)
    assert f"{point.faithfulness.value:.2f} [{point.faithfulness.low:.2f}" in said
    assert any("resample ablation: not as in the paper" in c.value for c in test.caption)
    assert any("grown and pruned on seed 1" in caption.value for caption in test.caption)

    assert "every other head knocked out at every token" in said

    press(test, "Take this circuit")
    assert test.session_state["which_circuit"] == "search"
    test.text_input(key="name_for_" + suggestion(test)).set_value("taken")
    press(test, "Save")
    saved = Circuit.from_json((tmp_path / "taken.json").read_text())
    assert saved.nodes == EXPECTED.nodes
    assert saved.provenance["search"]["faithfulness"]["n"] == N
    assert saved.provenance["scores"]["A"]
    assert any(f"among {len(request.candidates)} heads" in b.label for b in test.button)
    assert not any("clear at a false" in caption.value for caption in test.caption)
    assert "Measure minimality of 5 heads" in [button.label for button in test.button]

    test.number_input(key="search_distance").set_value(0.6)
    rerun(test)
    smaller = found.within(0.6)
    assert smaller
    shown = next(m.value for m in test.metric if m.label.startswith("Heads of"))
    assert shown == str(smaller.n_heads)
    assert smaller.n_heads < point.n_heads
    press(test, "Take this circuit")
    press(test, "Save")
    saved = Circuit.from_json((tmp_path / "taken.json").read_text())
    assert saved.nodes == {*members_of(request, found, smaller)}


def suggestion(test: AppTest) -> str:
    (box,) = (box for box in test.text_input if (box.key or "").startswith("name_for_"))
    return str(box.key).removeprefix("name_for_")


def test_another_choice_says_that_the_curve_is_of_the_one_before(folder: str) -> None:
    test = discovered(page(folder), folder)
    searched(test)
    test.button_group(key="search_growth").set_value(Growth.in_turn)
    rerun(test)
    assert any("Press Search for new ones" in info.value for info in test.info)
    assert len(curves(test)) == 1


def test_a_model_that_guesses_gets_a_sentence_and_nothing_to_take(tmp_path: Path) -> None:
    folder = str(tmp_path / "guessing")
    planted.guessing().save_pretrained(folder)
    planted.tokenizer().save_pretrained(folder)
    test = discovered(page(folder), folder)
    searched(test)
    assert any("not above chance" in warning.value for warning in test.warning)
    assert not curves(test)
    assert "Take this circuit" not in [button.label for button in test.button]


def test_a_stored_search_is_opened_with_its_choices(folder: str) -> None:
    test = discovered(page(folder, search_growth=Growth.score, search_most=7), folder)
    request, _ = searched(test)
    assert len(request.candidates) == 7
    stored = studies.find(request)
    assert stored
    assert places.page_of(request) == "pages/discover.py"
    assert places.obstacle(stored) is None
    choosing = opened(test, stored)
    kept = {
        key: choosing.session_state[key]
        for key in ("metric", "examined", "discover_n", "discover_score", "search")
    }
    kept |= {
        f"search_{name}": choosing.session_state[f"search_{name}"]
        for name in ("growth", "most", "ablation", "tokens")
    }
    again = page(folder, **kept)
    assert "Search among 7 heads" in [button.label for button in again.button if button.disabled]
    assert len(curves(again)) == 1
    assert not any("Press Search" in info.value for info in again.info)
    assert any("From 20" in caption.value for caption in again.caption)
