"""Long work on the page: how far it is, a way to cancel it, and what became of it."""

from __future__ import annotations

import gc
from collections.abc import Hashable, Iterator
from concurrent.futures import wait
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import streamlit as st

from backend import catalogue, jobs
from backend.errors import UserError
from backend.setting import Setting

if TYPE_CHECKING:
    from backend.bench import Bench

_PATIENCE_S = 2.0


def bench_for(setting: Setting) -> Bench:
    """The prepared bench; while it is not there, a panel stands in for the rest of the page."""
    bench: Bench = _result_of(setting, lambda report: _prepare(setting, report))
    return bench


def wait_for_source(bench: Bench, source: str) -> None:
    """Come back when the other model's values for this bench are there, in the same way."""
    _result_of((bench.setting, source), lambda report: _run_source(bench, source, report))


@contextmanager
def memory_permitting() -> Iterator[None]:
    """Say so, and draw no more of the page, when the memory is full (torch's RuntimeError)."""
    try:
        yield
    except RuntimeError as error:
        st.error(f"This could not be computed: {error}. Choose fewer prompts in the sidebar.")
        st.stop()


def _result_of(key: Hashable, work: jobs.Work) -> Any:
    running = jobs.job(key, work)
    # Once something is on screen it may stay a moment longer: a quick change does not flicker.
    wait([running.future], timeout=_PATIENCE_S if st.session_state.get("painted") else 0)
    st.session_state["painted"] = True
    follow(running)
    if not running.parts:
        if running.future.done():
            st.button("Try again", on_click=jobs.forget, args=(key,))
        st.stop()
    return running.parts[0]


def follow(running: jobs.Job) -> None:
    """Show how far a job is, or why it ended early; nothing once it is done."""
    # A place of its own: what comes after it is not drawn anew when it vanishes.
    with st.container():
        if running.future.done():
            _say_how_it_ended(running)
        else:
            _progress(running, len(running.parts))


def _say_how_it_ended(running: jobs.Job) -> None:
    error = running.future.exception()
    if isinstance(error, jobs.Cancelled):
        kept = " What was finished is kept." if running.parts else ""
        st.info(f"Cancelled.{kept} Start again, or change the settings.")
    elif isinstance(error, UserError):
        st.error(str(error))
    elif error is not None:
        st.error(
            f"This failed: {type(error).__name__}: {error}. Choose fewer prompts or another model, "
            "or try again."
        )


def _prepare(setting: Setting, report: jobs.Report) -> Iterator[Bench]:
    report("Starting the engine", 0.02)
    from backend.bench import prepare

    bench = prepare(setting, report)
    _spare_the_collector()
    yield bench


def _run_source(bench: Bench, source: str, report: jobs.Report) -> Iterator[Any]:
    report(f"Running {catalogue.label(source)} on the same prompts", 0.1)
    from backend.bench import source_values

    yield source_values(bench, source)


def _spare_the_collector() -> None:
    """Streamlit collects garbage after every run of a script; what torch and a model bring along
    stays anyway, and to walk through it would cost each click a quarter of a second."""
    gc.freeze()


@st.fragment(run_every=1.0)
def _progress(running: jobs.Job, n_parts: int) -> None:
    _spare_the_collector()
    if running.future.done() or len(running.parts) != n_parts:
        st.rerun()
    left = running.seconds_left
    estimate = "" if left is None else f", about {left:.0f} s to go"
    with st.container(border=True):
        st.markdown(f"#### {running.stage} …")
        st.progress(running.share, f"{running.seconds:.0f} s so far{estimate}")
        st.button("Cancel", key=f"cancel {id(running)}", on_click=running.cancel)
