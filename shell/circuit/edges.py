"""Measured edges: how weak ones may be left out."""

from __future__ import annotations

import streamlit as st

from backend.core.metrics import Score
from backend.tasks.circuit import Circuit
from takehome.edges import edge_weights, measured_edges

MOST_PERCENT = 60
_SCORES = {
    Score.probability: "(p_patched − p_clean) / p_clean of the right answer",
    Score.logit_difference: "the change of the logit difference, not as in the paper",
}


def show_threshold(circuit: Circuit) -> None:
    """A slider for the weakest edge to draw, where edges were measured."""
    strongest = max(map(abs, edge_weights(circuit).values()), default=0.0)
    if not strongest:
        return
    st.session_state.setdefault("weakest_edge", 0)
    st.slider(
        "Edges from",
        0,
        MOST_PERCENT,
        key="weakest_edge",
        format="%d %%",
        persist_state="session",
        width=118,
        help="Weaker edges are left out, and so are those that are not clear among all that were "
        "measured (Student’s t, false discovery rate 5 %). In percent of the strongest edge, whose "
        "score is "
        f"{strongest:.3f} up or down. The score of an edge: "
        f"{_SCORES[measured_edges(circuit).score]}, by path patching from one head to one other.",
    )


def least_weight(circuit: Circuit) -> float:
    """The threshold that the slider asks for."""
    strongest = max(map(abs, edge_weights(circuit).values()), default=0.0)
    return strongest * float(st.session_state.get("weakest_edge", 0)) / 100
