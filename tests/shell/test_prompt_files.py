"""Prompts of one's own on the pages: added with bad rows told, asked on every page, forgotten."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from backend.models import catalogue
from backend.models.loaded_models import load
from backend.studies import jobs
from backend.studies.session import prepare
from backend.tasks import registry
from backend.tasks.circuit import Circuit
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.ioi import IOI
from backend.tasks.prompts import Prompts
from backend.tasks.setting import Setting
from tests import planted_ioi
from tests.dashboard import ROOT
from tests.own import IOI_FILE
from tests.shell.apps import figures, press, rerun
from tests.tasks.test_own_prompt_sets import as_rows, jsonl

N_ROWS, N = 20, 50


@pytest.fixture(autouse=True)
def no_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of other tests is listed or running."""
    monkeypatch.setattr(jobs, "_jobs", type(jobs._jobs)())


def rows() -> list[dict[str, Any]]:
    tokenizer = planted_ioi.tokenizer()
    prompts = IOI.sample(tokenizer, N_ROWS, 3)
    return as_rows(prompts, IOI.counterfactual(tokenizer, prompts), tokenizer)


def page(name: str = "models", **query: str) -> AppTest:
    test = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    test.switch_page(f"pages/{name}.py")
    test.query_params.update({"n": str(N)} | query)
    return rerun(test)


def test_pasted_rows_are_used_and_bad_ones_are_listed_with_the_reason() -> None:
    bad = rows()[0] | {"positions": {"s3": "Ann"}, "clean": "nothing *marked*"}
    test = page(task="ioi")
    test.sidebar.text_input(key="set_name").input("mine")
    test.sidebar.text_area(key="set_text").input(
        jsonl(*rows(), bad, {"clean": 3}, {"what": 1}).decode()
    )
    press(test, "Add prompts")
    assert test.session_state["task"].name == "ioi/mine"
    assert test.query_params["task"] == "ioi/mine"
    told = "\n".join(each.value for each in test.sidebar.markdown)
    for number, reason in (
        (N_ROWS + 1, "it marks “s3”"),
        (N_ROWS + 2, "its “clean” is no line"),
        (N_ROWS + 3, "it has an unknown field “what”"),
    ):
        assert f"- Row {number}: {reason}" in told
    press(test, "Forget “mine”")
    assert rerun(test).session_state["task"] == ENTITY_TRACKING


def test_what_cannot_be_added_is_told_below() -> None:
    test = page(task="ioi")
    test.sidebar.text_input(key="set_name").input("../*mine*")
    test.sidebar.text_area(key="set_text").input(json.dumps(rows()[0]))
    press(test, "Add prompts")
    assert any("../\\*mine\\*” cannot be used as a name" in e.value for e in test.sidebar.error)
    test.sidebar.text_input(key="set_name").input("mine")
    test.sidebar.text_area(key="set_text").input('{"clean": "<b>"}')
    press(test, "Add prompts")
    assert any("None of 1 rows can be used: row 1" in e.value for e in test.sidebar.error)
    assert test.session_state["task"] == IOI


def test_the_circuit_page_measures_on_the_rows(model: str, empty_cache: Path) -> None:
    circuit = Circuit.of(IOI, planted_ioi.CIRCUIT)
    catalogue.add_circuit("planted.json", circuit.to_json().encode())
    task, _ = registry.keep_prompts(IOI, "mine", jsonl(*rows(), rows()[0] | {"answer": "banana"}))
    setting = Setting(model, Prompts(task, N, 0))
    jobs.job(setting, lambda report: iter([prepare(setting, report)])).future.result(120)
    test = page("circuit", task="ioi/mine", model=model, off="SI3.1")
    shown = figures(test)
    assert shown["Whole model"] == "1.000"
    assert float(shown["Circuit"]) < 0.9
    said = " ".join(
        each.value for kind in ("caption", "markdown", "info") for each in test.get(kind)
    )
    assert f"n = {N_ROWS}" in said or f"{N_ROWS} prompts" in said
    assert f"row {N_ROWS + 1}: its answer “banana” is not one token" in said


def test_an_address_of_prompts_that_are_gone_says_so() -> None:
    test = page(task="ioi/mine")
    assert test.session_state["task"] == ENTITY_TRACKING
    assert test.session_state["complaints"] == ["“task=ioi/mine”"]


PAGES = (
    "circuit", "prompt", "compare", "cmap", "discover", "function", "attention", "logits",
    "results", "paper", "models",
)  # fmt: skip


def test_every_page_shows_own_tasks_and_prompts(model: str, empty_cache: Path) -> None:
    circuit = Circuit.of(IOI, planted_ioi.CIRCUIT)
    catalogue.add_circuit("planted.json", circuit.to_json().encode())
    bare = [{**row, "clean": _marked_where_circuits_work(row["clean"])} for row in rows()]
    task, _ = registry.keep_prompts(IOI, "bare", jsonl(*bare))
    registry.add_task(IOI_FILE)
    load(model)
    for asked in (task, registry.task_named("own-ioi")):
        setting = Setting(model, Prompts(asked, N, 0))
        jobs.job(setting, lambda report, of=setting: iter([prepare(of, report)])).future.result(120)
        for name in PAGES:
            test = page(name, task=asked.name, model=model)
            assert not test.error, (name, test.error)
            assert test.session_state["task"] == asked


def _marked_where_circuits_work(clean: str) -> str:
    """The text with marks for these tokens alone."""
    return re.sub(r"\[([^|]+)\|(?!s1_plus_1|s2)\w+\]", r"\1", clean)
