"""The Results page without a browser: what is stored is listed, shown, compared and written out."""

from __future__ import annotations

import io
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from backend.core.components import Component
from backend.methods.cmap import CmapRequest
from backend.methods.compare import ComparisonRequest
from backend.methods.registry import METHODS
from backend.methods.stage import StageRequest
from backend.models import catalogue
from backend.studies import jobs, store, studies
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.prompts import Prompts
from shell.frame import places
from shell.frame.words import unmarked
from shell.results import results
from tests.dashboard import ROOT

HEADS = catalogue.circuit("base")
PROMPTS = Prompts(ENTITY_TRACKING, 50, 0, (3,))
COMPARISON = ComparisonRequest(("base", "chat"), HEADS, PROMPTS)


def measured(*requests: Any) -> list[results.Result]:
    """These requests' results as the page reads them."""
    found = []
    for request in requests:
        [*studies.run(request, lambda stage, share: None)]
        stored = studies.find(request)
        assert stored
        found.append(results._read(stored.entry))
    return found


def ticked(monkeypatch: pytest.MonkeyPatch, *places: int) -> AppTest:
    """The page with these rows of the list ticked, which an AppTest cannot click."""
    choose = results.choose

    def some(found: Any) -> list[results.Result]:
        choose(found)
        return [results._read(found[place]) for place in places]

    monkeypatch.setattr(results, "choose", some)
    test = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    return run(test.switch_page("pages/results.py"))


def run(test: AppTest) -> AppTest:
    test.run()
    assert not test.exception
    return test


def press(test: AppTest, label: str) -> AppTest:
    next(button for button in test.button if button.label == label).click()
    return run(test)


def said(test: AppTest) -> str:
    return " ".join(e.value for e in (*test.markdown, *test.caption, *test.info, *test.warning))


def test_nothing_is_there_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Nothing is measured yet" in said(ticked(monkeypatch))


def test_the_list_says_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    measured(COMPARISON)
    test = ticked(monkeypatch)
    (row,) = test.dataframe[0].value.to_dict("records")
    assert (row["method"], row["models"], row["circuit"]) == (
        "Compare", "Base, Chat", f"base ({len(HEADS.members)})",
    )  # fmt: skip
    assert (row["prompts"], row["parts"]) == ("50, seed 0, 3 boxes", "2 of 2")
    assert row["size"] == store.entries()[0].path.stat().st_size
    assert "1 results" not in said(test)
    assert "1 result, " in said(test)


def test_one_result_shows_its_figures_and_opens_on_its_page(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jobs, "_jobs", type(jobs._jobs)())
    (result,) = measured(COMPARISON)
    test = ticked(monkeypatch, 0)
    shown = test.dataframe[1].value.set_index(["item", "figure"])
    assert result.stored
    for part in result.stored.parts:
        label = catalogue.label(part.figures.name)
        assert shown.loc[(label, "faithfulness"), "value"] == part.figures.faithfulness.value
    press(test, "Open on the Compare page")
    assert test.session_state["comparison"].request == COMPARISON
    assert (test.session_state["n"], test.session_state["options"]) == (50, (3,))
    assert any(caption.value.startswith("From 2") for caption in test.caption)
    assert not test.info


def test_a_stage_opens_on_the_discover_page(monkeypatch: pytest.MonkeyPatch) -> None:
    request = StageRequest("chat", Prompts(ENTITY_TRACKING, 10, 1, (3,)), "A", ())
    measured(request)
    test = press(ticked(monkeypatch, 0), "Open on the Discover page")
    assert (test.session_state["model"], test.session_state["discover_n"]) == ("chat", 10)
    assert len(test.get("vega_lite_chart")) == 1


def test_a_model_that_is_not_here_is_shown_all_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "their-model"
    shutil.copytree(catalogue.BUNDLED / "chat", elsewhere)
    stage = StageRequest(str(elsewhere), Prompts(ENTITY_TRACKING, 10, 1, (3,)), "A", ())
    both = replace(COMPARISON, models=("base", str(elsewhere)))
    measured(stage, both)
    shutil.rmtree(elsewhere)
    by_method = {entry.header.method: i for i, entry in enumerate(store.entries())}
    with monkeypatch.context() as patched:
        test = ticked(patched, by_method["stage"])
        (opening,) = (button for button in test.button if button.label.startswith("Open on"))
        assert opening.disabled
        assert "their-model" in said(test)
        assert len(test.dataframe[1].value) == 5 * 8
    test = press(ticked(monkeypatch, by_method["compare"]), "Open on the Compare page")
    shown = " ".join(element.proto.body for element in test.get("html"))
    assert "their-model" in shown


def test_two_results_stand_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    other = replace(COMPARISON, prompts=replace(PROMPTS, seed=1))
    first, second = measured(COMPARISON, other)
    order = [store.entries().index(result.entry) for result in (first, second)]
    test = ticked(monkeypatch, *order)
    frame = test.dataframe[1].value.set_index(["item", "figure"])
    assert first.stored
    assert second.stored
    for place, name in enumerate(("Base", "Chat")):
        one, two = (each.stored.parts[place].figures.model.value for each in (first, second))
        row = frame.loc[(name, "full model")]
        assert (row["first"], row["second"]) == (one, two)
        assert row["difference"] == pytest.approx(two - one)


def test_results_of_two_methods_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    measured(COMPARISON, StageRequest("base", Prompts(ENTITY_TRACKING, 5, 0, (2,)), "A", ()))
    assert "results of two methods" in said(ticked(monkeypatch, 0, 1))


def test_files_hold_every_figure_and_are_taken_in_again() -> None:
    cmap = CmapRequest("chat", "base", HEADS, Component.q, Prompts(ENTITY_TRACKING, 10, 0, (2,)))
    both = measured(COMPARISON, cmap)
    table = pd.read_csv(io.StringIO(results.as_csv(both)))
    assert set(table["method"]) == {"compare", "cmap"}
    row = table[(table["item"] == "Chat") & (table["figure"] == "circuit")].iloc[0]
    assert both[0].stored
    assert row["value"] == pytest.approx(both[0].stored.parts[1].figures.circuit.value)
    assert (row["n"], row["seed"], row["circuit"]) == (50, 0, "base")
    assert (table["item"] == "L4.0 at the last token").sum() == 3
    text = results.as_json(both)
    for entry in store.entries():
        store.delete(entry)
    store.DROPPED.mkdir()
    (store.DROPPED / "results.json").write_text(text)
    assert {entry.header.key for entry in store.entries()} == {
        result.entry.header.key for result in both
    }
    assert json.loads(results.as_json(both[:1]))["format"] == store.FORMAT


def test_deleting_asks_first_and_spares_what_was_shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    measured(COMPARISON)
    with monkeypatch.context() as patched:
        test = ticked(patched, 0)
        assert "Delete this result for good?" in said(test)
        assert store.entries()
        patched.setattr(results, "choose", lambda found: [])
        press(test, "Delete for good")
    assert store.entries() == []
    assert studies.find(COMPARISON) is None
    measured(COMPARISON)
    store.RESULTS.rename(store.SHIPPED)
    with monkeypatch.context() as patched:
        assert "What came with this tool stays" in said(ticked(patched, 0))


def test_files_that_were_moved_aside_or_left_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    (result,) = measured(COMPARISON)
    result.entry.path.write_text("{")
    odd = "*no tes*\n.json"
    (store.RESULTS / odd).write_text("{}")
    os.mkfifo(store.RESULTS / "pipe.json")
    moved, left = (warning.value for warning in ticked(monkeypatch).warning)
    assert unmarked(result.entry.path.name) in moved
    assert unmarked(str(store.DAMAGED)) in moved
    assert r"\*no tes\* .json”: it is not a result of this tool." in left
    assert "pipe.json”: it is a pipe, not an ordinary file." in left
    assert (store.RESULTS / odd).read_text() == "{}"
    for number in range(20):
        (store.RESULTS / f"more {number}.json").write_text("{}")
    assert ticked(monkeypatch).warning[1].value.endswith("- and 12 more.")


def test_every_method_with_a_page_can_be_opened() -> None:
    without = {name for name, each in METHODS.items() if each.request not in places._STUDIES}
    assert without == {"accuracy", "faithfulness", "cmap-set"}
