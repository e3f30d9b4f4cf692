"""Measured edges, from a circuit's provenance to the picture."""

from __future__ import annotations

from typing import Any

import pytest

from backend.circuit import Circuit, Group, Head
from backend.results import Edge, Edges
from backend.saved import plain
from backend.statistics import Estimate
from circuitviz.graph import LOGITS, circuit_graph
from circuitviz.layout import circuit_layout
from circuitviz.picture import circuit_picture
from shell.edges import edge_weights
from tests.circuitviz.samples import TINY

B, A = (Group.B, Head(0, 1)), (Group.A, Head(1, 0))
GROUPS = {Group.B: (B[1],), Group.A: (A[1],)}


def measured(*weights: tuple[str, Head, Head | None, float]) -> Circuit:
    found = [
        Edge(group, sender, receiver, Estimate(weight, weight, weight, 5))
        for group, sender, receiver, weight in weights
    ]
    edges = plain(Edges("base", "circuit", tuple(found)))
    return Circuit(GROUPS, provenance={"edges": edges})


CIRCUIT = measured(("B", B[1], A[1], -0.4), ("A", A[1], None, 0.1))


def picture_of(circuit: Circuit, least: float = 0.0) -> Any:
    graph = circuit_graph(circuit, TINY, weights=edge_weights(circuit))
    return circuit_picture(graph, circuit_layout(graph, TINY), least_weight=least).data


def test_weights_survive_the_circuits_file() -> None:
    again = Circuit.from_json(CIRCUIT.to_json())
    assert edge_weights(again) == {(B, A): -0.4, (A, LOGITS): 0.1}


@pytest.mark.parametrize(
    "edges", [None, 3, {}, {"edges": 1}, {"model": "m", "circuit": "c", "edges": [{"group": "E"}]}]
)
def test_malformed_edges_are_not_measured(edges: Any) -> None:
    circuit = Circuit(GROUPS, provenance={"edges": edges})
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
    assert not picture_of(Circuit(GROUPS))["isMeasured"]
