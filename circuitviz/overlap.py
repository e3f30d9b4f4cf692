"""Two circuits in one picture: the heads they share, and those that only one of them has."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import pandas as pd

from backend.core.heads import ModelShape
from backend.tasks.circuit import Circuit
from circuitviz.bare import bare
from circuitviz.graph import LOGITS, circuit_graph
from circuitviz.layout import circuit_layout
from circuitviz.model_charts import CIRCUIT, RANDOM
from circuitviz.palette import INK
from circuitviz.specification import Specification, drawn_once

SHARED, ONLY_SECOND = "#009E73", CIRCUIT
ROW_HEIGHT = 62


def overlap_picture(first: Circuit, second: Circuit, names: tuple[str, str]) -> Specification:
    """The heads of both circuits where they stand: groups from left to right, layers upward."""
    both = Circuit(first.task, first.nodes | second.nodes, "both")
    shape = _smallest_shape(both)
    graph = circuit_graph(both, shape)
    layout = circuit_layout(graph, shape, aspect=1.8)
    whose = {
        (True, True): "in both",
        (True, False): f"only {names[0]}",
        (False, True): f"only {names[1]}",
    }
    nodes = pd.DataFrame(
        [
            {
                "x": layout.positions[key][0],
                "y": layout.positions[key][1],
                "head": str(key[1]),
                "group": f"{key[0]}, {first.task.group(key[0]).name}",
                "whose": whose[key in first.members, key in second.members],
            }
            for key in graph
            if key != LOGITS
        ]
    )
    edges = pd.DataFrame(
        [
            {"x": layout.positions[a][0], "y": layout.positions[a][1]}
            | {"x2": layout.positions[b][0], "y2": layout.positions[b][1]}
            for a, b in graph.edges
            if b != LOGITS
        ],
        columns=["x", "y", "x2", "y2"],
    )
    headings = pd.DataFrame(
        [
            {
                "x": (column.left + column.right) / 2,
                "y": layout.height + 0.3,
                "text": f"{column.group}\n{first.task.group(column.group).name}",
            }
            for column in layout.columns
        ]
    )
    layers = pd.DataFrame(
        [
            {"x": -0.9, "y": (row.bottom + row.top) / 2, "text": f"L{row.layer}"}
            for row in layout.rows
            if not row.empty
        ]
    )
    size = layout.columns[-1].right, layout.height
    return _picture(nodes, edges, headings, layers, list(whose.values()), size)


@drawn_once
def _picture(
    nodes: pd.DataFrame,
    edges: pd.DataFrame,
    headings: pd.DataFrame,
    layers: pd.DataFrame,
    whose: Sequence[str],
    size: tuple[float, float],
) -> alt.LayerChart:
    width, height = size
    across = alt.X("x:Q", scale=alt.Scale(domain=[-1.3, width + 0.6])).axis(None)
    up = alt.Y("y:Q", scale=alt.Scale(domain=[-0.2, height + 1])).axis(None)
    heads = alt.Chart(nodes).encode(across, up)
    look = alt.Legend(orient="top", title=None, labelFontSize=15, symbolSize=160, labelLimit=320)
    picture = alt.layer(
        alt.Chart(edges).mark_rule(color=INK, opacity=0.3).encode(across, up, x2="x2", y2="y2"),
        heads.mark_point(filled=True, size=420, opacity=1).encode(
            color=alt.Color(
                "whose:N",
                scale=alt.Scale(domain=whose, range=[SHARED, RANDOM, ONLY_SECOND]),
                legend=look,
            ),
            shape=alt.Shape(
                "whose:N",
                scale=alt.Scale(domain=whose, range=["circle", "square", "triangle-up"]),
                legend=look,
            ),
            tooltip=["head:N", "group:N", alt.Tooltip("whose:N", title="found")],
        ),
        heads.mark_text(dy=21, fontSize=13, color=INK, fontWeight=600).encode(
            text=alt.Text("head:N")
        ),
        alt.Chart(headings)
        .mark_text(fontSize=14, color=INK, fontWeight=600, lineBreak="\n", baseline="bottom")
        .encode(across, up, text=alt.Text("text:N")),
        alt.Chart(layers)
        .mark_text(fontSize=14, color=INK)
        .encode(across, up, text=alt.Text("text:N")),
    )
    return bare(picture, max(300, ROW_HEIGHT * (height + 1.5)))


def _smallest_shape(circuit: Circuit) -> ModelShape:
    """The smallest model that has all these heads: where they stand needs no more."""
    heads = [head for _, head in circuit.members]
    n_layers = 1 + max((head.layer for head in heads), default=0)
    n_heads = 1 + max((head.index for head in heads), default=0)
    return ModelShape(n_layers, n_heads, n_heads, 1)
