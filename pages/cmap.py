"""Any pair of models: put heads of one into the other, and see how much of the gap closes."""

from __future__ import annotations

import streamlit as st

import shell

shell.enter()

from backend import catalogue  # noqa: E402
from backend.errors import UserError  # noqa: E402
from backend.requests import CmapRequest  # noqa: E402
from backend.results import Part  # noqa: E402
from shell import choices, state, studies, transplant, waiting  # noqa: E402
from shell.notes import show_notes  # noqa: E402
from shell.words import unmarked  # noqa: E402

_STUDY = "transplants"


def choose() -> CmapRequest:
    """Source, target and what goes from one to the other; raises UserError for a bad circuit."""
    state.remember(source=catalogue.bundled_models()[1], target="base", part=Part.output)
    names = choices.model_names([st.session_state["source"], st.session_state["target"]])
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        transplant.choose_model("Source", "source", names, "Gives activations.")
        st.button("⇄", on_click=transplant.swap, help="Swap source and target")
        transplant.choose_model("Target", "target", names, "Receives them and answers.")
        transplant.choose_part()
        heads = choices.choose_heads("transplanted_heads")
        request = CmapRequest(
            st.session_state["source"],
            st.session_state["target"],
            heads,
            st.session_state["part"],
            choices.chosen_prompts(),
        )
        reason = transplant.misfit(request)
        st.button(
            "Run",
            type="primary",
            icon="▶",
            disabled=bool(reason),
            on_click=studies.start,
            args=(_STUDY, request),
        )
    st.caption(transplant.HELD_FIXED[request.part])
    if reason:
        st.warning(f"This pair cannot be run: {unmarked(reason)} Choose two models of one shape.")
    return request


try:
    request = choose()
    study = studies.latest(_STUDY, request)
    if study:
        choices.say_what_changed(study.request, request)
        studies.say_when(study)
        waiting.follow(study.job)
        if study.job.parts:
            transplant.show(study)
            show_notes([study.request.source, study.request.target])
    else:
        transplant.invite(request)
except UserError as error:
    st.error(unmarked(error))
state.write_address()
