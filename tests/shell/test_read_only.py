"""A dashboard for an audience refuses what would stay, load or take long."""

from __future__ import annotations

import json
import re
import shutil
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from streamlit.testing.v1 import AppTest

from backend.core.placement import Placement
from backend.core.read_only import MOST_PROMPTS, VARIABLE, Refused
from backend.models import catalogue, loaded_models, registry
from backend.studies import jobs, store
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.own import files as own_tasks
from backend.tasks.sets import files as sets
from shell.frame import visitors
from shell.frame.view import from_query
from shell.models import models
from shell.talk import talks
from shell.talk.talk import Talk
from tests.dashboard import ROOT, serving
from tests.shell.apps import figures, press, ready

FORBIDDEN: dict[str, Callable[[], Any]] = {
    "measure": lambda: jobs.job("new", lambda report: iter(())),
    "load by name": lambda: loaded_models.load("owner/name"),
    "load a folder": lambda: loaded_models.load("/tmp"),
    "load": lambda: models._load("base", Placement()),
    "unload": lambda: models.unload("base"),
    "add a model": lambda: registry.add("mine", "owner/name"),
    "remove a model": lambda: registry.remove("mine"),
    "keep a circuit": lambda: catalogue.add_circuit("mine.json", b"{}"),
    "delete a result": lambda: store.delete(cast(store.Entry, None)),
    "add a task": lambda: own_tasks.add(b"", {}),
    "add prompts": lambda: sets.add("mine", b"", ENTITY_TRACKING),
    "remove prompts": lambda: sets.remove("mine"),
    "keep a talk": lambda: talks.keep("mine", Talk("Mine", ())),
    "delete a talk": lambda: talks.drop("mine"),
    "remove a task": lambda: own_tasks.remove("mine", {}),
}


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "1")
    monkeypatch.setattr(jobs, "_jobs", type(jobs._jobs)())


def page(name: str = "circuit") -> AppTest:
    test = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    test.switch_page(f"pages/{name}.py")
    test.query_params.update({"n": "50", "boxes": "3"})
    return ready(test.run())


@pytest.mark.parametrize("what", FORBIDDEN)
def test_each_forbidden_thing_is_refused(read_only: None, what: str) -> None:
    with pytest.raises(Refused, match=r"read-only.*`make run`"):
        FORBIDDEN[what]()


def test_nothing_is_refused_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "0")
    with pytest.raises(Exception) as told:  # noqa: PT011  # whatever is wrong with it
        FORBIDDEN["keep a circuit"]()
    assert not isinstance(told.value, Refused)


def test_a_visitor_asks_few_prompts(read_only: None) -> None:
    view, complaints = from_query({"n": "1000"})
    assert view.n <= MOST_PROMPTS
    assert complaints


def test_pages_offer_nothing_that_is_refused(read_only: None) -> None:
    test = page("models")
    assert any(caption.value.startswith("Read-only") for caption in test.caption)
    assert {button.label for button in test.button}.isdisjoint({"Load", "Unload", "Add"})
    assert not test.get("file_uploader")


def test_heads_are_still_clicked(read_only: None) -> None:
    test = page()
    press(test, "All off")
    assert figures(test).keys() >= {"Whole model", "Circuit"}


def test_a_run_says_why_it_does_not_start(read_only: None) -> None:
    test = page("compare")
    test.session_state["compared"] = ["base", "chat"]
    press(ready(test.run()), "Run")
    assert any("read-only" in warning.value for warning in test.warning)
    assert not [job for job in jobs.listed() if job.kind is jobs.LONG]


def test_a_visitor_begins_ten_preparations_a_minute(
    read_only: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(visitors, "monotonic", lambda: now[0])
    monkeypatch.setattr(visitors.st, "session_state", {})
    for _ in range(10):
        visitors.spend_a_preparation()
    with pytest.raises(Refused, match="Wait"):
        visitors.spend_a_preparation()
    now[0] += 61
    visitors.spend_a_preparation()


def test_health_and_log_of_the_files_of_the_image(tmp_path: Path) -> None:
    """The server starts from what the Dockerfile copies, and nothing else."""
    image = tmp_path / "image"
    image.mkdir()
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    for line in re.findall(r"^COPY (.*)$", dockerfile, re.MULTILINE):
        *sources, target = line.split()
        for source in sources:
            of, to = ROOT / source, image / (target if target not in (".", "./") else source)
            shutil.copytree(of, to) if of.is_dir() else shutil.copy(of, to)
    (tmp_path / "data").mkdir()
    with (
        serving(
            image / "app.py", local=tmp_path / "data", is_read_only=True, folder=image
        ) as address,
        urllib.request.urlopen(f"{address}/health") as answer,
    ):
        told = json.load(answer)
    assert told["status"] == "ok"
    assert told["read_only"] is True
