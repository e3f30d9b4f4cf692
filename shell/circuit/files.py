"""The circuit as it stands on the page, to take home; and as a file that stays clickable."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from backend.core.metrics import Ablation
from backend.methods.knockouts import MOST_HEADS, KnockoutsRequest, removals
from backend.studies import studies
from backend.tasks.circuit import Circuit
from backend.tasks.setting import Mode
from circuitviz.picture import Picture
from shell.frame import fitting, waiting
from shell.frame.graph_files import graph_files
from shell.frame.studies import latest, start
from shell.frame.take_home import Origin, picture_files, show_button
from shell.frame.view import View
from shell.frame.words import unmarked

STUDY = "knockouts"
ABLATIONS: Mapping[Mode, Ablation] = {
    Mode.mean: Ablation.mean,
    Mode.zero: Ablation.zero,
    Mode.counterfactual: Ablation.resample,
}
"""What knocks heads out beforehand as they are on the page; other modes need a model or a test."""


def show_files(picture: Picture, circuit: Circuit, view: View) -> None:
    """A button with all that there is of the circuit behind it."""
    origin = Origin("circuit", (view.model,), view.prompts)
    n_switched = len(view.off | view.switched)
    what = f"{view.circuit} {n_switched} switched" if n_switched else view.circuit
    show_button(
        "circuit",
        lambda: [
            *picture_files(picture, origin, what, view.switches),
            *graph_files(
                circuit, view.model, view.prompts, fitting.shape_of(view.model), "circuit"
            ),
        ],
        lambda: _show_clickable(circuit, view, origin),
    )


def _show_clickable(circuit: Circuit, view: View, origin: Origin) -> None:
    """The file that stays clickable: a button that has it measured, how far that is, the file."""
    st.markdown("**One HTML file that stays clickable** without a server")
    if view.mode not in ABLATIONS or view.tested:
        st.caption(
            "Choose Mean, Zero or the Counterfactual of path patching above: heads of another "
            "model, or tests of what heads carry, are not in such a file."
        )
        return
    if len(circuit.members) > MOST_HEADS:
        st.caption(f"For circuits of at most {MOST_HEADS} heads. Choose a smaller one.")
        return
    request = KnockoutsRequest(
        view.model, circuit, view.prompts, view.reading, ABLATIONS[view.mode]
    )
    stored = studies.find(request, patiently=False)
    if stored and stored.parts:
        _show_download(stored, origin.name(f"{view.circuit} clickable", "html"))
        return
    study = latest(STUDY, request)
    job = study.job if study and study.request == request else None
    if job:
        waiting.follow(job)
    if not job or job.future.done():
        st.button("Measure for it", key="measure_knockouts", on_click=start, args=(STUDY, request))
        st.caption(
            f"{len(removals(circuit))} states on {view.n} prompts: every head, every pair of heads "
            f"and every group of “{unmarked(circuit.name)}” is knocked out beforehand."
        )


def _show_download(stored: studies.Stored, name: str) -> None:
    def made() -> str:
        from takehome.clickable import clickable

        request: Any = stored.request
        return clickable(request, stored.parts[0], stored.entry.header)

    st.download_button("HTML", made, name, "text/html", key="file_clickable", on_click="ignore")
