"""What the pages measure on request: the study on screen, out of the store or on its way."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Generic

import streamlit as st

from backend.core.progress import cost_of
from backend.methods.cmap import SetRequest
from backend.methods.registry import method_of, n_parts, plan_of, title_of
from backend.methods.requests import Request, SomeRequest, models_of
from backend.studies import jobs, studies
from backend.studies.keys import identity
from shell.frame.visitors import telling_refusals, visitor
from shell.frame.waiting import duration


@dataclass(frozen=True)
class Study(Generic[SomeRequest]):
    """What was asked for, the job that does it, and when it was done if it comes from the store."""

    request: SomeRequest
    job: jobs.Job
    date: str | None = None


def start(name: str, request: Request) -> None:
    """Show what is stored of a request, or the job that does the rest; a failed one begins anew."""
    known = jobs.known(_key(request))
    if known and known.future.done() and known.future.exception():
        jobs.forget(_key(request))
    stored = _stored(request)
    is_complete = stored and len(stored.job.parts) == n_parts(request)
    with telling_refusals():
        show(name, stored if stored and is_complete else Study(request, job_of(request)))


def show_run(name: str, request: Request, blocked: bool) -> None:
    """A button that starts a request, unless something is missing."""
    st.button(
        "Run",
        type="primary",
        icon="▶",
        key=f"run_{name}",
        disabled=blocked,
        on_click=start,
        args=(name, request),
    )


def job_of(request: Request) -> jobs.Job:
    """The job of a request that runs or has ended, or else a new one."""
    kind = jobs.SMALL if isinstance(request, SetRequest) else jobs.LONG
    title = "" if kind is jobs.SMALL else title_of(request)
    return jobs.job(
        _key(request),
        lambda report: studies.run(request, report),
        title,
        request,
        kind,
        lambda: studies.devices_of(models_of(request)),
        visitor(),
    )


def show(name: str, study: Study) -> None:
    """Make this the study on its page, until another choice is made there."""
    st.session_state[name] = study
    st.session_state.pop(_chosen(name), None)


def latest(name: str, request: SomeRequest) -> Study[SomeRequest] | None:
    """The study of this request, from another tab or the store, or else the one shown before it."""
    shown: Study[SomeRequest] | None = st.session_state.get(name)
    is_as_before = st.session_state.get(_chosen(name), request) == request
    st.session_state[_chosen(name)] = request
    if shown and (shown.request == request or is_as_before):
        return shown
    known = jobs.known(_key(request))
    found = Study(request, known) if known else _stored(request)
    if found:
        st.session_state[name] = found
    return found or shown


def read(stored: studies.Stored) -> Study:
    """What is stored as a study that is done."""
    return Study(stored.request, jobs.finished(stored.parts), stored.entry.header.date)


def say_cost_of(request: Request, shown: Study | None) -> None:
    """About how long a request takes, unless it is what is shown."""
    if not shown or shown.request != request:
        say_cost(cost_of(plan_of(request)), method_of(request).name, {*models_of(request)})


def say_when(study: Study) -> None:
    """Of a study out of the store: from when it is, and what is missing."""
    if study.date is None:
        return
    n_there, n_whole = len(study.job.parts), n_parts(study.request)
    rest = ""
    if n_there < n_whole:
        rest = f" {n_there} of {n_whole} parts are there: press Run for the rest."
    st.caption(f"From {local_time(study.date)}.{rest}")


def say_cost(cost: float, method: str, models: Collection[str]) -> None:
    """About how long something takes here, judged by the latest study of its kind."""
    pace = studies.pace_of(method, models)
    if pace is None:
        st.caption(
            "How long this takes is known a few seconds after it starts: no run like it yet."
        )
    else:
        st.caption(f"This takes about {duration(pace * cost)}, judged by an earlier run here.")


def local_time(date: str) -> str:
    """A date of the store as a clock here shows it: “2026-11-21, 14:03”."""
    return f"{datetime.fromisoformat(date).astimezone():%Y-%m-%d, %H:%M}"


def _stored(request: SomeRequest) -> Study[SomeRequest] | None:
    found = studies.find(request, patiently=False)
    return read(found) if found else None


def _key(request: Request) -> tuple[Request, str | None]:
    """Of a job: files that have changed under the same name are another model."""
    return request, identity(request)


def _chosen(name: str) -> str:
    return f"{name}_chosen"
