"""Compare and CMAP without a browser: the engine's numbers, cancelling, and bad input."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from backend.commands.cli import main
from backend.core.components import Component
from backend.core.heads import Head, Site
from backend.core.metrics import Ablation, Metric
from backend.core.progress import Cancelled
from backend.core.statistics import Estimate
from backend.methods.cmap import CmapRequest, cmap, group_sets
from backend.methods.compare import (
    ComparisonRequest,
    Difference,
    as_in_paper,
    compare,
    joined,
    overlap,
)
from backend.methods.evaluation import examine
from backend.models import catalogue
from backend.models.loaded_models import load
from backend.studies import jobs, store
from backend.studies.studies import run
from backend.tasks.circuit import Circuit
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.prompts import Prompts
from circuitviz.tables import figures_table
from shell.compare.comparison import as_csv, difference_sentence
from shell.frame import studies
from tests import tiny
from tests.dashboard import ROOT

APP = ROOT / "app.py"
SMALL = Prompts(ENTITY_TRACKING, 50, 0, (3,))
CIRCUIT = catalogue.circuit("base")
HEADS = CIRCUIT
PAIR = catalogue.bundled_models()[:2]


def page(name: str, **query: str) -> AppTest:
    test = AppTest.from_file(str(APP), default_timeout=60)
    test.query_params.update({"n": str(SMALL.n), "boxes": str(SMALL.options[0])} | query)
    return test.run().switch_page(f"pages/{name}.py").run()


def press(test: AppTest, label: str) -> AppTest:
    next(button for button in test.button if button.label == label).click()
    return test.run()


def html(test: AppTest) -> str:
    assert not test.exception
    return " ".join(element.proto.body for element in test.get("html"))


def finished(test: AppTest, study: str) -> AppTest:
    test.session_state[study].job.future.result(120)
    return test.run()


@pytest.fixture(autouse=True)
def _forget_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_jobs", type(jobs._jobs)())


@pytest.fixture(scope="module")
def evaluations() -> list[Any]:
    return [examine(load(name), SMALL) for name in PAIR]


def test_a_comparison_shows_the_engines_numbers(evaluations: list[Any]) -> None:
    test = page("compare")
    test.multiselect(key="compared").set_value(list(PAIR)).run()
    test = finished(press(test, "Run"), "comparison")
    expected = compare(evaluations, CIRCUIT)
    shown = html(test)
    for row in expected.models:
        for estimate in (row.model, row.circuit, row.random.mean, row.faithfulness):
            assert f"{estimate.value:.3f}" in shown
            assert f"{estimate.low:.3f} to {estimate.high:.3f}, n = {SMALL.n}" in shown
    study = test.session_state["comparison"]
    assert joined(study.request, study.job.parts) == expected
    said = " ".join(element.value for element in test.markdown)
    for pair in expected.differences:
        assert difference_sentence(pair) in said
    assert any("50 prompts, seed 0, 3 boxes" in caption.value for caption in test.caption)


def test_a_comparison_by_the_measure_says_so(evaluations: list[Any]) -> None:
    test = page("compare", metric="logit_difference")
    test.multiselect(key="compared").set_value(list(PAIR)).run()
    test = finished(press(test, "Run"), "comparison")
    expected = compare(evaluations, CIRCUIT, metric=Metric.logit_difference)
    shown = html(test)
    for row in expected.models:
        for estimate in (row.model, row.circuit, row.faithfulness):
            assert f"{estimate.value:.3f}" in shown
    said = [caption.value for caption in test.caption]
    assert any("Logit difference: not as in the paper." in caption for caption in said)
    assert any("Logit difference on 50 prompts" in caption for caption in said)
    test.selectbox(key="metric").select(Metric.accuracy).run()
    assert "other choices than those made now" in test.info[0].value


def test_a_comparison_by_another_ablation_says_so(evaluations: list[Any]) -> None:
    test = page("compare")
    test.multiselect(key="compared").set_value([PAIR[0]]).run()
    test.session_state["compared_ablation"] = Ablation.zero
    test = finished(press(test.run(), "Run"), "comparison")
    expected = compare([examine(load(PAIR[0]), SMALL, Ablation.zero)], CIRCUIT)
    by_means = compare(evaluations[:1], CIRCUIT)
    assert expected.models[0].circuit.value != by_means.models[0].circuit.value
    assert f"{expected.models[0].circuit.value:.3f}" in html(test)
    said = [caption.value for caption in test.caption]
    assert any("Zero ablation: not as in the paper." in caption for caption in said)
    assert any("Knocked-out heads give zeros" in caption for caption in said)


def test_a_row_as_the_papers_code_ran_it_is_there_when_asked_for() -> None:
    adapted = "arithmetic-lora"
    test = page("compare")
    test.multiselect(key="compared").set_value(["base", adapted]).run()
    test = finished(press(test, "Run"), "comparison")
    words = "as the paper’s code ran it"
    assert words not in html(test)
    test.toggle(key="as_in_paper").set_value(True).run()
    assert html(test).count(words) == 1
    evaluation = examine(load(adapted), SMALL)
    expected = as_in_paper(evaluation, CIRCUIT, evaluation.whole)
    assert expected
    for estimate in (expected.circuit, expected.faithfulness):
        assert f"{estimate.value:.3f}" in html(test)


def test_without_an_adapter_on_the_output_projection_there_is_no_such_switch() -> None:
    test = page("compare")
    test.multiselect(key="compared").set_value(list(PAIR)).run()
    test = finished(press(test, "Run"), "comparison")
    assert not [toggle for toggle in test.toggle if toggle.key == "as_in_paper"]


def test_another_choice_is_told_from_what_is_shown() -> None:
    test = page("compare")
    test.multiselect(key="compared").set_value(["base"]).run()
    test = finished(press(test, "Run"), "comparison")
    assert not test.info
    test.multiselect(key="compared").set_value(list(PAIR)).run()
    assert "other choices than those made now" in test.info[0].value
    assert "Base" in html(test)


def test_heads_that_are_off_can_be_left_out() -> None:
    (group, head), *kept = CIRCUIT.members
    test = page("compare", off=f"{group}{str(head)[1:]}")
    assert not test.exception
    test.session_state["compared_heads"] = f"Those switched on ({len(kept)})"
    test.run()
    press(test, "Run")
    assert test.session_state["comparison"].request.circuit.nodes == frozenset(kept)
    test.session_state["comparison"].job.cancel()


def test_an_unknown_model_gets_a_message_and_the_finished_ones_stay() -> None:
    request = ComparisonRequest(("base", "no such model"), HEADS, SMALL)
    test = page("compare")
    test.session_state["comparison"] = studies.Study(
        request, jobs.job(request, lambda report: run(request, report))
    )
    test.session_state["comparison"].job.future.exception(120)
    test.run()
    assert "There is no model “no such model”" in test.error[0].value
    assert "Base" in html(test)


def test_a_cancelled_comparison_keeps_what_is_finished() -> None:
    request = ComparisonRequest(PAIR, HEADS, SMALL)
    test = page("compare")
    test.multiselect(key="compared").set_value(list(PAIR)).run()

    def work(report: jobs.Report) -> Iterator[Any]:
        yield next(run(request, report))
        raise Cancelled

    cancelled = jobs.Job()
    cancelled.run(work)
    test.session_state["comparison"] = studies.Study(request, cancelled)
    test.run()
    assert "What was finished is kept" in test.info[0].value
    assert catalogue.label(PAIR[0]) in html(test)


def test_a_cmap_shows_the_engines_numbers(evaluations: list[Any]) -> None:
    base, tuned = evaluations
    expected = cmap(tuned, base, group_sets(CIRCUIT))
    test = page("cmap")
    test = finished(press(test, "Run"), "transplants")
    shown = html(test)
    assert "undefined" in shown or expected.gap.is_clear
    for outcome in expected.sets.values():
        assert f"{outcome.accuracy.value:.3f}" in shown
        assert f"{outcome.change.value:.3f}".replace("-", "\N{MINUS SIGN}") in shown
    maps = test.session_state["transplants"].job.parts[1:]
    assert [token for found in maps for token in found.heads] == [
        "prev_query_label", "query_label", "last",
    ]  # fmt: skip
    site = Site(CIRCUIT.heads("A")[0], "last")
    test.multiselect(key="pinned_entity-tracking").set_value([site]).run()
    assert "your set" in html(test)


def test_a_cmap_by_the_measure_says_so(evaluations: list[Any]) -> None:
    base, tuned = evaluations
    expected = cmap(tuned, base, group_sets(CIRCUIT), metric=Metric.logit_difference)
    test = page("cmap", metric="logit_difference")
    test = finished(press(test, "Run"), "transplants")
    shown = html(test)
    for outcome in expected.sets.values():
        for figure in (outcome.accuracy, outcome.change):
            assert f"{figure.value:.3f}".replace("-", "\N{MINUS SIGN}") in shown
    said = [caption.value for caption in test.caption]
    assert any("Logit difference: not as in the paper." in caption for caption in said)
    assert not any("McNemar" in caption or "accurac" in caption for caption in said)
    site = Site(CIRCUIT.heads("A")[0], "last")
    test.multiselect(key="pinned_entity-tracking").set_value([site]).run()
    one = cmap(tuned, base, {"": frozenset({site})}, metric=Metric.logit_difference).sets[""]
    assert f"{one.accuracy.value:.3f}".replace("-", "\N{MINUS SIGN}") in html(test)


def test_what_the_command_line_measured_is_there_at_once(
    evaluations: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--prompts", str(SMALL.n), "--boxes", str(SMALL.options[0])]
    assert main(["compare", *PAIR, *asked]) == 0
    test = page("compare")
    assert "comparison" not in test.session_state
    test.multiselect(key="compared").set_value(list(PAIR)).run()
    shown = html(test)
    for row in compare(evaluations, CIRCUIT).models:
        assert f"{row.faithfulness.low:.3f} to {row.faithfulness.high:.3f}, n = {SMALL.n}" in shown
    assert any(caption.value.startswith("From 2") for caption in test.caption)
    assert not test.info


def test_pressing_run_computes_nothing_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--prompts", str(SMALL.n), "--boxes", str(SMALL.options[0])]
    assert main(["compare", *PAIR, *asked]) == 0
    monkeypatch.setattr("backend.studies.session.load", None)
    monkeypatch.setattr(jobs, "job", None)
    test = page("compare")
    test.multiselect(key="compared").set_value(list(PAIR)).run()
    test.session_state["comparison"] = None
    press(test, "Run")
    assert len(test.session_state["comparison"].job.parts) == len(PAIR)


def test_an_unfinished_cmap_is_shown_and_run_does_the_rest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--prompts", str(SMALL.n), "--boxes", str(SMALL.options[0])]
    assert main(["cmap", *PAIR[::-1], *asked]) == 0
    test = page("cmap")
    assert any("1 of 4 parts are there: press Run" in caption.value for caption in test.caption)
    assert any("Not part of this run" in caption.value for caption in test.caption)
    monkeypatch.setattr("backend.methods.cmap.cmap", None)
    test = finished(press(test, "Run"), "transplants")
    assert len(test.session_state["transplants"].job.parts) == 4
    (entry,) = store.entries()
    assert entry.is_complete


def test_swapping_turns_the_pair_round() -> None:
    test = page("cmap")
    before = test.session_state["source"], test.session_state["target"]
    press(test, "⇄")
    assert (test.session_state["target"], test.session_state["source"]) == before


def test_a_pair_of_other_shapes_cannot_be_run_and_the_page_says_why(tmp_path: Path) -> None:
    tiny.llama().save_pretrained(tmp_path)
    tiny.word_tokenizer().save_pretrained(tmp_path)
    test = AppTest.from_file(str(APP), default_timeout=60).run()
    test.session_state["source"], test.session_state["target"] = str(tmp_path), "base"
    test.switch_page("pages/cmap.py").run()
    (warning,) = test.warning
    assert "has 4 layers, Base has 5" in warning.value
    assert warning.value.endswith("Choose two models of one shape.")
    assert next(button for button in test.button if button.label == "Run").disabled
    press(test, "⇄")
    assert "Base has 5 layers" in test.warning[0].value


def test_a_circuit_outside_the_model_gets_a_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "ADDED_CIRCUITS", tmp_path)
    (tmp_path / "big.json").write_text(
        Circuit.of(ENTITY_TRACKING, {"A": (Head(31, 31),)}, "big").to_json()
    )
    for name in ("compare", "cmap"):
        test = page(name, circuit="big")
        (warning,) = test.warning
        assert "has head L31.31 in group A, but Base has only 5 layers" in warning.value
        assert next(button for button in test.button if button.label == "Run").disabled


def test_choices_start_from_the_sidebars_model_and_what_fits_it(tmp_path: Path) -> None:
    four_layers = str(tmp_path)
    tiny.llama().save_pretrained(tmp_path)
    tiny.word_tokenizer().save_pretrained(tmp_path)
    test = AppTest.from_file(str(APP), default_timeout=60)
    test.query_params["model"] = four_layers
    test.run()
    assert any("Does not fit" in caption.value for caption in test.sidebar.caption)
    test.switch_page("pages/compare.py").run()
    assert test.session_state["compared"] == [four_layers]
    assert "has only 4 layers" in test.warning[0].value  # the circuit has five
    test.switch_page("pages/cmap.py").run()
    assert test.session_state["target"] == four_layers

    test.session_state["model"] = "arithmetic-full"
    test.run()
    pair = test.session_state["source"], test.session_state["target"]
    assert pair == ("base", "arithmetic-full")
    assert not test.warning
    test.switch_page("pages/compare.py").run()
    assert test.session_state["compared"] == [*catalogue.bundled_models()]

    test.session_state["compared"] = ["base"]  # a choice stays, as long as the sidebar's model does
    test.switch_page("pages/cmap.py").run()
    test.switch_page("pages/compare.py").run()
    assert test.session_state["compared"] == ["base"]


def test_the_overlap_of_two_circuits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "ADDED_CIRCUITS", tmp_path)
    half = CIRCUIT.keep(CIRCUIT.members[::2])
    (tmp_path / "half.json").write_text(half.to_json())
    test = page("compare")
    test.selectbox(key="overlap_with").select("half").run()
    found = overlap(CIRCUIT, half)
    for group in found.values():
        assert f"<span>{group.precision:.2f}</span>" in html(test)
        assert f"<span>{len(group.shared)}</span>" in html(test)


def test_an_unknown_circuit_gets_a_message() -> None:
    for name in ("compare", "cmap"):
        assert "There is no circuit “nowhere”" in page(name, circuit="nowhere").error[0].value


def test_requests_start_again_only_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studies.st, "session_state", {})
    request = CmapRequest("a", "b", HEADS, Component.output, SMALL)

    def fails(request: Any, report: jobs.Report) -> Iterator[Any]:
        yield 1
        raise ValueError

    monkeypatch.setattr("backend.studies.studies.run", fails)
    studies.start("x", request)
    first = studies.latest("x", request)
    assert first
    assert first.job.future.exception(60)
    assert first.job.parts == [1]
    monkeypatch.setattr("backend.studies.studies.run", lambda request, report: iter([2]))
    studies.start("x", request)
    second = studies.latest("x", request)
    assert second
    assert second.job.future.result(5) == [2]
    monkeypatch.setattr("backend.studies.studies.run", fails)
    studies.start("x", request)
    again = studies.latest("x", request)
    assert again
    assert again.job is second.job


def test_words_for_differences() -> None:
    clear, unclear = Estimate(-0.2, -0.3, -0.1, 50), Estimate(0.1, -0.1, 0.3, 50)
    nan = float("nan")
    pair = Difference("base", "chat", clear, unclear, Estimate(nan, nan, nan, 50))
    assert difference_sentence(pair) == (
        "**Base → Chat**: full model **clearly lower**, −0.200 (−0.300 to −0.100); circuit not "
        "clearly different, +0.100 (−0.100 to +0.300); faithfulness undefined."
    )


def test_tables_escape_names_and_say_what_is_undefined(evaluations: list[Any]) -> None:
    nan = float("nan")
    table = figures_table(["<b>"], [["<script>", Estimate(nan, nan, nan, 5)]])
    assert "<script>" not in table
    assert "undefined" in table
    text = as_csv(ComparisonRequest(PAIR, HEADS, SMALL), compare(evaluations, CIRCUIT, n_random=2))
    assert text.splitlines()[0].startswith("model,finetuned_on,full_model,full_model_low")
    assert len(text.splitlines()) == 3
