"""Layouts: nothing overlaps, layers go upward, groups go to the right."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings

from backend.core.heads import ModelShape
from backend.tasks.circuit import Circuit
from circuitviz.graph import LOGITS, circuit_graph, outside_heads
from circuitviz.layout import Layout, circuit_layout
from tests.circuitviz.samples import LLAMA, TINY, published, published_names, tiny_circuit
from tests.circuitviz.strategies import circuits

CLOSE = 1 - 1e-9


def layout_of(circuit: Circuit, shape: ModelShape) -> Layout:
    return circuit_layout(circuit_graph(circuit, shape), shape)


def overlaps(positions: Iterable[tuple[float, float]]) -> list[object]:
    """Pairs of nodes that are closer than a slot and a row."""
    return [
        pair
        for pair in combinations(positions, 2)
        if abs(pair[0][0] - pair[1][0]) < CLOSE and abs(pair[0][1] - pair[1][1]) < CLOSE
    ]


def heads_of(layout: Layout) -> list[tuple[float, float]]:
    return [position for node, position in layout.positions.items() if node != LOGITS]


@given(circuits())
@settings(deadline=None, max_examples=40)
def test_heads_never_overlap(drawn: tuple[Circuit, ModelShape]) -> None:
    assert overlaps(heads_of(layout_of(*drawn))) == []


@pytest.mark.parametrize("name", published_names())
def test_published_heads_never_overlap(name: str) -> None:
    layout = layout_of(published(name), LLAMA)
    assert overlaps(heads_of(layout)) == []
    assert len(heads_of(layout)) == len(published(name).members)


def test_all_heads_at_once_never_overlap_and_stand_at_their_index() -> None:
    circuit = tiny_circuit()
    graph = circuit_graph(circuit, TINY, extra=outside_heads(circuit, TINY))
    layout = circuit_layout(graph, TINY, grid=True)
    assert overlaps(heads_of(layout)) == []
    for column in (layout.columns[0], layout.columns[1], layout.columns[3]):
        for node, (x, _) in layout.positions.items():
            if node != LOGITS and node[0] == column.group:
                assert x == column.left + node[1].index + 0.5


@given(circuits())
@settings(deadline=None, max_examples=40)
def test_heads_stand_in_their_column_and_row(drawn: tuple[Circuit, ModelShape]) -> None:
    layout = layout_of(*drawn)
    columns = {column.group: column for column in layout.columns}
    for node, (x, y) in layout.positions.items():
        if node != LOGITS:
            group, head = node
            assert columns[group].left < x < columns[group].right
            assert layout.rows[head.layer].bottom < y < layout.rows[head.layer].top


@given(circuits())
@settings(deadline=None, max_examples=40)
def test_columns_and_rows_follow_each_other(drawn: tuple[Circuit, ModelShape]) -> None:
    layout = layout_of(*drawn)
    assert [row.layer for row in layout.rows] == list(range(drawn[1].n_layers))
    assert all(a.right < b.left for a, b in pairwise(layout.columns))
    assert all(a.top == b.bottom for a, b in pairwise(layout.rows))
    assert layout.positions[LOGITS] == (layout.width, layout.height)


def test_a_wider_picture_breaks_fewer_lines() -> None:
    graph = circuit_graph(tiny_circuit(), TINY)
    tall, wide = (circuit_layout(graph, TINY, aspect=aspect) for aspect in (0.3, 6))
    assert wide.height < tall.height
