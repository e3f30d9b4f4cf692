"""The models of the cluster that was chosen: asked for once, in the background."""

from __future__ import annotations

from collections.abc import Iterator

import streamlit as st

from backend.cluster.where import Cluster
from backend.core.errors import UserError
from backend.core.progress import Report
from backend.models import catalogue
from backend.studies import jobs, remote, studies
from shell.frame import waiting
from shell.frame.words import unmarked


def show_asking() -> None:
    """Ask for them, unless they are known; say so as long as it lasts, and what went wrong."""
    if not (where := _cluster()) or not (job := _job(where)):
        return
    if not job.future.done():
        st.fragment(_wait, run_every=1.0)(where)
    elif error := job.future.exception():
        st.caption(f":orange-badge[Cluster] {unmarked(str(error))}")
        st.button("Ask the cluster again", on_click=jobs.forget, args=(_key(where),))


def wait_for(model: str) -> None:
    """While it is not known whether a model of this name is on the cluster, draw no page."""
    where = _cluster()
    if where and catalogue.about(model) is None and (job := _job(where)):
        waiting.follow(job)
        if not job.future.done():
            st.stop()


def _wait(where: Cluster) -> None:
    job = _job(where)
    if not job or job.future.done():
        st.rerun()
    st.caption(f"{unmarked(waiting.what_now(job))}")


def _cluster() -> Cluster | None:
    """The cluster, if there is one beside this computer."""
    try:
        where = studies.where_work_is()
    except UserError:
        return None  # the Models page says what is wrong with it
    return where if where and where.address else None


def _job(where: Cluster) -> jobs.Job | None:
    """The job that asks, or that could not; None once the models are known."""
    if remote.asked() == where:
        jobs.forget(_key(where))
        return None
    return jobs.job(_key(where), lambda report: _ask(where, report), kind=jobs.QUICK)


def _key(where: Cluster) -> tuple[str, Cluster]:
    return "models of a cluster", where


def _ask(where: Cluster, report: Report) -> Iterator[tuple[str, ...]]:
    yield remote.ask_for_models(where, report)
