"""Where the heads of a circuit go: columns by group, rows by layer, in abstract units."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

import networkx as nx

from backend.core.heads import ModelShape
from backend.tasks.task import Group
from circuitviz.graph import LOGITS, NodeKey

EMPTY_ROW = 0.35
"""Height of a layer without heads, in rows: there to be counted, not to be looked at."""

GUTTER = 0.09
"""Room between two columns for the edges, as a share of all the heads' room."""

NARROWEST_COLUMN = 0.2
"""Least share of the heads' room that a column gets, so that its heading fits."""

LETTER = 0.02
"""Share of the heads' room that a letter of a heading takes."""

WIDEST_SPACING = 1.6
"""Most slots between neighbours, so that few heads in a wide column still read as one group."""

LINE_TO_SLOT = 1.35
"""Height of a head with its name below, over the width of a head with its name."""

Cells = Mapping[tuple[str, int], tuple[NodeKey, ...]]


@dataclass(frozen=True)
class Column:
    """The room of one group, in slots from the left."""

    group: str
    left: float
    right: float


@dataclass(frozen=True)
class Row:
    """The room of one layer, in rows from the bottom."""

    layer: int
    bottom: float
    top: float
    empty: bool


@dataclass(frozen=True)
class Layout:
    """Positions of all nodes, with the columns and rows they stand in."""

    positions: Mapping[NodeKey | str, tuple[float, float]]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    width: float
    height: float


def circuit_layout(
    graph: nx.DiGraph, shape: ModelShape, *, aspect: float = 1.5, grid: bool = False
) -> Layout:
    """Position the heads of a circuit without overlaps.

    Parameters
    ----------
    graph : networkx.DiGraph
        As made by `circuit_graph`.
    shape : ModelShape
        The model's shape; each of its layers gets a row.
    aspect : float
        Width over height of the picture; crowded layers are broken into lines to suit it.
    grid : bool
        Whether to put every head at its index in the columns that show heads outside the circuit.

    Returns
    -------
    Layout
        Any two heads are at least one slot or one row apart. Layers go upward, groups to the
        right as information flows, and the logits stand right of the last on top.

    Examples
    --------
    >>> from backend.core.heads import Head
    >>> from backend.tasks.circuit import Circuit
    >>> from backend.tasks.entity_tracking import ENTITY_TRACKING
    >>> from circuitviz.graph import circuit_graph
    >>> shape = ModelShape(2, 4, 4, 8)
    >>> heads = {"D": (Head(0, 1),), "C": (Head(1, 0), Head(1, 3))}
    >>> circuit = Circuit.of(ENTITY_TRACKING, heads)
    >>> layout = circuit_layout(circuit_graph(circuit, shape), shape)
    >>> layout.positions["D", Head(0, 1)] < layout.positions["C", Head(1, 3)]
    True
    >>> [row.layer for row in layout.rows]
    [0, 1]
    """
    cells, groups = _cells(graph), graph.graph["task"].reading_order
    outside = {key[0] for key in _heads(graph) if not graph.nodes[key]["in_circuit"]}
    grids = outside if grid else set()
    wrap = _best_wrap(cells, groups, grids, shape, aspect)
    rows = _rows(cells, grids, shape, wrap)
    columns = _columns(cells, groups, grids, shape, wrap)
    positions: dict[NodeKey | str, tuple[float, float]] = {}
    for column in columns:
        spacing = _spacing(column, cells, wrap)
        for row in rows:
            heads = cells.get((column.group, row.layer), ())
            if column.group in grids:
                positions.update(_place_at_index(heads, column, row))
            else:
                positions.update(_place_in_lines(heads, column, row, wrap, spacing))
    right, height = columns[-1].right, rows[-1].top
    width = right + (columns[-1].left - columns[-2].right if len(columns) > 1 else GUTTER)
    positions[LOGITS] = (width, height)
    return Layout(positions, columns, rows, width, height)


def _heads(graph: nx.DiGraph) -> Iterator[NodeKey]:
    return (node for node in graph if node != LOGITS)


def _cells(graph: nx.DiGraph) -> Cells:
    cells = defaultdict(list)
    for group, head in _heads(graph):
        cells[group, head.layer].append((group, head))
    return {cell: tuple(sorted(keys, key=lambda key: key[1])) for cell, keys in cells.items()}


def _best_wrap(
    cells: Cells, groups: Sequence[Group], grids: set[str], shape: ModelShape, aspect: float
) -> int:
    """The number of heads per line that leaves each head most room."""
    longest = max((len(keys) for keys in cells.values()), default=1)
    if grids:
        return longest

    def room(wrap: int) -> float:
        width = _columns(cells, groups, grids, shape, wrap)[-1].right
        height = _rows(cells, grids, shape, wrap)[-1].top
        return min(aspect / width, 1 / (height * LINE_TO_SLOT))

    return max(range(longest, 0, -1), key=room)


def _rows(cells: Cells, grids: set[str], shape: ModelShape, wrap: int) -> tuple[Row, ...]:
    rows: list[Row] = []
    bottom = 0.0
    for layer in range(shape.n_layers):
        lines = [
            1 if group in grids else ceil(len(cells[group, layer]) / wrap)
            for group, of in cells
            if of == layer
        ]
        top = bottom + max(lines, default=EMPTY_ROW)
        rows.append(Row(layer, bottom, top, empty=not lines))
        bottom = top
    return tuple(rows)


def _columns(
    cells: Cells, groups: Sequence[Group], grids: set[str], shape: ModelShape, wrap: int
) -> tuple[Column, ...]:
    slots = {
        group.key: shape.n_heads if group.key in grids else _longest_line(group.key, cells, wrap)
        for group in groups
    }
    room = sum(slots.values())
    gutter = GUTTER * room
    columns: list[Column] = []
    left = 0.0
    for group in groups:
        narrowest = room * max(NARROWEST_COLUMN, LETTER * _letters(group.name))
        right = left + max(slots[group.key], narrowest)
        columns.append(Column(group.key, left, right))
        left = right + gutter
    return tuple(columns)


def _letters(name: str) -> int:
    """In the longer line of a heading when it is broken into two, as evenly as words allow."""
    words = name.split() or [""]
    breaks = ((" ".join(words[:i]), " ".join(words[i:])) for i in range(len(words)))
    return min(max(map(len, lines)) for lines in breaks)


def _longest_line(group: str, cells: Cells, wrap: int) -> int:
    lengths = [min(wrap, len(keys)) for (owner, _), keys in cells.items() if owner == group]
    return max(lengths, default=1)


def _spacing(column: Column, cells: Cells, wrap: int) -> float:
    room = (column.right - column.left) / _longest_line(column.group, cells, wrap)
    return min(WIDEST_SPACING, room)


def _place_at_index(
    heads: tuple[NodeKey, ...], column: Column, row: Row
) -> Iterator[tuple[NodeKey, tuple[float, float]]]:
    for key in heads:
        yield key, (column.left + key[1].index + 0.5, (row.bottom + row.top) / 2)


def _place_in_lines(
    heads: tuple[NodeKey, ...], column: Column, row: Row, wrap: int, spacing: float
) -> Iterator[tuple[NodeKey, tuple[float, float]]]:
    n_lines = max(1, ceil(len(heads) / wrap))
    per_line = ceil(len(heads) / n_lines)
    line_height = (row.top - row.bottom) / n_lines
    middle = (column.left + column.right) / 2
    for line in range(n_lines):
        members = heads[line * per_line : (line + 1) * per_line]
        y = row.top - (line + 0.5) * line_height
        for i, key in enumerate(members):
            yield key, (middle + (i - (len(members) - 1) / 2) * spacing, y)
