"""The Attention page without a browser: the engine's numbers, ways to it, and bad input."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from streamlit.dataframe_util import convert_arrow_bytes_to_pandas_df
from streamlit.testing.v1 import AppTest

from backend.core.heads import Head
from backend.core.metrics import Metric
from backend.methods.attention import AttentionRequest
from backend.methods.attention_knockout import AttentionKnockoutRequest
from backend.models import catalogue
from backend.models.loaded_models import unload
from backend.studies import jobs, store, studies
from backend.studies.patterns import patterns
from backend.tasks.attention_edges import RANDOM, AttentionEdge
from backend.tasks.circuit import Circuit
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.ioi import IOI
from backend.tasks.prompts import Prompts
from backend.tasks.setting import Mode, Reading, intervention
from shell.attention.opening import BY_ROLE, KNOCKOUT
from shell.frame import places
from tests import planted_ioi
from tests.dashboard import ROOT
from tests.shell.apps import opened, ready

SMALL = Prompts(ENTITY_TRACKING, 50, 0, (3,))
CIRCUIT = catalogue.circuit("base")
PAIR = ("base", "arithmetic-full")
EDGES = ENTITY_TRACKING.edges


@pytest.fixture(autouse=True)
def no_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_jobs", type(jobs._jobs)())


def page(shown: str = "", chosen: Mapping[str, Any] | None = None, **query: str) -> AppTest:
    """The page with what is chosen on it already."""
    test = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    test.switch_page("pages/attention.py")
    test.query_params.update({"n": "50", "boxes": "3"} | query)
    if shown:
        test.session_state["attention_shown"] = shown
    for key, value in (chosen or {}).items():
        test.session_state[key] = value
    return ready(test.run())


def cutting(*edges: AttentionEdge, models: tuple[str, ...] = ("base",), **more: Any) -> AppTest:
    """The knock-out with these choices."""
    chosen = {
        "knockout_for": ENTITY_TRACKING,
        "knockout_offered": [*edges],
        "knockout_edges": [*edges],
        "knockout_heads": [],
        "attended": [*models],
    }
    return page(KNOCKOUT, chosen | more)


def press(test: AppTest, label: str) -> AppTest:
    next(button for button in test.button if button.label == label).click()
    return ready(test.run())


def said(test: AppTest) -> str:
    shown = (*test.caption, *test.markdown, *test.info, *test.error, *test.warning)
    return "\n".join(each.value for each in shown)


def html(test: AppTest) -> str:
    return "\n".join(each.proto.body for each in test.get("html"))


def charts(test: AppTest) -> list[pd.DataFrame]:
    """The largest table of each chart."""
    found = []
    for each in test.get("vega_lite_chart"):
        tables = [dataset.data.data for dataset in each.proto.datasets]
        found.append(max(map(convert_arrow_bytes_to_pandas_df, tables), key=len))
    return found


def test_a_head_looks_where_the_engine_says() -> None:
    test = page()
    head = test.selectbox(key="attention_head").value
    found = patterns("base", SMALL, 0)
    token = found.positions[ENTITY_TRACKING.group("D").position]
    assert test.selectbox(key="attention_token").value == token
    row = found.weights[head.layer, head.index, token]
    best = int(row.argmax())
    assert f"“{found.words[best]}” ({best}) {row[best]:.2f}" in said(test)
    assert f'title="{row[best]:.3f}: ' in html(test)
    test = ready(test.selectbox(key="attention_head").set_value(Head(4, 0)).run())
    last = len(found.words) - 1
    assert test.selectbox(key="attention_token").value == last
    assert f"{found.weights[4, 0, last].max():.2f}" in said(test)
    test = ready(test.selectbox(key="attention_token").set_value(5).run())
    assert f"L4.0 from “{found.words[5]}” (5)" in said(test)


def test_models_stand_side_by_side_and_switches_are_seen() -> None:
    test = page(off="B3.3", example="2", reading="model")
    assert "Base, as it is" in said(test)
    assert "Base, as on the Circuit page" in said(test)
    off = frozenset({("B", Head(3, 3))})
    switched = intervention(CIRCUIT, Reading.model, Mode.mean, off)
    test = ready(test.selectbox(key="attention_head").set_value(Head(4, 2)).run())
    last = patterns("base", SMALL, 2, switched)
    row = last.weights[4, 2, -1]
    assert f"“{last.words[row.argmax()]}” ({row.argmax()}) {row.max():.2f}" in said(test)
    test = ready(test.selectbox(key="attention_beside").set_value("arithmetic-full").run())
    label = catalogue.label("arithmetic-full")
    assert f"{label}, as it is" in said(test)
    assert f"{label}, as on the Circuit page" in said(test)
    test.toggle(key="attention_switched").set_value(False)
    assert "as on the Circuit page" not in said(ready(test.run()))
    before = said(test)
    assert "Example 3 of 50" in before
    test = press(test, "▶")
    assert "Example 4 of 50" in said(test)


@pytest.mark.parametrize("wrong", ["no/such model", "https://evil.test", "![p](x)"])
def test_another_model_that_is_none_is_explained_beside_the_first(wrong: str) -> None:
    test = page("", {"attention_beside": wrong})
    assert test.error
    assert "Base, as it is" in said(test)
    assert html(test).count('class="prompt attention"') == 1


def test_means_by_role_are_the_methods() -> None:
    request = AttentionRequest(PAIR, CIRCUIT, SMALL)
    test = press(page(BY_ROLE), "Run")
    stored = studies.find(request)
    assert stored
    for group, rows in zip(ENTITY_TRACKING.reading_order, charts(test), strict=True):
        heads = CIRCUIT.heads(group.key)
        assert len(rows) == len(heads) * 2 * len(ENTITY_TRACKING.targets)
    found = next(each for each in stored.parts[0].heads if each.group == "A")
    first = charts(test)[-1].iloc[0]
    assert first["said"].startswith(f"{found.by_target[0].value:.3f}, 95 %: ")
    assert first["n"] == 50


def test_curves_are_the_methods_and_the_papers_lie_over_them() -> None:
    test = press(page(KNOCKOUT), "Run")
    request = AttentionKnockoutRequest(PAIR, SMALL, EDGES)
    stored = studies.find(request)
    assert stored
    rows = charts(test)[0]
    expected = [each.value for curve in stored.parts[0].curves for each in curve.by_layer]
    assert rows["value"].tolist() == pytest.approx(expected)
    assert set(rows["of"]) == {"measured here"}
    for part in stored.parts:
        assert f"{part.curves[0].by_layer[0].value:.3f}" in html(test)
    test.toggle(key="knockout_papers").set_value(True)
    test = ready(test.run())
    assert len(charts(test)[0]) == len(rows) + 5 * 32
    assert "the paper’s Llama-7B" in html(test)
    assert "only the order along the depth can be compared" in said(test)


def test_pairs_heads_and_windows_are_asked_for() -> None:
    test = cutting(*EDGES[:1], knockout_heads=["L3.3"], knockout_window=2)
    test.selectbox(key="knockout_query").set_value("query_label")
    test.selectbox(key="knockout_key").set_value("correct_object")
    test = press(press(test, "Add"), "Run")
    edges = (EDGES[0], AttentionEdge("query_label", "correct_object"))
    request = AttentionKnockoutRequest(
        ("base",), SMALL, edges, frozenset({Head(3, 3)}), 2, Metric.accuracy
    )
    assert studies.find(request)
    assert "only in L3.3" in said(test)
    assert "2 layers from there on" in said(test)


@pytest.mark.parametrize(
    ("edges", "chosen", "reason"),
    [
        (EDGES, {"knockout_heads": ["rubbish"]}, "is not a head"),
        (EDGES, {"knockout_heads": ["L9.9"]}, "There is no head L9.9"),
        ([], {}, "No pair of tokens"),
        ([AttentionEdge("prev_query_label", "last")], {}, "nothing to cut"),
        (EDGES, {"models": ("no/such model",)}, "no/such model"),
        (EDGES, {"models": ()}, "Press Run to cut"),
    ],
)
def test_what_cannot_be_cut_is_explained(edges: Any, chosen: dict[str, Any], reason: str) -> None:
    test = cutting(*edges, **chosen)
    if any(button.label == "Run" and not button.disabled for button in test.button):
        test = press(test, "Run")
    assert reason in said(test)


def test_the_same_token_twice_is_no_pair() -> None:
    test = cutting(*EDGES)
    test.selectbox(key="knockout_key").set_value("last")
    test = press(test, "Add")
    assert "two different tokens" in said(test)
    assert test.session_state["knockout_edges"] == [*EDGES]


@pytest.mark.parametrize(
    "request_",
    [
        AttentionRequest(("base",), CIRCUIT, SMALL),
        AttentionKnockoutRequest(
            ("base",), SMALL, (AttentionEdge("last", RANDOM),), frozenset({Head(1, 1)}), 3
        ),
    ],
)
def test_a_result_leads_back_to_its_choices(request_: Any) -> None:
    assert places.title_of(str(places.page_of(request_))) == "Attention"
    expected = [*studies.run(request_, lambda stage, share: None)]
    stored = studies.find(request_)
    assert stored
    test = page()
    choosing = opened(test, stored)
    kept = (
        "attention_shown", "attended", "attended_started_from", "knockout_for", "knockout_offered",
        "knockout_edges", "knockout_heads", "knockout_window", "attention_by_role",
        "attention_knockout",
    )  # fmt: skip
    chosen = {key: choosing.session_state[key] for key in kept if key in choosing.session_state}
    test = page("", chosen)
    assert "From 20" in said(test)
    assert len(charts(test)) == (1 if isinstance(request_, AttentionKnockoutRequest) else 4)
    assert len(expected) == 1


def test_another_task_has_its_own_tokens(tmp_path: Path, empty_cache: Path) -> None:
    model = planted_ioi.saved(tmp_path)
    circuit = Circuit.of(IOI, planted_ioi.CIRCUIT, "planted")
    catalogue.add_circuit("planted.json", circuit.to_json().encode())
    test = page("", task="ioi", model=model, circuit="planted")
    assert "as it is" in said(test)
    test.session_state["attention_shown"] = KNOCKOUT
    test = press(ready(test.run()), "Run")
    request = AttentionKnockoutRequest((model,), Prompts(IOI, 50, 0), IOI.edges)
    assert studies.find(request)
    assert not test.toggle or "knockout_papers" not in {each.key for each in test.toggle}
    test.session_state["attention_shown"] = BY_ROLE
    test = press(ready(test.run()), "Run")
    assert len(charts(test)) == len(IOI.groups)
    assert store.entries()
    unload(model)


def test_without_a_circuit_heads_can_still_be_looked_at(tmp_path: Path) -> None:
    planted_ioi.saved(tmp_path)
    test = page("", task="ioi", model=str(tmp_path))
    assert "as it is" in said(test)
    test.session_state["attention_shown"] = BY_ROLE
    assert "There is no circuit for" in said(ready(test.run()))
    unload(str(tmp_path))
