"""Any pair of models: put heads of one into the other, and see how much of the gap closes."""

from __future__ import annotations

import streamlit as st

import shell

shell.enter()

from backend.core.components import Component
from backend.core.errors import UserError
from backend.methods.cmap import CmapRequest
from shell.cmap import transplant
from shell.frame import (
    choices,
    fitting,
    state,
    studies,
    waiting,
)
from shell.frame.chance import warn_of_chance
from shell.frame.notes import show_notes
from shell.frame.words import unmarked

_STUDY = "transplants"


def choose() -> CmapRequest:
    """Source, target and what goes from one to the other; raises UserError for a bad circuit."""
    now = st.session_state
    state.remember(part=Component.output)
    if choices.is_start("target"):
        now["target"] = now["model"]
        now["source"] = fitting.source_for(now["target"], now["source"])
    names = choices.model_names([now["source"], now["target"]])
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        transplant.choose_model("Source", "source", names, "Gives activations.")
        st.button("⇄", on_click=transplant.swap, help="Swap source and target")
        transplant.choose_model("Target", "target", names, "Receives them and answers.")
        transplant.choose_part()
        circuit = choices.choose_heads("transplanted_heads")
        request = CmapRequest(
            now["source"],
            now["target"],
            circuit,
            now["part"],
            choices.chosen_prompts(),
            metric=now["metric"],
        )
        reason = transplant.misfit(request)
        studies.show_run(_STUDY, request, bool(reason))
    st.caption(transplant.HELD_FIXED[request.part])
    if reason:
        st.warning(unmarked(reason))
    return request


choices.require_circuit()
try:
    request = choose()
    study = studies.latest(_STUDY, request)
    studies.say_cost_of(request, study)
    if study:
        choices.say_what_changed(study.request, request)
        studies.say_when(study)
        waiting.follow(study.job)
        if study.job.parts:
            warn_of_chance((study.request.source, study.request.target), study.job.parts)
            choices.say_what_is_not_the_papers(study.request)
            transplant.show(study)
            show_notes([study.request.source, study.request.target], study.request.prompts.task)
    else:
        transplant.invite(request)
except UserError as error:
    st.error(unmarked(error))
state.write_address()
