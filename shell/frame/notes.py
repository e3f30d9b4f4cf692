"""What is to be known of a loaded model, beside what was measured in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING
from weakref import ref

import streamlit as st

from backend.core.progress import Report
from backend.models import catalogue, loaded_models
from backend.studies import jobs
from backend.tasks.task import Task
from shell.frame import waiting
from shell.frame.words import unmarked

if TYPE_CHECKING:
    from backend.models.loading import LoadedModel


def show_notes(names: Iterable[str], task: Task) -> None:
    """Which words the loaded ones of these models leave out, and whether they are run whole."""
    about: dict[str, list[str]] = {}
    for name in names:
        for note in loaded_models.notes_of(name, task):
            about.setdefault(note, []).append(unmarked(catalogue.label(name)))
    for note, labels in about.items():
        st.caption(f"{', '.join(labels)}: {unmarked(note)}")


def show_noise(name: str, task: Task) -> None:
    """What rounding does to the scores of a loaded model in rough numbers; nothing of others."""
    loaded = loaded_models.loaded().get(name)
    if not loaded or not loaded.placement.rounds:
        return
    of = ref(loaded)  # a job is kept for longer than its model
    asked = jobs.job(
        ("noise", of, task),
        lambda report: _noise(of, task, report),
        kind=jobs.SMALL,
        where=lambda: loaded_models.devices_of([name]),
    )
    if not asked.parts:
        waiting.follow(asked)
        return
    text, is_warning = asked.parts[0]
    (st.warning if is_warning else st.caption)(unmarked(f"{catalogue.label(name)}: {text}"))


def _noise(of: ref[LoadedModel], task: Task, report: Report) -> Iterator[tuple[str, bool]]:
    report("Measuring what rounding does to the scores", 0.1)
    from backend.methods.noise import said

    if loaded := of():
        yield said(loaded, task)
