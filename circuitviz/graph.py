"""A circuit as a directed graph: attention heads, and who can write into whom."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isfinite
from typing import TypeAlias

import networkx as nx

from backend.core.heads import Head, ModelShape, Site
from backend.tasks.circuit import Circuit, Node
from backend.tasks.task import Task

NodeKey: TypeAlias = Node
LOGITS = "logits"


def circuit_graph(
    circuit: Circuit,
    shape: ModelShape,
    scores: Mapping[NodeKey, float] | None = None,
    *,
    evidence: Mapping[NodeKey, str] | None = None,
    attention_targets: Mapping[NodeKey, str] | None = None,
    extra: Iterable[NodeKey] = (),
    added: Iterable[NodeKey] = (),
    weights: Mapping[tuple[NodeKey, NodeKey | str], float] | None = None,
) -> nx.DiGraph:
    """Draw up the graph of a circuit.

    Parameters
    ----------
    circuit : Circuit
        The heads by group.
    shape : ModelShape
        The model's shape; heads outside it raise UserError.
    scores : mapping of (group, head) to float, optional
        Path-patching scores; a head without a finite one gets ``score=None``.
    evidence : mapping of (group, head) to str, optional
        How sure each score is, in words.
    attention_targets : mapping of (group, head) to str, optional
        What each head attends to, in words.
    extra : iterable of (group, head)
        Heads outside the circuit to show; they have no edges.
    added : iterable of (group, head)
        Those of ``extra`` that were switched in; they have edges.
    weights : mapping of (source, target) to float, optional
        Measured strengths of edges; an edge without one gets ``weight=None``.

    Returns
    -------
    networkx.DiGraph
        Nodes ``(group, head)`` and ``"logits"``. Edges lead from each group to those that it writes
        into, and only to higher layers: a head cannot influence its own layer or those below. The
        task is ``graph.graph["task"]``.

    Examples
    --------
    >>> from backend.tasks.entity_tracking import ENTITY_TRACKING
    >>> heads = {"B": (Head(0, 1),), "A": (Head(1, 0), Head(0, 0))}
    >>> circuit = Circuit.of(ENTITY_TRACKING, heads)
    >>> graph = circuit_graph(circuit, ModelShape(2, 2, 2, 8))
    >>> [str(target) for _, target in graph.successors(("B", Head(0, 1)))]
    ['L1.0']
    """
    circuit.check(shape, "the model")
    scores, weights = scores or {}, weights or {}
    evidence, targets = evidence or {}, attention_targets or {}
    members = dict.fromkeys(circuit.members)
    outside = dict.fromkeys(key for key in extra if key not in members)
    graph: nx.DiGraph = nx.DiGraph(task=circuit.task)
    for key in (*members, *outside):
        group, head = key
        graph.add_node(
            key,
            group=group,
            head=head,
            score=_finite(scores.get(key)),
            evidence=evidence.get(key),
            position=circuit.task.group(group).position,
            in_circuit=key in members,
            attends_to=targets.get(key),
        )
    graph.add_node(LOGITS)
    active = [*members, *(key for key in dict.fromkeys(added) if key in outside)]
    for source, target, kind in _compositions(circuit.task, active):
        graph.add_edge(source, target, kind=kind, weight=weights.get((source, target)))
    return graph


def outside_heads(circuit: Circuit, shape: ModelShape) -> tuple[NodeKey, ...]:
    """Every head that is not in the circuit at its token, in the first group that works there."""
    sites = circuit.sites
    at = {group.position: group.key for group in circuit.task.reading_order}
    return tuple(
        (key, Head(layer, index))
        for position, key in at.items()
        for layer in range(shape.n_layers)
        for index in range(shape.n_heads)
        if Site(Head(layer, index), position) not in sites
    )


def _finite(score: float | None) -> float | None:
    return score if score is not None and isfinite(score) else None


def _compositions(
    task: Task, active: list[NodeKey]
) -> Iterable[tuple[NodeKey, NodeKey | str, str]]:
    for group in task.reading_order:
        for source in (key for key in active if key[0] == group.key):
            if group.component == "logits":
                yield source, LOGITS, group.component
            for target in (key for key in active if key[0] in group.into):
                if source[1].layer < target[1].layer:
                    yield source, target, group.component
