"""The Paper page without a browser: the paper's figures, those measured here, no weights needed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from backend import published
from backend.commands.cli import main
from backend.core.components import Component
from backend.core.heads import Head
from backend.core.serialize import to_json
from backend.core.statistics import Estimate
from backend.methods.cmap import Cmap, CmapRequest, Transplanted
from backend.methods.compare import ComparisonRequest
from backend.methods.completeness import Completeness, CompletenessRequest, Removal
from backend.methods.functions import Carried, Functions, FunctionsRequest
from backend.methods.minimality import HeadContribution, Minimality, MinimalityRequest
from backend.models import catalogue
from backend.studies import store, studies
from backend.studies.keys import marks_of
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.prompts import Prompts
from circuitviz.paper_charts import knockout_lines, transplant_bars
from shell.paper.paper import published_scores
from shell.paper.paper_figures import published_contributions, published_removals
from shell.results import measured
from tests.dashboard import ROOT

APP = ROOT / "app.py"
SECTIONS = (
    "Circuit", "Scores", "Faithfulness", "CMAP", "Completeness", "Minimality", "DCM",
    "Attention knockout",
)  # fmt: skip
CIRCUIT = catalogue.circuit("base")
HEADS, PROMPTS = CIRCUIT, Prompts(ENTITY_TRACKING, 40, 3, (4,))
FIGURE = Estimate(0.625, 0.511, 0.731, 40)


def page(section: str = "Circuit", model: str = "llama-7b", **state: Any) -> AppTest:
    test = AppTest.from_file(str(APP), default_timeout=60).switch_page("pages/paper.py")
    for name, value in {"paper_section": section, "paper_model": model, **state}.items():
        test.session_state[name] = value
    return test.run()


def said(test: AppTest) -> str:
    assert not test.exception
    words = [element.value for element in (*test.markdown, *test.caption)]
    return " ".join([*words, *(element.proto.body for element in test.get("html"))])


def keep(request: Any, *parts: Any, date: str = "2026-01-01T12:00:00+00:00") -> None:
    """Store a result as if it had been measured on that day."""
    header = studies._header(request, marks_of(request, patiently=True), 1.0)
    assert header
    store.write(replace(header, date=date), to_json(parts))


@pytest.mark.parametrize("model", published.MODELS)
@pytest.mark.parametrize("section", SECTIONS)
def test_every_section_of_every_model_can_be_shown(section: str, model: str) -> None:
    test = page(section, model)
    assert not test.exception
    assert not test.error
    assert "Prakash et al., ICLR 2024" in said(test)


@pytest.mark.parametrize(("model", "n"), [("llama-7b", 72), ("goat-7b", 175), ("float-7b", 175)])
def test_the_circuit_says_its_size(model: str, n: int) -> None:
    assert f"{published.MODELS[model]}’s circuit: {n} heads" in said(page("Circuit", model))


@pytest.mark.parametrize(
    ("section", "model", "flaws"),
    [
        ("Circuit", "llama-7b", {"cuts"}),
        ("Circuit", "goat-7b", {"cuts", "shifted"}),
        ("Scores", "float-7b", set()),
        ("Scores", "goat-7b", {"shifted"}),
        ("Faithfulness", "llama-7b", {"adapter", "replacement", "summary"}),
        ("CMAP", "llama-7b", {"a_and_b", "adapter"}),
        ("Minimality", "goat-7b", {"cuts", "adapter"}),
        ("DCM", "goat-7b", {"adapter", "label", "first_index", "foreign_token"}),
        ("DCM", "float-7b", {"label", "first_index", "foreign_token"}),
    ],
)
def test_known_flaws_stand_where_they_concern(section: str, model: str, flaws: set[str]) -> None:
    shown = said(page(section, model))
    assert {flaw.name for flaw in published.Flaw if flaw.value in shown} == flaws


def test_the_papers_tables_are_on_the_page() -> None:
    shown = said(page("Faithfulness"))
    for row in published.faithfulness().values():
        assert f"<span>{row.model:.2f}</span>" in shown
        assert f"<span>{row.faithfulness:.2f}</span>" in shown
    assert "0.62 to 0.70" in shown
    transplants = said(page("CMAP"))
    assert "<span>0.56</span><small>\N{MINUS SIGN}0.63</small>" in transplants
    masks = said(page("DCM"))
    assert "<span>0.468</span><small>40 of 40 heads</small>" in masks


@pytest.mark.parametrize(
    ("section", "command"),
    [
        ("Faithfulness", "compare"),
        ("CMAP", "cmap"),
        ("Completeness", "completeness"),
        ("Minimality", "minimality"),
        ("DCM", "functions"),
    ],
)
def test_where_nothing_is_measured_the_page_says_how_to_measure(section: str, command: str) -> None:
    shown = said(page(section))
    assert "Nothing like it is measured here yet." in shown
    assert f"`python -m backend {command} …`" in shown


def test_a_stored_comparison_stands_beside_the_papers() -> None:
    asked = ["--prompts", "20", "--boxes", "2", "--seed", "5"]
    assert main(["compare", "base", *asked]) == 0
    shown = said(page("Faithfulness"))
    (found,) = measured.comparisons()
    row = found.result.models[0]
    for estimate in (row.model, row.circuit, row.random.mean, row.faithfulness):
        interval = f"{estimate.low:.2f} to {estimate.high:.2f}"
        assert f"<span>{estimate.value:.2f}</span><small>{interval}</small>" in shown
    assert found.title.startswith("Base · 2")
    assert f"{found.title}: 20 prompts, seed 5, 2 boxes; circuit “base”" in shown
    assert "Nothing like it" not in shown


def test_stored_transplants_stand_beside_the_papers_and_one_can_choose() -> None:
    sets = {name: Transplanted(5, FIGURE, FIGURE, FIGURE) for name in ("none", *"DCBA", "all")}
    result = Cmap("chat", "base", Component.output.name, FIGURE, FIGURE, FIGURE, sets)
    older = CmapRequest("chat", "base", HEADS, Component.output, PROMPTS)
    keep(older, result)
    keep(
        replace(older, prompts=Prompts(ENTITY_TRACKING, 41, 3, (4,))),
        result,
        date="2026-02-01T12:00:00+00:00",
    )
    keys = replace(older, part=Component.k)
    keep(keys, replace(result, part="k"), date="2026-03-01T12:00:00+00:00")
    odd = replace(older, sets=(("A", CIRCUIT.sites),))
    keep(odd, result, date="2026-03-01T12:00:00+00:00")
    test = page("CMAP")
    titles = [found.title for found in measured.transplants()]
    assert [title.split(",")[0] for title in titles] == [
        "Chat into Base · 2026-02-01", "Chat into Base · 2026-01-01",
    ]  # fmt: skip
    assert f"{titles[0]}: source 0.625, target 0.625. 41 prompts, seed 3" in said(test)
    assert "0.511 to 0.731, n = 40" in said(test)
    box = next(box for box in test.selectbox if box.label == "Measured here")
    assert box.options == titles
    assert f"{titles[1]}: source" in said(box.select_index(1).run())


def test_stored_minimality_and_completeness_stand_beside_the_papers() -> None:
    each = HeadContribution("A", CIRCUIT.heads("A")[0], (), FIGURE, FIGURE, FIGURE)
    keep(MinimalityRequest("chat", HEADS, PROMPTS), Minimality("chat", "base", FIGURE, (each,)))
    groups = tuple(Removal(name, 2, FIGURE, FIGURE, FIGURE) for name in "ABCD")
    alike = Completeness("chat", "base", groups, groups[:3], Estimate(0.123, 0.1, 0.2, 3))
    keep(CompletenessRequest("chat", HEADS, PROMPTS), alike)
    keep(CompletenessRequest("chat", HEADS, PROMPTS, sets=3), alike)
    (minimal,), (complete,) = measured.minimalities(), measured.completenesses()
    assert f"{minimal.title}. 40 prompts, seed 3, 4 boxes" in said(page("Minimality"))
    shown = said(page("Completeness"))
    assert f"{complete.title}: mean |model − circuit| over 3 random sets 0.123" in shown
    assert "(95 %, over the sets: 0.100 to 0.200)" in shown


def test_what_groups_carry_stands_beside_the_papers_labels() -> None:
    clear, none = Estimate(0.6, 0.5, 0.7, 120, 1e-9), Estimate(0.0, -0.1, 0.1, 120, 0.9)
    found = Carried(FIGURE, clear, FIGURE, FIGURE, clear, (0.625,))
    nothing = Carried(replace(FIGURE, value=0.531), none, FIGURE, FIGURE, none, (0.531,))
    names = ("object", "label", "position")
    parts = [
        Functions(name, FIGURE, 0.25, {"A": nothing if name == "label" else found})
        for name in names
    ]
    request = FunctionsRequest("base", HEADS, PROMPTS, names)
    keep(request, *parts)
    keep(replace(request, desiderata=names[::2]), *parts[::2])
    shown = said(page("DCM"))
    (measured_here,) = measured.functions()
    assert f"{measured_here.title}; 120 prompts, seed 3, 4 boxes; circuit “base”" in shown
    assert "of another model than the paper’s 7B" in shown
    assert shown.count("<span>0.625</span><small>0.511 to 0.731, n = 40</small>") == 2
    assert "<span>0.531</span><small>0.511 to 0.731, n = 40</small><small>not clearly" in shown
    assert "<span>0.000</span>" in shown


def test_a_damaged_result_is_passed_over() -> None:
    requests = (
        ComparisonRequest(("base",), HEADS, PROMPTS),
        CmapRequest("chat", "base", HEADS, Component.output, PROMPTS),
        MinimalityRequest("chat", HEADS, PROMPTS),
        CompletenessRequest("chat", HEADS, PROMPTS),
    )
    for request in requests:
        keep(request, {"model": 3})
    for section in ("Faithfulness", "CMAP", "Completeness", "Minimality"):
        assert "Nothing like it is measured here yet." in said(page(section))


def test_a_damaged_file_gets_a_message_and_other_sections_stay(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    copy = tmp_path / "published"
    shutil.copytree(published.FOLDER, copy)
    monkeypatch.setattr(published, "FOLDER", copy)
    (copy / "tables.json").write_text('{"faithfulness_llama-7b_circuit": 3}')
    (copy / "dcm.json").unlink()
    for section, file in {"Faithfulness": "tables.json", "DCM": "dcm.json"}.items():
        test = page(section)
        assert not test.exception
        (error,) = test.error
        assert file in error.value
        assert error.value.endswith(r"\`git checkout cache/published\`.")
    assert not page("Circuit").error


def test_the_page_needs_neither_torch_nor_weights() -> None:
    script = f"""
import sys
sys.modules["torch"] = sys.modules["transformers"] = sys.modules["safetensors"] = None
from streamlit.testing.v1 import AppTest
test = AppTest.from_file({str(APP)!r}, default_timeout=60).switch_page("pages/paper.py")
for section in {SECTIONS!r}:
    test.session_state["paper_section"] = section
    test.run()
    assert not test.exception and not test.error, section
    print(len(test.caption))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(done.stdout.split()) == len(SECTIONS)


@pytest.mark.parametrize("group", ENTITY_TRACKING.keys)
def test_heat_maps_have_every_published_score(group: str) -> None:
    circuit = published.circuit("goat-7b")
    frame = published_scores(circuit, group)
    assert len(frame) == 32 * 32
    assert list(frame["score"]) == [s for row in published.scores("goat-7b")[group] for s in row]
    kept = frame[frame["kept"]]
    assert set(kept["name"]) == {str(head) for head in circuit.heads(group)}


def test_bars_of_minimality_are_the_pool_with_the_circuit_marked() -> None:
    frame = published_contributions("llama-7b", "C")
    assert len(frame) == 25
    assert frame["minimal"].sum() == 20
    first = frame.iloc[0]
    assert (first["name"], first["before"], first["after"]) == (str(Head(10, 3)), 0.13, 0.01)
    assert first["gain"] == pytest.approx(12)


def test_the_scatter_has_the_groups_and_the_mean_of_the_random_sets() -> None:
    frame = published_removals().set_index("kind")
    assert (frame.loc["A", "circuit"], frame.loc["A", "model"]) == (0.08, 0.51)
    assert frame.loc["A", "n_removed"] == 68
    assert frame.loc["random", "model_high"] == pytest.approx(0.27)
    assert pd.isna(frame.loc["D", "model_low"])


def rows_of(chart: Any) -> Iterator[dict[str, Any]]:
    for rows in chart["datasets"].values():
        yield from rows


def test_lines_and_bars_hold_what_they_are_given() -> None:
    lines = list(rows_of(knockout_lines({"a → b": {1: 0.25, 2: 0.5}})))
    assert [(row["edge"], row["layer"], row["accuracy"]) for row in lines] == [
        ("a → b", 1, 0.25),
        ("a → b", 2, 0.5),
    ]
    bars = list(rows_of(transplant_bars({"chat": {"none": FIGURE, "all": FIGURE}})))
    assert [(row["kind"], row["text"]) for row in bars if "kind" in row] == [
        ("none", "none\n.62"),
        ("all", "all\n.62"),
    ]
