"""A laid-out circuit as plain JSON for the browser: where, how big, which colour, which words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Any, NamedTuple

import networkx as nx

from backend.core.heads import Head
from backend.core.statistics import Estimate
from backend.tasks.task import Group
from circuitviz.graph import LOGITS, NodeKey
from circuitviz.layout import Layout
from circuitviz.palette import HELPS, HINDERS, SHAPES, ink_on, middle_of

MINUS = "\N{MINUS SIGN}"
UNSCORED_SIZE = 0.5
_LEAST_HINDRANCE = 0.05
"""Share of the strongest score from which on a positive one is marked; others are noise."""


@dataclass(frozen=True)
class Picture:
    """What the component draws, and which heads it may report back."""

    data: Mapping[str, Any]
    members: frozenset[NodeKey]
    outside: frozenset[NodeKey]


class Contribution(NamedTuple):
    """What a head adds to the logit difference directly, and whether that is clear among all."""

    estimate: Estimate
    is_clear: bool


def circuit_picture(
    graph: nx.DiGraph,
    layout: Layout,
    words: Mapping[str, str] | None = None,
    *,
    off_word: str = "knocked out",
    outside_on: bool = False,
    outside_word: str = "outside the circuit",
    least_weight: float = 0.0,
    switchable: bool = True,
    contributions: Mapping[NodeKey, Contribution] | None = None,
    attention: bool = True,
) -> Picture:
    """Put graph and layout into words and numbers.

    ``words`` names each group's token, ``off_word`` says what happens to a head that is off,
    ``outside_on`` whether heads outside the circuit are on unless they are switched, and
    ``outside_word`` what these are called. Measured edges that are weaker than ``least_weight`` are
    left out. If heads are not ``switchable``, they can only be looked at. ``contributions`` colour
    the heads that they are of; others, and those of which they are not clear, have only their
    outline. `attention`: whether a double click can show a head's.
    """
    words, task = words or {}, graph.graph["task"]
    keys = [node for node in graph if node != LOGITS]
    places = {key: place for place, key in enumerate(keys)} | {LOGITS: len(keys)}
    strongest = _strongest_score(graph, keys)
    nodes = [_node(graph, layout, key, places, strongest) for key in keys]
    if contributions is not None:
        largest = _largest(contributions)
        nodes = [
            node | _contributed(contributions.get(key), largest)
            for key, node in zip(keys, nodes, strict=True)
        ]
    data = {
        "title": _sentence(graph, keys, switchable),
        "nodes": nodes,
        "offWord": off_word,
        "outsideOn": outside_on,
        "outsideWord": outside_word,
        "hinderColour": HINDERS,
        "helpColour": HELPS,
        "contributions": None
        if contributions is None
        else f"{MINUS}{_largest(contributions):.1f} – +{_largest(contributions):.1f}",
        "switchable": switchable,
        "attention": attention,
        "isMeasured": any(edge["weight"] is not None for edge in graph.edges.values()),
        "measured": _measured(graph, places, least_weight),
        "columns": [
            {
                "group": group.key,
                "name": group.name,
                "word": words.get(group.key, ""),
                "composition": group.component,
                "left": round(column.left, 3),
                "right": round(column.right, 3),
                "colour": group.colour,
                "ink": ink_on(group.colour),
                "shape": SHAPES[group.shape],
                "middle": middle_of(group.shape),
            }
            for column, group in zip(layout.columns, task.reading_order, strict=True)
        ],
        "rows": [
            {"bottom": round(row.bottom, 3), "top": round(row.top, 3), "empty": row.empty}
            for row in layout.rows
        ],
        "width": round(layout.width, 3),
        "height": round(layout.height, 3),
    }
    inside = frozenset(key for key in keys if graph.nodes[key]["in_circuit"])
    return Picture(data, inside, frozenset(keys) - inside)


def node_id(key: NodeKey) -> str:
    """The name of a node in messages to and from the browser, like ``C L2.3``."""
    group, head = key
    return f"{group} {head}"


def score_text(score: float | None) -> str:
    """A score as people read it, with a true minus sign and enough digits to tell it from 0."""
    if score is None:
        return "not measured"
    digits = 2 if abs(score) >= 0.01 or score == 0 else 4
    return f"{score:+.{digits}f}".replace("-", MINUS)


def _node(
    graph: nx.DiGraph,
    layout: Layout,
    key: NodeKey,
    places: Mapping[NodeKey | str, int],
    strongest: float,
) -> dict[str, Any]:
    group, head = key
    attributes = graph.nodes[key]
    x, y = layout.positions[key]
    score = attributes["score"]
    hinders = score is not None and score > _LEAST_HINDRANCE * strongest
    return {
        "id": node_id(key),
        "group": group,
        "layer": head.layer,
        "name": str(head),
        "x": round(x, 3),
        "y": round(y, 3),
        "size": _size(score, strongest),
        "inCircuit": attributes["in_circuit"],
        "hinders": hinders,
        "spoken": _spoken(graph.graph["task"].group(group), head, score, attributes["in_circuit"])
        + (", hinders the answer" if hinders else ""),
        "score": score_text(score),
        "evidence": attributes["evidence"],
        "attendsTo": attributes["attends_to"],
        "to": [places[target] for target in graph.successors(key)],
    }


def _largest(contributions: Mapping[NodeKey, Contribution]) -> float:
    values = (abs(each.estimate.value) for each in contributions.values() if each.is_clear)
    return max(values, default=0.0) or 1.0


def _contributed(found: Contribution | None, largest: float) -> dict[str, Any]:
    """How strongly a head is coloured, from -1 to 1, or not at all; and what it adds, in words."""
    if found is None:
        return {"share": None, "adds": "adds nothing directly: not at the last token"}
    estimate, is_clear = found
    numbers = (
        f"{estimate.value:+.2f}, 95 %: {estimate.low:.2f} to {estimate.high:.2f}, n = {estimate.n}"
    ).replace("-", MINUS)
    share = min(max(estimate.value / largest, -1.0), 1.0)
    return {
        "share": round(share, 3) if is_clear else None,
        "adds": f"adds directly {numbers}" + ("" if is_clear else ": not clear"),
    }


def _size(score: float | None, strongest: float) -> float:
    """0 to 1, on one scale for all groups; the square root makes area proportional to score."""
    if score is None:
        return UNSCORED_SIZE
    return min(round(sqrt(abs(score) / strongest), 3), 1.0) if strongest else 0.0


def _strongest_score(graph: nx.DiGraph, keys: list[NodeKey]) -> float:
    # Heads outside the circuit do not count: showing them must not shrink those inside.
    inside = (graph.nodes[key] for key in keys if graph.nodes[key]["in_circuit"])
    return max((abs(node["score"]) for node in inside if node["score"] is not None), default=0.0)


def _spoken(group: Group, head: Head, score: float | None, in_circuit: bool) -> str:
    if in_circuit:
        return f"{head}, {group.name}, group {group.key}, score {score_text(score)}"
    where = group.position.replace("_", " ")
    return f"{head}, outside the circuit, {where} token, score {score_text(score)}"


def _measured(
    graph: nx.DiGraph, places: Mapping[NodeKey | str, int], least: float
) -> list[dict[str, Any]]:
    """The measured edges to draw, weakest first; width relative to the strongest of all."""
    weights = {
        (places[source], places[target]): attributes["weight"]
        for (source, target), attributes in graph.edges.items()
        if attributes["weight"] is not None
    }
    strongest = max(map(abs, weights.values()), default=0.0) or 1.0
    return [
        {
            "source": source,
            "target": target,
            "strength": round(abs(weight) / strongest, 3),
            "helps": weight <= 0,
            "score": score_text(weight),
        }
        for (source, target), weight in sorted(weights.items(), key=lambda item: abs(item[1]))
        if abs(weight) >= least
    ]


def _sentence(graph: nx.DiGraph, keys: list[NodeKey], switchable: bool) -> str:
    inside = [key for key in keys if graph.nodes[key]["in_circuit"]]
    counts = ", ".join(
        f"{sum(key[0] == group.key for key in inside)} {group.name} ({group.key})"
        for group in graph.graph["task"].reading_order
    )
    switches = "Each head is a switch. " if switchable else ""
    return (
        f"Circuit of {len(inside)} attention heads, read from left to right: {counts}, then the "
        f"logits. Layers go upward. {switches}Arrow keys move between heads."
    )
