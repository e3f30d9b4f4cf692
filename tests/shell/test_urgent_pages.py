"""Whoever opens a page goes before long work, on every page."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from streamlit.navigation.page import StreamlitPage

from backend.core.progress import Report
from backend.studies import jobs
from tests.shell.test_page import page

A_MOMENT = 0.2


@pytest.mark.parametrize("name", ["compare", "models"])
def test_long_work_holds_while_a_page_is_drawn(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def work(report: Report) -> Iterator[str]:
        begun.set()
        assert go_on.wait(60)
        report("the rest", 0.5)
        yield "done"

    test = page()
    long = jobs.job("long", work)
    assert begun.wait(10)
    as_it_is = StreamlitPage.run
    got_on: list[bool] = []

    def run(shown: StreamlitPage) -> None:
        go_on.set()
        with_others = threading.Event()
        long.future.add_done_callback(lambda _: with_others.set())
        got_on.append(with_others.wait(A_MOMENT))
        as_it_is(shown)

    monkeypatch.setattr(StreamlitPage, "run", run)
    test.switch_page(f"pages/{name}.py").run()
    assert not test.exception
    assert got_on
    assert not got_on[0]
    assert long.future.result(60) == ["done"]
    jobs.forget("long")
