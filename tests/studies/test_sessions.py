"""What sessions leave behind: nothing."""

from __future__ import annotations

import gc
import weakref

import pytest
from streamlit.testing.v1 import AppTest

from backend.models import prepared
from backend.studies import jobs, session
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.prompts import Prompts
from backend.tasks.setting import Setting
from tests.dashboard import ROOT
from tests.shell.apps import figures
from tests.studies.test_jobs import PATIENCE, Step

APP = ROOT / "app.py"


class Knot:
    """Garbage that only the collector frees."""

    def __init__(self) -> None:
        self.itself = self


def waiting_page() -> None:
    from backend.studies import jobs
    from shell.frame import joblist, waiting

    joblist.show_jobs()
    waiting.follow(jobs.listed()[0])


def test_a_page_that_is_drawn_makes_no_garbage_permanent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_jobs", type(jobs._jobs)())
    step = Step()
    jobs.job("something", step, "Something")
    assert step.begun.wait(PATIENCE)
    gc.disable()  # or it may be collected before the page is drawn
    try:
        garbage = weakref.ref(Knot())
        page = AppTest.from_function(waiting_page).run(timeout=PATIENCE)
    finally:
        gc.enable()
        step.go_on.set()
    assert not page.exception
    assert any("first half" in each.value for each in page.markdown)
    gc.collect()
    assert garbage() is None


def test_a_session_holds_on_to_nothing_that_was_prepared_for_it() -> None:
    setting = Setting("base", Prompts(ENTITY_TRACKING, 50, 5, (3,)))
    ready = weakref.ref(session.prepare(setting, lambda *_: None))
    page = AppTest.from_file(str(APP), default_timeout=60)
    page.query_params.update({"n": "50", "boxes": "3", "seed": "5"})
    assert not page.run().exception
    assert "Circuit" in figures(page)
    assert ready() is prepared.get(setting)
    prepared.forget("base")
    gc.collect()
    assert ready() is None
    # What has made room for others is prepared again, and the session goes on.
    page.run()
    assert jobs.job(setting, lambda report: iter([])).future.exception(60) is None
    assert "Circuit" in figures(page.run())
