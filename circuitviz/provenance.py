"""The scores that came with a circuit, where they are of the right size."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import isfinite

from backend.core.heads import Head
from backend.tasks.circuit import Circuit
from circuitviz.graph import NodeKey
from circuitviz.tables import signed


def scores_of(circuit: Circuit, drawn: Collection[NodeKey]) -> Mapping[NodeKey, float]:
    """The path-patching scores that came with the circuit, where they are of the right size."""
    return _figures(circuit, "scores", drawn)


def evidence_of(circuit: Circuit, drawn: Collection[NodeKey]) -> Mapping[NodeKey, str]:
    """How many standard errors the scores are from zero, where the circuit came with them."""
    scores, errors = scores_of(circuit, drawn), _figures(circuit, "standard_errors", drawn)
    n = circuit.provenance.get("n_prompts")
    of = f", n = {n}" if type(n) is int else ""
    return {
        key: f"z {signed(scores[key] / error, 1)}{of}"
        for key, error in errors.items()
        if key in scores and error > 0
    }


def _figures(circuit: Circuit, table: str, drawn: Collection[NodeKey]) -> Mapping[NodeKey, float]:
    """A figure of each head out of a table in the circuit's file, which may hold anything."""
    tables = circuit.provenance.get(table, {})
    found = {}
    for group, (layer, index) in drawn:
        try:
            figure = float(tables[group][layer][index])
        except (KeyError, IndexError, TypeError, ValueError, OverflowError):
            continue
        if isfinite(figure):
            found[group, Head(layer, index)] = figure
    return found
