"""Measured edges: read off the circuit's provenance, and how weak ones may be left out."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

from backend.core.errors import UserError
from backend.core.metrics import Score
from backend.core.serialize import from_json
from backend.methods.edges import Edges
from backend.tasks.circuit import Circuit
from circuitviz.graph import LOGITS
from shell.frame.history import NodeKey

_MOST_PERCENT = 60
_SCORES = {
    Score.probability: "(p_patched − p_clean) / p_clean of the right answer",
    Score.logit_difference: "the change of the logit difference, not as in the paper",
}


def edge_weights(circuit: Circuit) -> Mapping[tuple[NodeKey, NodeKey | str], float]:
    """The clear weights that came with the circuit; none if not measured, or malformed."""
    try:
        found = _measured(circuit)
        weights: dict[tuple[NodeKey, NodeKey | str], float] = {}
        for edge in found.clear:
            source = (edge.group, edge.sender)
            if edge.receiver is None:
                weights[source, LOGITS] = edge.weight.value
                continue
            for key in circuit.task.group(edge.group).into:
                if edge.receiver in circuit.heads(key):
                    weights[source, (key, edge.receiver)] = edge.weight.value
        return weights
    except (UserError, KeyError):
        return {}


def _measured(circuit: Circuit) -> Edges:
    """Raises UserError if they were not measured, or are malformed."""
    found: Edges = from_json(Edges, circuit.provenance.get("edges"))
    return found


def show_threshold(circuit: Circuit) -> None:
    """A slider for the weakest edge to draw, where edges were measured."""
    strongest = max(map(abs, edge_weights(circuit).values()), default=0.0)
    if not strongest:
        return
    st.session_state.setdefault("weakest_edge", 0)
    st.slider(
        "Edges from",
        0,
        _MOST_PERCENT,
        key="weakest_edge",
        format="%d %%",
        persist_state="session",
        width=118,
        help="Weaker edges are left out, and so are those that are not clear among all that were "
        "measured (Student’s t, false discovery rate 5 %). In percent of the strongest edge, whose "
        "score is "
        f"{strongest:.3f} up or down. The score of an edge: {_SCORES[_measured(circuit).score]}, "
        "by path patching from one head to one other.",
    )


def least_weight(circuit: Circuit) -> float:
    """The threshold that the slider asks for."""
    strongest = max(map(abs, edge_weights(circuit).values()), default=0.0)
    return strongest * float(st.session_state.get("weakest_edge", 0)) / 100
