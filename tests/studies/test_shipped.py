"""The results that come with the tool: there at once, right, and those of the README."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from backend.bundled import shipped
from backend.bundled.smollm2 import shipped as smollm2
from backend.core.statistics import Estimate
from backend.methods.attention_knockout import AttentionKnockoutRequest
from backend.methods.cmap import CmapRequest
from backend.methods.compare import ComparisonRequest
from backend.methods.dcm import DcmRequest
from backend.methods.functions import FunctionsRequest, carried
from backend.methods.registry import METHODS
from backend.methods.requests import models_of
from backend.methods.rows import figures
from backend.methods.stages import Criteria
from backend.models import catalogue, real_model
from backend.studies import jobs, store, studies
from backend.studies.keys import identity, key_of
from backend.studies.stages import run_stages, stage_request, stored_stages
from backend.tasks.entity_tracking import ENTITY_TRACKING
from tests.dashboard import ROOT

FINDING = ("stage", "attribution-patching", "search")
"""With these a circuit is found, or its stages previewed; their receivers and heads are those that
came before."""
README = (ROOT / "README.md").read_text()


@pytest.fixture(autouse=True)
def _shipped(monkeypatch: pytest.MonkeyPatch, empty_cache: Path) -> None:
    monkeypatch.setattr(store, "SHIPPED", ROOT / "cache" / "shipped")


def test_every_file_is_an_answer_to_what_the_pages_or_the_readme_ask() -> None:
    asked = {identity(request) for request in shipped.requests()}
    setting = shipped.DISCOVERY
    stages = [stored.parts[0] for stored in stored_stages(setting, Criteria())]
    for stage in stages:
        group = ENTITY_TRACKING.group(stage.group)
        asked.add(identity(stage_request(setting, group, stage.receivers)))
    assert len(stages) == len(ENTITY_TRACKING.keys)
    entries = store.entries()
    assert {entry.header.key for entry in entries if not is_real(entry)} == asked
    assert all(entry.is_complete and entry.is_shipped for entry in entries)
    assert store.set_aside() == []


def is_real(entry: store.Entry) -> bool:
    """Whether it is of the real model and its fine-tunes."""
    return all(mark.name.startswith(real_model.NAME) for mark in entry.header.models)


def test_what_is_shipped_of_the_real_model_is_asked_of_the_circuits_that_come_with_it() -> None:
    for path in real_model.CIRCUITS.glob("*.json"):
        catalogue.add_circuit(path.name, path.read_bytes())
    entries = [entry for entry in store.entries() if is_real(entry)]
    marks = {mark.name: mark for entry in entries for mark in entry.header.models}
    asked = {
        key_of(request, [marks[name] for name in models_of(request)])
        for request in smollm2.requests()
    }
    found = {entry.header.key for entry in entries if entry.header.method not in FINDING}
    assert found == asked


@pytest.mark.parametrize("name", ["compare", "cmap", "discover", "function", "logits"])
def test_the_pages_open_at_once(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(jobs, "_jobs", type(jobs._jobs)())
    monkeypatch.setattr("backend.studies.session.load", None)
    test = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    test.switch_page(f"pages/{name}.py").run()
    assert not test.exception
    assert not test.error
    assert any("rom 2026-" in caption.value for caption in test.caption)
    assert len(test.get("vega_lite_chart")) >= 2


def test_a_sample_computed_again_is_the_same() -> None:
    request = shipped.requests()[0]
    assert isinstance(request, ComparisonRequest)
    stored = studies.find(request)
    assert stored
    fresh = next(METHODS["compare"].work(request, (), lambda stage, share: None, lambda part: None))
    one_prompt = 1.001 / request.prompts.n
    pairs = zip(figures(request, [fresh]), figures(request, stored.parts[:1]), strict=True)
    for again, before in pairs:
        assert again[:2] == before[:2]
        assert again.estimate.value == pytest.approx(before.estimate.value, abs=2 * one_prompt)

    setting = shipped.DISCOVERY
    found = stored_stages(setting, Criteria())
    store.SHIPPED = store.RESULTS
    (stage,) = run_stages(setting, Criteria(), (), "A", lambda stage, share: None)
    np.testing.assert_allclose(stage.mean, found[0].parts[0].mean, atol=1e-4)


def test_the_tables_of_the_readme_are_the_shipped_results() -> None:
    _, comparison, _, lora, full = shipped.requests()[:5]
    stored = studies.find(comparison)
    assert stored
    for part in stored.parts:
        row = part.figures
        cells = (row.model, row.circuit, row.random.mean, row.faithfulness)
        line = _line(catalogue.label(row.name).replace("Arithmetic (", "arithmetic, ").rstrip(")"))
        assert _numbers(line) == [f"{x:.3f}" for e in cells for x in (e.value, e.low, e.high)]
    both = []
    for request in (lora, full):
        assert isinstance(request, CmapRequest)
        found = studies.find(request)
        assert found
        both.append(found.parts[0].sets)
    for name in both[0]:
        expected = []
        for sets in both:
            accuracy, recovery = sets[name].accuracy, sets[name].recovery
            expected += [f"{x:.3f}" for x in (accuracy.value, accuracy.low, accuracy.high)]
            expected += [
                f"{round(x, 2) + 0:.2f}" for x in (recovery.value, recovery.low, recovery.high)
            ]
        assert _numbers(_line(name)) == expected


def test_the_tables_of_what_groups_carry_are_the_shipped_results() -> None:
    asked = [request for request in shipped.requests() if isinstance(request, FunctionsRequest)]
    by_model = {
        request.model: {part.desideratum: part for part in _parts(request)} for request in asked
    }
    in_order = [by_model[name] for name in ("base", "arithmetic-lora", "arithmetic-full", "chat")]
    for key, variable in [("A", "object"), *((k, v) for v in ("position", "label") for k in "BCD")]:
        shown = [parts[variable].groups[key].expected for parts in in_order]
        assert _numbers(_line(f"{key}, {variable}")) == [x for e in shown for x in _texts(e)]
    for parts in in_order:
        found = carried(tuple(parts.values()))
        assert {*found} >= {("A", "object"), ("B", "position"), ("C", "position")}
        assert not [pair for pair in found if pair[0] == "D" or pair[1] == "label"]


def test_the_tables_of_masks_and_of_cuts_are_the_shipped_results() -> None:
    for request in shipped.requests():
        if isinstance(request, DcmRequest):
            (part,) = _parts(request)
            line = _line(f"{request.group}, {request.desideratum} kept")
            shown = [*_texts(part.accuracy), *(_texts(part.random) if part.random else ())]
            assert _numbers(line)[: len(shown)] == shown
            assert f"| {len(part.heads)} of {len(request.circuit.heads(request.group))} |" in line
        elif isinstance(request, AttentionKnockoutRequest):
            table = README.partition("| cut in every layer |")[2].splitlines()[2:]
            first, *others = _parts(request)
            for row, place in zip(table, range(-1, len(first.curves)), strict=False):
                shown = [
                    each.whole if place < 0 else each.curves[place].by_layer[0]
                    for each in (first, *others)
                ]
                assert _numbers(row) == [x for e in shown for x in _texts(e)]


def _parts(request: Any) -> tuple[Any, ...]:
    stored = studies.find(request)
    assert stored
    return stored.parts


def _texts(estimate: Estimate) -> list[str]:
    return [f"{x:.3f}" for x in (estimate.value, estimate.low, estimate.high)]


def _line(first: str) -> str:
    """The first row of the README's tables that begins with this cell and has intervals."""
    return next(
        line
        for line in README.splitlines()
        if line.lower().startswith(f"| {first.lower()} |") and "[" in line
    )


def _numbers(line: str) -> list[str]:
    text = line.replace("\N{MINUS SIGN}", "-")
    return re.findall(r"-?\d+\.\d+", text.split("|", 2)[2])
