"""The list of jobs, on every page: what runs, what waits, what came of it, and the way there."""

from __future__ import annotations

from collections import Counter

import streamlit as st

from backend.core.errors import UserError
from backend.studies import device_locks, jobs
from backend.studies.device_locks import Notice
from backend.studies.jobs import Job, State
from shell.frame.waiting import how_it_ended, how_long, what_now
from shell.frame.words import unmarked

_ACTIVE = (State.queued, State.running)


def show_jobs() -> None:
    """A button that says how many are running; behind it, all of them, the newest first."""
    if device_locks.elsewhere() or any(each.state in _ACTIVE for each in jobs.listed()):
        st.fragment(_list, run_every=1.0)(is_live=True)
    else:
        st.fragment(_list)(is_live=False)


def _list(is_live: bool) -> None:
    if page := st.session_state.pop("page_to_open", None):
        st.switch_page(page)
    listed, elsewhere = jobs.listed(), device_locks.elsewhere()
    if is_live and not elsewhere and not any(each.state in _ACTIVE for each in listed):
        st.rerun()
    with st.popover(_label(listed, elsewhere), width="stretch", key=f"jobs_{_epoch()}"):
        if not listed and not elsewhere:
            st.caption("What you run on any page is listed here.")
        for notice in elsewhere:
            with st.container(border=True, gap="xsmall", key=f"elsewhere_{notice.id}"):
                _show_elsewhere(notice)
        for job in listed:
            with st.container(border=True, gap="xsmall", key=f"job_{job.number}"):
                _show(job)


def _label(listed: list[Job], elsewhere: list[Notice]) -> str:
    counts = Counter(each.state for each in listed)
    counts[State.running] += len(elsewhere)
    words = {State.running: "active", State.queued: "queued"}
    active = [f"{counts[state]} {word}" for state, word in words.items() if counts[state]]
    return f"Jobs · {', '.join(active)}" if active else "Jobs"


def _show(job: Job) -> None:
    state = job.state  # once, as it may change meanwhile
    about, buttons = st.columns([3.4, 1], gap="small")
    with about, st.container(gap="xxsmall"):
        st.text(job.title)
        if state is State.running:
            st.progress(job.share, f"{unmarked(what_now(job))} {how_long(job)}")
        elif state is State.queued:
            st.caption(unmarked(what_now(job)))
        elif state is State.failed:
            st.caption(f":red[**Failed.**] {unmarked(how_it_ended(job))}")
        else:
            st.caption(unmarked(how_it_ended(job)))
    with buttons, st.container(gap="xsmall"):
        st.button(
            "Open",
            key=f"open_{job.number}",
            on_click=_choose_again,
            args=(job,),
            width="stretch",
        )
        if state in _ACTIVE:
            st.button("Cancel", key=f"cancel_{job.number}", on_click=job.cancel, width="stretch")


def _show_elsewhere(notice: Notice) -> None:
    about, buttons = st.columns([3.4, 1], gap="small")
    with about, st.container(gap="xxsmall"):
        st.text(notice.title)
        st.progress(notice.share, f"{unmarked(notice.stage)} … {how_long(notice)}")
        st.caption(f"Outside this dashboard, process {notice.process}; its result goes to Results.")
    with buttons:
        st.button(
            "Cancel",
            key=f"stop_{notice.id}",
            on_click=_stop,
            args=(notice,),
            width="stretch",
        )


def _stop(notice: Notice) -> None:
    try:
        device_locks.stop(notice)
    except UserError as error:
        st.toast(unmarked(error))


def _choose_again(job: Job) -> None:
    from shell.frame import (
        places,  # only now: charts come with it, and the sidebar is painted first
    )

    places.show_job(job)
    st.session_state["jobs_epoch"] = _epoch() + 1
    st.session_state["page_to_open"] = places.page_of(job.request)


def _epoch() -> int:
    """A list under another key is a new one, which is closed."""
    epoch: int = st.session_state.get("jobs_epoch", 0)
    return epoch
