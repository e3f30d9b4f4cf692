"""The Discover page without a browser: what it shows is what path patching gives."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from backend.commands.cli import main
from backend.core.heads import Head
from backend.core.metrics import Ablation, Score
from backend.core.serialize import from_json
from backend.methods.completeness import completeness
from backend.methods.edges import Edges
from backend.methods.evaluation import examine
from backend.methods.minimality import minimality
from backend.methods.stage import NO_TEST
from backend.methods.stages import DEFAULT_FDR, Criteria
from backend.models import catalogue
from backend.models.loaded_models import load
from backend.studies import jobs
from backend.studies.session import prepare
from backend.studies.stages import found_circuit, run_stages
from backend.tasks.circuit import Circuit
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.prompts import Prompts
from backend.tasks.setting import Setting
from shell.discover import discovery
from shell.discover.discovery import Plan
from shell.discover.found import plain
from shell.discover.stages import stage_frame
from shell.frame.history import History, Switches
from takehome.edges import edge_weights
from tests import planted
from tests.dashboard import ROOT
from tests.shell.apps import figures

APP = ROOT / "app.py"
N = 10
SHOWN = 50
SETTING = Setting("base", Prompts(ENTITY_TRACKING, N, 0, (7,)))
KEY = ("discover", SETTING, Score.probability)
A = ENTITY_TRACKING.group("A")
CRITERIA = Criteria(fdr=NO_TEST)
"""On so few prompts hardly a head is clear."""


@pytest.fixture(autouse=True)
def _fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "ADDED_CIRCUITS", tmp_path)
    monkeypatch.setattr(discovery.jobs, "_jobs", type(jobs._jobs)())


def page(**values: Any) -> AppTest:
    test = AppTest.from_file(str(APP), default_timeout=60)
    test.query_params.update({"n": str(SHOWN), "model": values.pop("model", "base")})
    test.query_params["boxes"] = str(values.pop("boxes", 7))
    for key, value in ({"discover_n": N, "discover_fdr": NO_TEST} | values).items():
        test.session_state[key.replace("base_found", "base-found")] = value
    return rerun(test.switch_page("pages/discover.py"))


def rerun(test: AppTest) -> AppTest:
    test.run()
    assert not test.exception
    return test


def press(test: AppTest, label: str) -> AppTest:
    next(button for button in test.button if button.label == label).click()
    return rerun(test)


def labels(test: AppTest) -> list[str]:
    return [button.label for button in test.button]


def finish(test: AppTest, setting: Setting = SETTING, score: Score = Score.probability) -> AppTest:
    job = jobs.known(("discover", setting, score))
    assert job is not None
    job.future.exception(120)
    return rerun(test)


def run_all(test: AppTest) -> AppTest:
    return finish(press(test, "Run all four stages"))


def stages(test: AppTest) -> tuple[Any, ...]:
    return tuple(test.session_state["discoveries"][KEY][0].parts)


def expected(kept: dict[str, int] | None = None, until: str = "D") -> list[Any]:
    criteria = replace(CRITERIA, sizes={"A": 8, "B": 6, "C": 4, "D": 4, **(kept or {})})
    return list(run_stages(SETTING, criteria, (), until, lambda stage, share: None))


def charts(test: AppTest) -> list[dict[str, Any]]:
    return [json.loads(chart.proto.spec) for chart in test.get("vega_lite_chart")]


def test_all_four_stages_show_the_scores_of_path_patching() -> None:
    test = run_all(page())
    assert len(charts(test)) == len(ENTITY_TRACKING.keys)
    for group, shown, right in zip(ENTITY_TRACKING.groups, stages(test), expected(), strict=True):
        assert shown.receivers == right.receivers
        frame = stage_frame(Plan(SETTING, CRITERIA), shown, group)
        for row in frame.itertuples():
            head = Head(row.layer, row.head)
            assert row.name == str(head)
            assert row.score == pytest.approx(float(right.mean[head]), abs=1e-6)
            assert row.standard_error == pytest.approx(float(right.standard_error[head]), abs=1e-6)
            assert row.kept == (head in CRITERIA.kept(group, right))
    assert "All four stages are done" in labels(test)


def test_another_score_is_another_discovery_and_says_so() -> None:
    test = finish(press(page(), "Run A"))
    test.selectbox(key="discover_score").select(Score.logit_difference)
    assert not charts(rerun(test))
    test = finish(press(test, "Run A"), score=Score.logit_difference)
    (stage,) = run_stages(
        SETTING, CRITERIA, (), "A", lambda stage, share: None, Score.logit_difference
    )
    (shown,) = test.session_state["discoveries"][*KEY[:2], Score.logit_difference][0].parts
    np.testing.assert_array_equal(shown.mean, stage.mean)
    assert any("logit difference, in logits, not the paper’s" in c.value for c in test.caption)
    test.selectbox(key="discover_score").select(Score.probability)
    assert len(charts(rerun(test))) == 1
    assert not any("in logits, not the paper’s" in caption.value for caption in test.caption)


def test_stages_run_one_by_one() -> None:
    test = page()
    for group in ENTITY_TRACKING.keys:
        press(test, f"Run {group}")
        finish(test)
        assert len(stages(test)) == ENTITY_TRACKING.keys.index(group) + 1
    assert [s.receivers for s in stages(test)] == [s.receivers for s in expected()]


def test_keeping_other_heads_makes_the_later_stages_stale() -> None:
    test = run_all(page())
    first = stages(test)
    test.number_input(key="discover_keep_B").set_value(2)
    rerun(test)
    stale = [caption.value for caption in test.caption if "Stale" in caption.value]
    assert len(stale) == 2
    assert all("run again from C" in text for text in stale)
    assert any("when the stages have run" in caption.value for caption in test.caption)
    finish(press(test, "Run the rest, from C"))
    again = stages(test)
    assert again[:2] == first[:2]
    assert again[2].receivers == first[1].strongest(2)
    assert not [caption for caption in test.caption if "Stale" in caption.value]


def test_median_centred_scores_rank_the_heads() -> None:
    test = run_all(page(discover_ranking=discovery.CENTRED))
    stage = stages(test)[0]
    criteria = replace(CRITERIA, centred=True)
    kept = criteria.kept(A, stage)
    assert stages(test)[1].receivers == kept
    frame = stage_frame(Plan(SETTING, criteria), stage, A)
    for layer, rows in frame.groupby("layer"):
        assert rows["score"].median() == pytest.approx(0, abs=1e-6), layer


def test_cancelling_keeps_the_finished_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    arrived, go_on = Event(), Event()

    def slow(*arguments: Any) -> Any:
        *_, report, _ = arguments
        for number, stage in enumerate(run_stages(*arguments)):
            yield stage
            if number == 1:
                arrived.set()
                go_on.wait(60)
                report("Going on", 0.6)

    test = page()
    with monkeypatch.context() as patched:
        patched.setattr(discovery, "run_stages", slow)
        press(test, "Run all four stages")
        assert arrived.wait(60)
    rerun(test)
    assert len(charts(test)) == 2
    press(test, "Cancel")
    go_on.set()
    finish(test)
    assert "Cancelled. What was finished is kept." in test.info[0].value
    assert len(charts(test)) == 2
    finish(press(test, "Run the rest, from C"))
    assert len(charts(test)) == len(ENTITY_TRACKING.keys)


def test_another_tab_finds_the_same_stages() -> None:
    run_all(page())
    assert len(charts(page())) == len(ENTITY_TRACKING.keys)


def test_an_unknown_model_gets_a_message_and_the_page_goes_on() -> None:
    test = page(model="no-such-model")
    press(test, "Run all four stages")
    finish(test, Setting("no-such-model", Prompts(ENTITY_TRACKING, N, 0, (7,))))
    assert "There is no model" in test.error[0].value
    assert "Run all four stages" in labels(test)


def test_saving_keeps_heads_and_where_they_come_from(tmp_path: Path) -> None:
    test = run_all(page(name_for_base_found="mine"))
    press(test, "Save")
    assert "Saved as “mine”" in test.success[0].value
    saved = Circuit.from_json((tmp_path / "mine.json").read_text())
    right = found_circuit(SETTING, expected(), CRITERIA, "mine")
    assert saved.nodes == right.nodes
    assert not {*saved.heads("A")} & {*saved.heads("B")}
    for key in ("model", "seed", "boxes", "n_prompts", "sizes", "receivers", "scores", "date"):
        assert key in saved.provenance
    assert saved.provenance["sizes"] == {"A": 8, "B": 6, "C": 4, "D": 4}


@pytest.mark.parametrize("name", ["base", "../../etc/passwd", "", "a b", "x" * 65])
def test_a_bad_name_gets_a_message_and_no_file(tmp_path: Path, name: str) -> None:
    test = run_all(page(name_for_base_found=name))
    press(test, "Save")
    assert test.error
    assert not [*tmp_path.rglob("*.json")]
    press(test, "Open in the Circuit page")
    assert test.error
    assert test.session_state["circuit"] == "base"


def test_the_found_circuit_opens_in_the_circuit_page() -> None:
    shown = Setting("base", Prompts(ENTITY_TRACKING, SHOWN, 0, (7,)))
    jobs.job(shown, lambda report: iter([prepare(shown, report)])).future.result(120)
    test = page(name_for_base_found="opened")
    head = ("A", catalogue.circuit("base").heads("A")[0])
    test.session_state["history"] = History(Switches(frozenset({head})))
    run_all(test)
    press(test, "Open in the Circuit page")
    assert test.session_state["circuit"] == "opened"
    assert test.session_state["history"] == History()
    assert "Faithfulness" in figures(test)


def test_a_model_that_guesses_gets_a_sentence_and_an_empty_circuit(tmp_path: Path) -> None:
    folder = tmp_path / "guessing"
    planted.guessing().save_pretrained(folder)
    planted.tokenizer().save_pretrained(folder)
    guesses = Setting(str(folder), Prompts(ENTITY_TRACKING, 20, 0, (2,)))
    suggested = plain(f"{guesses.model}-found")
    test = page(model=guesses.model, boxes=2, discover_n=20, discover_fdr=DEFAULT_FDR)
    finish(press(test, "Run all four stages"), guesses)
    said = [caption.value for caption in test.caption]
    assert sum("No head is clear among the 12 that were tried" in text for text in said) == 1
    for key in "ABC":
        assert sum(f"Not run: {key} keeps no head" in text for text in said) == 1
    assert "Nothing is left to run" in labels(test)
    assert len(charts(test)) == 1
    assert "nothing in it to examine" in test.info[0].value
    test.session_state[f"name_for_{suggested}"] = "empty"
    shown = replace(guesses, prompts=replace(guesses.prompts, n=SHOWN))
    jobs.job(shown, lambda report: iter([prepare(shown, report)])).future.result(120)
    press(test, "Open in the Circuit page")
    assert not catalogue.circuit("empty").members
    assert "Faithfulness" in figures(test)


def test_heads_that_are_not_clear_are_neither_kept_nor_framed() -> None:
    test = run_all(page(discover_fdr=DEFAULT_FDR))
    (stage, *_), criteria = stages(test), Criteria()
    assert len(criteria.kept(A, stage)) < len(CRITERIA.kept(A, stage))
    framed = [
        row.name for row in stage_frame(Plan(SETTING, criteria), stage, A).itertuples() if row.kept
    ]
    assert {*framed} == {*map(str, criteria.kept(A, stage))}


def ask(test: AppTest, label: str) -> Any:
    press(test, next(text for text in labels(test) if text.startswith(label)))
    study = test.session_state[label.split()[1]]
    (found,) = study.job.future.result(120)
    rerun(test)
    return found


def test_minimality_drops_heads_and_takes_them_back() -> None:
    test = run_all(page())
    found = ask(test, "Measure minimality")
    n_heads = len(found.heads)
    evaluation = examine(load("base"), SETTING.prompts)
    circuit = found_circuit(SETTING, expected(), CRITERIA, "found")
    again = replace(minimality(evaluation, circuit), circuit=found.circuit)
    assert repr(found) == repr(again)  # an undefined gain is nan, and nan is not itself
    n_kept = sum(each.adds(0.01) for each in found.heads)
    assert 0 < n_kept < n_heads
    press(test, f"Keep only the {n_kept} minimal heads")
    assert any(f"{n_kept} heads:" in caption.value for caption in test.caption)
    press(test, "Take them back")
    assert any(f"{n_heads} heads:" in caption.value for caption in test.caption)
    test.number_input(key="least_gain").set_value(50.0)
    rerun(test)
    n_strong = sum(each.adds(0.5) for each in found.heads)
    assert f"Keep only the {n_strong} minimal heads" in labels(test)


def test_completeness_is_the_engines() -> None:
    test = run_all(page())
    found = ask(test, "Measure completeness")
    evaluation = examine(load("base"), SETTING.prompts)
    circuit = found_circuit(SETTING, expected(), CRITERIA, "found")
    assert found == completeness(evaluation, circuit)
    assert f"{found.mean_incompleteness.value:.3f}" in [metric.value for metric in test.metric]


def test_edges_are_saved_with_the_circuit(tmp_path: Path) -> None:
    test = run_all(page(name_for_base_found="edged"))
    found = ask(test, "Measure edges")
    press(test, "Save")
    saved = Circuit.from_json((tmp_path / "edged.json").read_text())
    assert len(from_json(Edges, saved.provenance["edges"]).edges) == len(found.edges) > 0
    assert {*edge_weights(saved).values()} == {edge.weight.value for edge in found.clear}


def test_edges_are_weighed_by_the_score_that_is_chosen() -> None:
    test = page(discover_score=Score.logit_difference)
    found = ask(test, "Measure edges")
    assert found.score is Score.logit_difference
    said = [caption.value for caption in test.caption]
    assert any("change of the logit difference (not as in the paper)" in text for text in said)


@pytest.mark.parametrize("name", ["minimality", "completeness"])
def test_a_circuit_is_examined_with_the_ablation_that_is_chosen(name: str) -> None:
    test = page(**{f"{name}_ablation": Ablation.zero})
    found = ask(test, f"Measure {name}")
    evaluation = examine(load("base"), SETTING.prompts, Ablation.zero)
    method = {"minimality": minimality, "completeness": completeness}[name]
    assert repr(found) == repr(method(evaluation, catalogue.circuit("base")))
    said = [caption.value for caption in test.caption]
    assert any("Zero ablation: not as in the paper." in text for text in said)


def test_a_circuit_of_the_sidebar_can_be_examined() -> None:
    test = page()
    found = ask(test, "Measure edges")
    assert {edge.sender for edge in found.edges if edge.group == "A"} == {
        *catalogue.circuit("base").heads("A")
    }


@pytest.mark.parametrize("seed", [0, 1])
def test_completeness_measured_on_the_command_line_is_found(
    capsys: pytest.CaptureFixture[str], seed: int
) -> None:
    asked = ["--prompts", str(N), "--seed", str(seed)]
    assert main(["completeness", "base", *asked]) == 0
    test = page()
    is_found = not any(label.startswith("Measure completeness") for label in labels(test))
    assert is_found == (seed == SETTING.prompts.seed)
    if is_found:
        found = completeness(
            examine(load("base"), SETTING.prompts), catalogue.circuit("base"), seed=0
        )
        assert test.metric[0].value == f"{found.mean_incompleteness.value:.3f}"
