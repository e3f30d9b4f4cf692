"""Own tasks on the pages: chosen beside built-in ones, named where wrong, renewed, forgotten."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from backend.core.errors import UserError
from backend.models import catalogue
from backend.studies import jobs
from backend.studies.session import Session, answers, prepare
from backend.tasks import registry
from backend.tasks.circuit import Circuit
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.own import files
from backend.tasks.prompts import Prompts
from backend.tasks.setting import Mode, Reading, Setting, intervention
from tests import planted_ioi
from tests.dashboard import ROOT
from tests.own import FRUIT, IOI_FILE
from tests.shell.apps import figures, press, rerun

N = 50


@pytest.fixture(autouse=True)
def no_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of other tests is listed or running."""
    monkeypatch.setattr(jobs, "_jobs", type(jobs._jobs)())


def page(name: str = "models", **query: str) -> AppTest:
    test = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    test.switch_page(f"pages/{name}.py")
    test.query_params.update({"n": str(N)} | query)
    return rerun(test)


def chosen(test: AppTest) -> Any:
    return test.session_state["task"]


def warnings(test: AppTest) -> list[str]:
    return [each.value for each in test.sidebar.warning]


def test_an_own_task_with_its_circuit_is_clicked_like_any_other(
    model: str, empty_cache: Path
) -> None:
    task = registry.add_task(IOI_FILE)
    circuit = Circuit.of(task, planted_ioi.CIRCUIT)
    catalogue.add_circuit("mine.json", circuit.to_json().encode())
    setting = Setting(model, Prompts(task, N, 0))
    session: Session = jobs.job(
        setting, lambda report: iter([prepare(setting, report)])
    ).future.result(120)[0]
    off = frozenset({("SI", head) for head in planted_ioi.CIRCUIT["SI"]})
    now = answers(session, intervention(circuit, Reading.circuit, Mode.mean, off))
    test = page("circuit", task="own-ioi", model=model, off="SI3.1")
    shown = figures(test)
    assert test.session_state["circuit"] == "mine"
    assert shown["Whole model"] == f"{session.whole.correct.mean():.3f}" == "1.000"
    assert float(shown["Circuit"]) == pytest.approx(now.correct.mean(), abs=5e-4)
    assert float(shown["Circuit"]) < 0.5


def test_it_is_chosen_in_the_sidebar_and_in_the_address() -> None:
    registry.add_task(FRUIT.encode())
    test = page()
    box = test.sidebar.selectbox(key="task")
    assert box.options[:2] == [task.title for task in registry.TASKS.values()]
    assert {"Capital of a country", "Greater than", "Fruit"} < {*box.options}
    box.select(registry.task_named("fruit"))
    rerun(test)
    assert chosen(test).name == "fruit"
    assert test.query_params["task"] == "fruit"
    assert chosen(page(task="fruit")).name == "fruit"


def test_a_bad_file_is_named_with_its_reason_and_stops_nothing() -> None:
    files.ADDED.mkdir()
    (files.ADDED / "bad *one*.toml").write_text(FRUIT.replace('shape = "circle"', "") + "sise = 3")
    test = page()
    (told,) = warnings(test)
    assert "groups\\[2\\].sise" in told
    assert "bad \\*one\\*.toml is not used" in told
    (files.ADDED / "bad *one*.toml").unlink()
    assert not warnings(rerun(test))


def test_a_changed_file_is_taken_at_once_and_a_forgotten_task_is_left() -> None:
    before = registry.add_task(FRUIT.encode())
    test = page(task="fruit")
    assert chosen(test) == before
    registry.add_task(FRUIT.replace("Fruit : {again}", "Which ? {again}").encode())
    rerun(test)
    assert chosen(test) == registry.task_named("fruit") != before
    press(test, "Forget “Fruit”")
    assert chosen(rerun(test)) == ENTITY_TRACKING
    assert "fruit" not in registry.known_tasks()


def test_what_is_wrong_with_an_added_file_stands_below_it() -> None:
    with pytest.raises(UserError) as told:
        registry.add_task(FRUIT.replace("size", "").replace('"logits"', '"x*y*"').encode())
    test = page()
    test.session_state["task_complaint"] = str(told.value)
    rerun(test)
    assert any("groups\\[1\\].into” holds “x\\*y\\*”" in each.value for each in test.sidebar.error)
