"""What does each group encode? Tests of variables: as pairs of prompts, on groups, on heads."""

from __future__ import annotations

import streamlit as st

import shell

shell.enter()

from backend.core.errors import UserError
from backend.tasks.task import Task
from shell.frame import choices, state, studies
from shell.frame.notes import show_notes
from shell.frame.words import unmarked
from shell.function import chosen, masks, pairs, patching


def show(task: Task) -> None:
    requests = patching.choose(task)
    models = [request.model for request in requests] or [st.session_state["model"]]
    found = patching.found(requests)
    # Of many models, the map needs the whole width.
    wide = len(found) > patching.MOST_BESIDE_A_PAIR
    left, right = (st.container(), st.container()) if wide else st.columns([1.25, 1], gap="large")
    with right:
        show_pair(task, models)
    with left:
        if found:
            patching.show_map(task, found)
            patching.show_figures(found)
        else:
            patching.invite(requests)
    show_masks(task, models)
    show_notes(models, task)


def show_pair(task: Task, models: list[str]) -> None:
    st.markdown("#### The test as a pair of prompts")
    chosen.show_choice(task)
    if drawn := pairs.drawn_pairs(models[0], choices.chosen_prompts()):
        pairs.show_pair(chosen.test(task), drawn)
        pairs.show_obstacles(models[0], task.desiderata, drawn)


def show_masks(task: Task, models: list[str]) -> None:
    tested, group = chosen.test(task), chosen.group(task)
    masks.show_title(tested, group)
    circuit = choices.sidebar_circuit()
    if request := masks.choose(models, circuit, choices.chosen_prompts(), tested, group):
        study = studies.latest(masks.STUDY, request)
        studies.say_cost_of(request, study)
        if study:
            choices.say_what_changed(study.request, request, masks.RUN)
            masks.show(task, study)


choices.require_circuit()
task: Task = st.session_state["task"]
try:
    if task.desiderata:
        show(task)
    else:
        st.info(
            f"{unmarked(task.title)} has no tests of what its groups encode. Choose another task "
            "in the sidebar."
        )
except UserError as error:
    st.error(unmarked(error))
state.write_address()
