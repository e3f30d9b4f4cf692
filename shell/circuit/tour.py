"""The first visit: three steps that say what is seen, which head to click, and what changed."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from backend.tasks.circuit import Circuit, Node
from circuitviz.picture import node_id
from circuitviz.provenance import scores_of
from shell.frame.view import View

_FOLDER = Path(__file__).parent


def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


_mount = st.components.v2.component(
    "tour", html=_read("tour.html"), css=_read("tour.css"), js=_read("tour.js")
)


def offer(circuit: Circuit, view: View) -> None:
    """Begin it in a browser that has not seen it, or when it was asked for; not on a stage."""
    head = head_to_click(circuit)
    if view.presenting or head is None:
        return
    _mount(
        key="tour",
        data={
            "asked": st.session_state.get("tour_asked", 0),
            "head": node_id(head),
            "steps": [{"title": title, "text": text} for title, text in steps(circuit, head)],
        },
    )


def head_to_click(circuit: Circuit) -> Node | None:
    """The strongest of the heads that write the answer, or of all; None where there is none."""
    writing = [node for node in circuit.members if not circuit.task.group(node[0]).into]
    scores = scores_of(circuit, circuit.members)
    return max(
        writing or circuit.members, key=lambda node: abs(scores.get(node) or 0.0), default=None
    )


def steps(circuit: Circuit, head: Node) -> tuple[tuple[str, str], ...]:
    """Title and text of each step."""
    group = circuit.task.group(head[0])
    return (
        (
            "What you see",
            f"A circuit: {len(circuit.members)} attention heads of a language model, which do the "
            f"task “{circuit.task.title}” together. A column is a group of them, at one token of "
            "the prompt; layers go up; the answer is at the top right.",
        ),
        (
            f"Click {head[1]}",
            f"It is a {group.name}. A click switches it off: it then says nothing about this "
            "prompt. A second click switches it on again.",
        ),
        (
            "What changed",
            "The numbers are those without the head, each with its interval and the change since "
            "all were on. Below is one prompt, with the likeliest answers before and after. Undo "
            "brings the head back, Help explains the rest, and P is for a lecture hall.",
        ),
    )
