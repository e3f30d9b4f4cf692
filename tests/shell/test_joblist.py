"""The list of jobs without a browser: what it says, cancelling, and the way back to a result."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from backend.core.components import Component
from backend.core.errors import UserError
from backend.core.progress import Report
from backend.methods.cmap import CmapRequest
from backend.methods.compare import ComparisonRequest
from backend.methods.completeness import CompletenessRequest
from backend.methods.minimality import MinimalityRequest
from backend.methods.registry import title_of
from backend.methods.stages import Criteria
from backend.models import catalogue
from backend.studies import device_locks, jobs
from backend.studies.device_locks import Notice
from backend.studies.jobs import State
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.prompts import Prompts
from backend.tasks.setting import Setting
from shell.discover.discovery import Plan
from shell.frame.waiting import duration
from tests.dashboard import ROOT

APP = ROOT / "app.py"
PROMPTS = Prompts(ENTITY_TRACKING, 500, 3, (4,))
CIRCUIT = catalogue.circuit("base")
HEADS = CIRCUIT
PATIENCE = 60
COMPARISON = ComparisonRequest(("chat", "base"), HEADS, PROMPTS)


@pytest.fixture(autouse=True)
def _own_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_jobs", type(jobs._jobs)())


@pytest.fixture
def running() -> Iterator[jobs.Job]:
    """A comparison that is half done until the test ends."""
    begun, go_on = Event(), Event()

    def work(report: Report) -> Iterator[Any]:
        report("Measuring Chat", 0.5)
        begun.set()
        go_on.wait(PATIENCE)
        report("Measuring Base", 0.9)
        yield 1

    job = jobs.job(COMPARISON, work, title_of(COMPARISON), COMPARISON)
    assert begun.wait(PATIENCE)
    yield job
    go_on.set()


def page() -> AppTest:
    """The Circuit page without a circuit: it runs no jobs of its own."""
    test = AppTest.from_file(str(APP), default_timeout=60)
    test.query_params["circuit"] = "nowhere"
    return test.run()


def submitted(request: Any, work: Any = lambda report: iter([1])) -> jobs.Job:
    return jobs.job(request, work, title_of(request), request)


def said(test: AppTest) -> str:
    assert not test.exception
    return "\n".join(element.value for element in (*test.text, *test.caption))


def press(test: AppTest, key: str) -> AppTest:
    test.button(key=key).click()
    return test.run()


def test_without_jobs_it_says_where_they_come_from() -> None:
    assert "What you run on any page" in said(page())


def test_running_queued_finished_and_failed_jobs_say_so(running: jobs.Job) -> None:
    submitted(MinimalityRequest("base", HEADS, Prompts(ENTITY_TRACKING, 50, 0, (3,))))
    text = said(page())
    assert "Compare: Chat, Base · circuit “base” · 500 prompts, seed 3, 4 boxes" in text
    assert "Minimality, 30% of a group removed: Base · circuit “base” · 50 prompts" in text
    assert "Waiting for 1 job before it, first for “" in text


def test_ended_jobs_say_how() -> None:
    def fail(report: Report) -> Iterator[int]:
        raise UserError("The folder is damaged. Choose another.")
        yield 1

    plan = Plan(Setting("base", Prompts(ENTITY_TRACKING, 50, 0, (3,))), Criteria())
    failed = jobs.job("fails", fail, plan.title, plan)
    submitted(COMPARISON).future.result(PATIENCE)
    assert failed.state is State.failed
    text = said(page())
    assert "**Failed.**] The folder is damaged. Choose another." in text
    assert "Finished in 0 s." in text


def test_a_queued_and_a_running_job_can_be_cancelled_in_the_list(running: jobs.Job) -> None:
    queued = submitted(CmapRequest("chat", "base", HEADS, Component.v, PROMPTS))
    test = page()
    press(test, f"cancel_{queued.number}")
    assert queued.state is State.cancelled
    assert "Cancelled. Start again" in said(test.run())
    press(test, f"cancel_{running.number}")
    assert running.stage == "Stopping after this step"


def test_what_a_command_does_is_listed_and_can_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    notice = Notice("1", 4711, "Minimality: Base", "Removing heads", 0.25, 3.0)
    stopped: list[Notice] = []
    monkeypatch.setattr(device_locks, "elsewhere", lambda: [] if stopped else [notice])
    monkeypatch.setattr(device_locks, "stop", stopped.append)
    test = page()
    assert "Minimality: Base" in said(test)
    assert "Outside this dashboard, process 4711; its result goes to Results." in said(test)
    press(test, "stop_1")
    assert stopped == [notice]
    assert "Minimality: Base" not in said(test)


def test_open_goes_to_a_comparison_with_its_choices() -> None:
    job = submitted(COMPARISON, lambda report: iter([]))
    job.future.result(PATIENCE)
    test = page()
    assert test.session_state["n"] != PROMPTS.n
    press(test, f"open_{job.number}")
    chosen = test.session_state
    assert not test.exception
    assert (chosen["n"], chosen["options"], chosen["seed"]) == (500, (4,), 3)
    assert test.multiselect(key="compared").value == ["chat", "base"]
    assert chosen["comparison"].job is job
    assert not [info for info in test.info if "other choices" in info.value]


def test_open_goes_to_a_transplant_with_its_choices() -> None:
    request = CmapRequest("chat", "arithmetic-lora", HEADS, Component.v, PROMPTS)
    job = submitted(request, lambda report: iter([]))
    job.future.result(PATIENCE)
    test = press(page(), f"open_{job.number}")
    assert not test.exception
    assert test.selectbox(key="source").value == "chat"
    assert test.selectbox(key="target").value == "arithmetic-lora"
    assert test.session_state["part"] is Component.v
    assert test.session_state["transplants"].job is job
    assert not [info for info in test.info if "other choices" in info.value]


def test_open_goes_to_a_discovery_with_its_choices() -> None:
    criteria = Criteria({"A": 8, "B": 9, "C": 4, "D": 4}, centred=True, fdr=0.2)
    plan = Plan(Setting("chat", Prompts(ENTITY_TRACKING, 30, 7, (5,))), criteria)
    job = jobs.job(
        ("discover", plan.setting, plan.score), lambda report: iter([]), plan.title, plan
    )
    job.future.result(PATIENCE)
    test = press(page(), f"open_{job.number}")
    assert not test.exception
    assert test.number_input(key="discover_n").value == 30
    assert test.number_input(key="discover_keep_B").value == 9
    assert test.number_input(key="discover_fdr").value == 0.2
    assert (test.session_state["model"], test.session_state["seed"]) == ("chat", 7)
    assert test.session_state["discover_ranking"] == "Median-centred"
    assert test.session_state["discoveries"]["discover", plan.setting, plan.score][0] is job


def test_open_goes_to_a_question_about_a_circuit_that_is_chosen_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "ADDED_CIRCUITS", tmp_path)
    half = CIRCUIT.keep(CIRCUIT.members[::2])
    (tmp_path / "half.json").write_text(half.to_json())
    heads = replace(half, name="half")
    request = CompletenessRequest("chat", heads, Prompts(ENTITY_TRACKING, 30, 7, (5,)))
    job = submitted(request, lambda report: iter([]))
    job.future.result(PATIENCE)
    test = press(page(), f"open_{job.number}")
    assert not test.exception
    assert test.session_state["circuit"] == "half"
    assert test.session_state["completeness"].job is job


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (99, "99 s"), (150, "2 min"), (3600, "1 h 0 min"), (9000, "2 h 30 min")],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_the_first_paint_does_not_wait_for_charts() -> None:
    check = (
        "import sys, shell, shell.circuit.answering; "
        "sys.exit(bool({'altair', 'pandas', 'torch'} & {*sys.modules}))"
    )
    assert (
        subprocess.run([sys.executable, "-c", check], cwd=APP.parent, check=False).returncode == 0
    )
