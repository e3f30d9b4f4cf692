"""Measured edges, from a circuit's provenance to the picture."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from backend.core.heads import Head
from backend.core.serialize import to_json
from backend.core.statistics import Estimate
from backend.methods.edges import Edge, Edges
from backend.tasks.circuit import Circuit
from backend.tasks.entity_tracking import ENTITY_TRACKING
from circuitviz.graph import LOGITS, circuit_graph
from circuitviz.layout import circuit_layout
from circuitviz.picture import circuit_picture
from takehome.edges import edge_weights
from tests.circuitviz.samples import TINY

B, A = ("B", Head(0, 1)), ("A", Head(1, 0))
GROUPS = {"B": (B[1],), "A": (A[1],)}


def measured(*weights: tuple[str, Head, Head | None, float]) -> Circuit:
    found = [
        Edge(group, sender, receiver, Estimate(weight, weight, weight, 5))
        for group, sender, receiver, weight in weights
    ]
    edges = to_json(Edges("base", "circuit", tuple(found)))
    return Circuit.of(ENTITY_TRACKING, GROUPS, provenance={"edges": edges})


CIRCUIT = measured(("B", B[1], A[1], -0.4), ("A", A[1], None, 0.1))


def picture_of(circuit: Circuit, least: float = 0.0) -> Any:
    graph = circuit_graph(circuit, TINY, weights=edge_weights(circuit))
    return circuit_picture(graph, circuit_layout(graph, TINY), least_weight=least).data


def test_weights_survive_the_circuits_file() -> None:
    again = Circuit.from_json(CIRCUIT.to_json())
    assert edge_weights(again) == {(B, A): -0.4, (A, LOGITS): 0.1}


def test_an_edge_that_is_not_clear_among_all_is_not_drawn() -> None:
    both = [
        Edge("B", B[1], A[1], Estimate(-0.4, -0.6, -0.2, 9, p=0.03)),
        Edge("A", A[1], None, Estimate(-0.9, -1, -0.8, 9, p=1e-6)),
    ]
    unclear = [replace(both[0], weight=replace(both[0].weight, p=p)) for p in (0.4, 0.9)]
    for edges, drawn in ((both, 2), ([*both, *unclear], 1)):
        circuit = Circuit.of(
            ENTITY_TRACKING, GROUPS, provenance={"edges": to_json(Edges("base", "c", tuple(edges)))}
        )
        assert len(edge_weights(circuit)) == drawn


@pytest.mark.parametrize(
    "edges", [None, 3, {}, {"edges": 1}, {"model": "m", "circuit": "c", "edges": [{"group": "E"}]}]
)
def test_malformed_edges_are_not_measured(edges: Any) -> None:
    circuit = Circuit.of(ENTITY_TRACKING, GROUPS, provenance={"edges": edges})
    assert edge_weights(circuit) == {}
    assert not picture_of(circuit)["isMeasured"]


def test_the_picture_has_each_edge_the_strongest_last() -> None:
    weak, strong = picture_of(CIRCUIT)["measured"]
    assert (weak["strength"], weak["helps"], weak["score"]) == (0.25, False, "+0.10")
    assert (strong["strength"], strong["helps"], strong["score"]) == (1.0, True, "−0.40")
    assert weak["target"] == 2


def test_weaker_edges_are_left_out_and_the_rest_is_still_measured() -> None:
    data = picture_of(CIRCUIT, least=0.2)
    assert [edge["score"] for edge in data["measured"]] == ["−0.40"]
    assert picture_of(CIRCUIT, least=1.0)["isMeasured"]
    assert not picture_of(Circuit.of(ENTITY_TRACKING, GROUPS))["isMeasured"]
