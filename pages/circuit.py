"""Click a head of the circuit and watch the answer change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

import shell

shell.enter()

from backend.core.errors import UserError
from backend.core.priority import urgent
from backend.models import catalogue
from backend.tasks.circuit import Circuit
from backend.tasks.setting import Mode, Reading
from circuitviz.figures import figures_component
from shell.attention.opening import look_at
from shell.circuit import answering, carried, picture, presented, tour
from shell.circuit.example import chosen_prompt, show_example
from shell.circuit.figures import compared, figures
from shell.circuit.files import show_files
from shell.circuit.numbers import not_as_in_the_paper, show_chance
from shell.circuit.switches import show_readings, show_switches
from shell.frame import (
    choices,
    state,
    waiting,
)
from shell.frame.notes import show_notes
from shell.frame.view import View
from shell.frame.words import unmarked

if TYPE_CHECKING:
    from backend.studies.session import Session


@st.fragment
@urgent()
def explore(circuit: Circuit) -> None:
    with waiting.memory_permitting():
        show(circuit)


def show(circuit: Circuit) -> None:
    view = state.current()
    # Sessions hold on to what their fragments are given, so it must not be the session.
    session = waiting.bench_for(view.setting)
    from backend.studies.session import alternate, answers

    tested = view.tested
    everything_on, now = compared(circuit, view)
    if view.presenting:
        presented.show_what(view)
    else:
        show_readings(view.task)
    if view.mode is Mode.other:
        waiting.wait_for_source(session, view.source)
    elif tested:
        waiting.wait_for_alternate(session, tested.name)
    elif view.mode is not Mode.mean:
        waiting.wait_for_mode(session, view.reading, view.mode)
    if view.contributions:
        waiting.wait_for_contributions(session)
    with waiting.memory_permitting():
        before = answers(session, everything_on)
    prompt = chosen_prompt(session, before, view.example)
    if node := st.session_state.pop("head_to_look_at", None):
        look_at(node, view.task, prompt)
    left, right = st.columns([1.8, 1], gap="medium")
    with left:
        contributions = picture.contributions_of(session, circuit, view)
        drawn = picture.show_picture(
            session, circuit, view, prompt, contributions, answering.address_of(view)
        )
        # On a stage only its keys are wanted.
        with st.container(key="unseen_switches" if view.presenting else "switches"):
            show_switches(circuit, lambda: show_files(drawn, circuit, view))
    with right:
        # Only now: the browser draws the picture meanwhile.
        with waiting.memory_permitting():
            after = answers(session, now)
            figures_component(
                figures(session, circuit, view),
                served_sequence=st.session_state["served"],
                epoch=st.session_state["epoch"],
                key="figures",
                large=view.presenting,
            )
        pairs = alternate(session, tested.name).pairs if tested else None
        if view.presenting:
            presented.show_answers(session, before, after, prompt, pairs)
        else:
            if tested:
                carried.show_test(session, tested)
            else:
                show_chance(session.whole)
            show_example(session, before, after, prompt, pairs)
            show_provenance(session, view)
    state.write_address()


def show_provenance(session: Session, view: View) -> None:
    """How the numbers were measured."""
    tested = view.tested
    others = "" if tested else not_as_in_the_paper(view.mode, view.metric)
    note = f":orange-badge[Note] {others}  \n" if others else ""
    uses_means = not others and not (tested and view.reading is Reading.model)
    means = f" · means over {session.n_reference} reference prompts" if uses_means else ""
    st.caption(
        f"{note}{unmarked(catalogue.label(view.model))} · circuit “{unmarked(view.circuit)}” · "
        f"{view.prompts}{means}"
    )
    show_notes([view.model], view.task)


choices.require_circuit()
try:
    view = state.current()
    circuit = choices.sidebar_circuit()
    shape = waiting.bench_for(view.setting).loaded.shape
    circuit.check(shape, catalogue.label(view.model))
    state.keep_only(circuit, shape)
except UserError as error:
    st.error(unmarked(error))
else:
    state.show_complaints()
    explore(circuit)
    tour.offer(circuit, view)
