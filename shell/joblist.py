"""The list of jobs, on every page: what runs, what waits, what came of it, and the way there."""

from __future__ import annotations

import gc
from collections import Counter

import streamlit as st

from backend import jobs
from backend.jobs import Job, State
from shell import places
from shell.waiting import duration, say_how_far, say_how_it_ended

_MARKS = {
    State.queued: "⏳",
    State.running: "▶",
    State.finished: "✓",
    State.cancelled: "⏹",
    State.failed: "⚠",
}


def show_jobs() -> None:
    """A button that says how many are running; behind it, all of them, the newest first."""
    if any(_is_active(each) for each in jobs.listed()):
        st.fragment(_list, run_every=1.0)(is_live=True)
    else:
        st.fragment(_list)(is_live=False)


def _list(is_live: bool) -> None:
    gc.freeze()  # as in `waiting`
    listed = jobs.listed()
    if is_live and not any(_is_active(each) for each in listed):
        st.rerun()
    with st.popover(_label(listed), width="stretch", key="jobs"):
        if not listed:
            st.caption("What you run on Compare, CMAP and Discover is listed here.")
        for job in listed:
            with st.container(border=True, gap="xsmall", key=f"job_{job.number}"):
                _show(job)


def _label(listed: list[Job]) -> str:
    counts = Counter(each.state for each in listed)
    active = [
        f"{counts[state]} {state.value}" for state in (State.running, State.queued) if counts[state]
    ]
    return f"Jobs · {', '.join(active)}" if active else "Jobs"


def _show(job: Job) -> None:
    st.text(f"{_MARKS[job.state]} {job.title}")
    if _is_active(job):
        say_how_far(job)
    elif job.state is State.finished:
        st.caption(f"Finished in {duration(job.seconds)}.")
    else:
        say_how_it_ended(job)
    opening = False
    with st.container(horizontal=True):
        if _is_active(job):
            st.button("Cancel", key=f"cancel_{job.number}", on_click=job.cancel)
        opening = st.button(
            "Open",
            key=f"open_{job.number}",
            on_click=places.choose_again,
            args=(job.request, job),
            help="Go to its page, with the choices it was started with.",
        )
    if opening:
        st.switch_page(places.page_of(job.request))


def _is_active(job: Job) -> bool:
    return job.state in (State.queued, State.running)
