"""One circuit, many models: is it there, and which model needs which of its groups?"""

from __future__ import annotations

import streamlit as st

import shell

shell.enter()

from backend.core.errors import UserError
from backend.methods.compare import Comparison, ComparisonRequest, joined
from shell.compare.comparison import (
    show_accuracies,
    show_differences,
    show_knockouts,
    show_table,
)
from shell.compare.overlap import show_overlap
from shell.frame import (
    choices,
    fitting,
    state,
    studies,
    waiting,
)
from shell.frame.chance import show_chance, warn_of_chance
from shell.frame.notes import show_notes
from shell.frame.words import unmarked

_STUDY = "comparison"


def choose() -> ComparisonRequest:
    """What is to be compared; raises UserError for a circuit that cannot be read."""
    if choices.is_start("compared"):
        st.session_state["compared"] = fitting.family_of(st.session_state["model"])
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        models = choices.choose_models("compared")
        circuit = choices.choose_heads("compared_heads")
        request = ComparisonRequest(
            models,
            circuit,
            choices.chosen_prompts(),
            metric=st.session_state["metric"],
            ablation=choices.choose_ablation("compared_ablation"),
        )
        reason = fitting.circuit_misfit(circuit, models)
        studies.show_run(_STUDY, request, not models or bool(reason))
    if reason:
        st.warning(unmarked(reason))
    return request


def show(request: ComparisonRequest, result: Comparison) -> None:
    show_table(request, result)
    left, right = st.columns([1, 1.35], gap="medium")
    with left:
        show_accuracies(request, result)
    with right:
        show_knockouts(request, result)
    show_differences(request, result)


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
            warn_of_chance(study.request.models, study.job.parts)
            choices.say_what_is_not_the_papers(study.request)
            show(study.request, joined(study.request, study.job.parts))
            show_chance(study.request.models, study.job.parts)
            show_notes(study.request.models, study.request.prompts.task)
    else:
        st.info(
            f"Press Run to measure the circuit “{unmarked(request.circuit.name)}” "
            f"({choices.sizes(request.circuit)}) in each of these models, on "
            f"{request.prompts}: the whole model, the circuit alone, random circuits of the same "
            "size, and what is left without each group."
        )
    show_overlap(request.circuit)
except UserError as error:
    st.error(unmarked(error))
state.write_address()
