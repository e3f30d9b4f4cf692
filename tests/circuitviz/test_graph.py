"""Graphs of circuits: edges go to the next group and only upward."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given

from backend.core.errors import UserError
from backend.core.heads import Head, ModelShape
from backend.tasks.circuit import Circuit
from backend.tasks.entity_tracking import ENTITY_TRACKING
from circuitviz.graph import LOGITS, circuit_graph, outside_heads
from tests.circuitviz.samples import TINY, tiny_circuit
from tests.circuitviz.strategies import circuits

ORDER = ("D", "C", "B", "A")


@given(circuits())
def test_edges_go_to_the_next_group_in_a_higher_layer(drawn: tuple[Circuit, ModelShape]) -> None:
    graph = circuit_graph(*drawn)
    for source, target in graph.edges:
        if target == LOGITS:
            assert source[0] == "A"
        else:
            assert (source[0], target[0]) in pairwise(ORDER)
            assert source[1].layer < target[1].layer


@given(circuits())
def test_every_possible_edge_is_there(drawn: tuple[Circuit, ModelShape]) -> None:
    circuit, shape = drawn
    possible = sum(
        source.layer < target.layer
        for group, following in pairwise(ORDER)
        for source in circuit.heads(group)
        for target in circuit.heads(following)
    )
    assert circuit_graph(circuit, shape).number_of_edges() == possible + len(circuit.heads("A"))


def test_nodes_carry_what_is_known_of_them() -> None:
    circuit = tiny_circuit()
    key = circuit.members[0]
    graph = circuit_graph(
        circuit, TINY, {key: -0.5}, evidence={key: "z −7.1"}, attention_targets={key: "itself"}
    )
    assert graph.nodes[key] == {
        "group": key[0],
        "head": key[1],
        "score": -0.5,
        "evidence": "z −7.1",
        "position": ENTITY_TRACKING.group(key[0]).position,
        "in_circuit": True,
        "attends_to": "itself",
    }
    assert graph.nodes[circuit.members[1]]["score"] is None


def test_a_score_that_is_no_number_is_not_measured() -> None:
    circuit = tiny_circuit()
    key = circuit.members[0]
    assert circuit_graph(circuit, TINY, {key: float("nan")}).nodes[key]["score"] is None


def test_edges_say_how_the_target_reads_and_what_was_measured() -> None:
    b, a = ("B", Head(0, 0)), ("A", Head(1, 1))
    circuit = Circuit.of(ENTITY_TRACKING, {"B": (b[1],), "A": (a[1],)})
    graph = circuit_graph(circuit, TINY, weights={(b, a): 0.3})
    assert graph.edges[b, a] == {"kind": "q", "weight": 0.3}
    assert graph.edges[a, LOGITS] == {"kind": "logits", "weight": None}


def test_outside_heads_have_edges_once_they_are_added() -> None:
    circuit = tiny_circuit()
    extra = outside_heads(circuit, TINY)
    assert len(extra) + len(circuit.sites) == 3 * TINY.n_layers * TINY.n_heads
    newcomer = ("A", Head(0, 3))
    assert circuit_graph(circuit, TINY, extra=extra).degree(newcomer) == 0
    graph = circuit_graph(circuit, TINY, extra=extra, added=[newcomer])
    assert list(graph.successors(newcomer)) == [LOGITS]
    assert not graph.nodes[newcomer]["in_circuit"]


def test_a_head_outside_the_model_is_refused() -> None:
    with pytest.raises(UserError, match=r"L9\.0"):
        circuit_graph(Circuit.of(ENTITY_TRACKING, {"A": (Head(9, 0),)}), TINY)
