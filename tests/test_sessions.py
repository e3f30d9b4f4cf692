"""What sessions leave behind: nothing."""

from __future__ import annotations

import gc
import weakref

import pytest
from streamlit.testing.v1 import AppTest

from backend import jobs
from tests.test_jobs import PATIENCE, Step


class Knot:
    """Garbage that only the collector frees."""

    def __init__(self) -> None:
        self.itself = self


def waiting_page() -> None:
    from backend import jobs
    from shell import joblist, waiting

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
