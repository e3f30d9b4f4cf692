"""Measured edges, read off a circuit's provenance."""

from __future__ import annotations

from collections.abc import Mapping

from backend.core.errors import UserError
from backend.core.serialize import from_json
from backend.methods.edges import Edges
from backend.tasks.circuit import Circuit
from circuitviz.graph import LOGITS, NodeKey


def edge_weights(circuit: Circuit) -> Mapping[tuple[NodeKey, NodeKey | str], float]:
    """The clear weights that came with the circuit; none if not measured, or malformed."""
    try:
        found = measured_edges(circuit)
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


def measured_edges(circuit: Circuit) -> Edges:
    """Raises UserError if they were not measured, or are malformed."""
    found: Edges = from_json(Edges, circuit.provenance.get("edges"))
    return found
