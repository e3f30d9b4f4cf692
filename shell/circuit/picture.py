"""The clickable circuit on the page: draw it, and take in what is clicked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import streamlit as st

from backend.core.heads import Head, ModelShape
from backend.core.statistics import clear_among
from backend.models import catalogue
from backend.tasks.circuit import Circuit
from backend.tasks.setting import Mode, Reading
from circuitviz.component import circuit_component, parse_message
from circuitviz.graph import circuit_graph, outside_heads
from circuitviz.layout import circuit_layout
from circuitviz.picture import Contribution, Picture, circuit_picture
from circuitviz.provenance import evidence_of, scores_of
from shell.circuit.edges import least_weight
from shell.frame import state
from shell.frame.history import NodeKey, Switches
from shell.frame.view import View
from takehome.edges import edge_weights

if TYPE_CHECKING:
    from backend.studies.session import Session
    from backend.studies.written import WrittenRun

_KEY = "circuit_picture"
_OFF_WORDS = {Mode.mean: "knocked out", Mode.zero: "zero", Mode.counterfactual: "patched"}
# The screen less what stands above and below, so that graph and numbers need no scrolling.
_HEIGHT = "clamp(440px, calc(100vh - {others}px), 960px)"
_OTHERS, _OTHERS_WITH_SLIDER = 192, 216
_HEIGHT_PRESENTED = "calc(100vh - var(--above, 88) * var(--unit, 1px))"


def show_picture(
    session: Session | WrittenRun,
    circuit: Circuit,
    view: View,
    prompt: int,
    contributions: Mapping[NodeKey, Contribution] | None = None,
    figures_address: str = "",
) -> Picture:
    """Draw the circuit with its switches, headed by the words of a prompt; a click calls the
    fragment again, and is answered by the address first, if there is one."""
    shape = session.loaded.shape
    extra = _outside(circuit, shape, view)
    drawn = (*circuit.members, *extra)
    weights = edge_weights(circuit)
    graph = circuit_graph(
        circuit,
        shape,
        scores_of(circuit, drawn),
        evidence=evidence_of(circuit, drawn),
        attention_targets={key: _looks_at(session, key) for key in drawn},
        extra=extra,
        added=view.switched if view.reading is Reading.circuit else (),
        weights=weights,
    )
    layout = circuit_layout(graph, shape, grid=view.outside)
    words = _column_words(session, prompt)
    picture = circuit_picture(
        graph,
        layout,
        words,
        off_word=_off_word(view),
        outside_on=view.reading is Reading.model,
        least_weight=least_weight(circuit),
        contributions=contributions,
    )
    circuit_component(
        picture,
        off=view.off,
        switched=view.switched,
        served_sequence=st.session_state["served"],
        epoch=st.session_state["epoch"],
        key=_KEY,
        height=_height(view, bool(weights)),
        large=view.presenting,
        figures_address=figures_address,
        on_change=take_in,
    )
    return picture


def _height(view: View, has_slider: bool) -> str:
    if view.presenting:
        return _HEIGHT_PRESENTED
    return _HEIGHT.format(others=_OTHERS_WITH_SLIDER if has_slider else _OTHERS)


def contributions_of(
    session: Session, circuit: Circuit, view: View
) -> Mapping[NodeKey, Contribution] | None:
    """What the heads drawn that work at the last token add directly, and whether it is clear.

    Nothing unless the view asks for it.
    """
    if not view.contributions:
        return None
    from backend.studies.session import head_contributions

    found, task = head_contributions(session), session.prompts.task
    clear = iter(clear_among([estimate for layer in found for estimate in layer]))
    of = {
        Head(layer, i): Contribution(estimate, next(clear))
        for layer, row in enumerate(found)
        for i, estimate in enumerate(row)
    }
    return {
        (key, head): of[head]
        for key, head in (*circuit.members, *_outside(circuit, session.loaded.shape, view))
        if task.position(task.group(key).position).tail == 1
    }


def _outside(circuit: Circuit, shape: ModelShape, view: View) -> tuple[NodeKey, ...]:
    return outside_heads(circuit, shape) if view.outside else tuple(view.switched)


def take_in() -> None:
    """Take over the clicks that the session has not had yet."""
    now = st.session_state
    if not (message := parse_message((now.get(_KEY) or {}).get("message"))):
        return
    for step in message.news(now["served"], now["epoch"]):
        now["served"] = step.sequence
        state.click(Switches(step.off, step.switched))
        if step == message.steps[-1] and message.looked_at:
            _look_at(message.looked_at)


def _look_at(node: NodeKey) -> None:
    now = st.session_state
    if node[0] in now["task"].keys:
        now["head_to_look_at"] = node
        now["history"] = now["history"].without_detour()


def _off_word(view: View) -> str:
    if view.mode is Mode.other:
        return f"from {catalogue.label(view.source)}"
    if view.tested:
        return "alternate’s"
    return _OFF_WORDS[view.mode]


def _looks_at(session: Session | WrittenRun, key: NodeKey) -> str:
    group, head = key
    position = session.prompts.task.group(group).position
    target, mass = session.attention.strongest(position, head)
    return f"{target} ({mass:.2f})"


def _column_words(session: Session | WrittenRun, prompt: int) -> dict[str, str]:
    """What stands above each group: its token in this prompt."""
    prompts = session.prompts
    words, task = prompts.words(prompt), prompts.task
    return {
        group.key: task.position(group.position).column.format(
            words[prompts.positions[group.position][prompt]]
        )
        for group in task.groups
    }
