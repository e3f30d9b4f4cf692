"""Charts of the paper's figures, and of the same quantities measured here.

Transparent, large text.
"""

from __future__ import annotations

from collections.abc import Mapping

import altair as alt
import pandas as pd

from backend.circuit import READING_ORDER
from backend.measures import Estimate
from circuitviz.model_charts import CIRCUIT, RANDOM, WHOLE, bar_row, grouped_bars
from circuitviz.palette import COLOURS

Figures = Mapping[str, Mapping[str, Estimate]]
"""Accuracies by model, or by what else stands along the axis, then by kind of bar."""

_ACCURACIES = {"full model": WHOLE, "circuit": CIRCUIT, "random circuits": RANDOM}
_SETS = {
    "none": WHOLE,
    **{group.name: COLOURS[group] for group in READING_ORDER},
    "all": CIRCUIT,
}
_DESIDERATA = {"object": "#E69F00", "position": "#56B4E9", "label": WHOLE}
_EDGE_COLOURS = ("#D55E00", "#0072B2", "#009E73", "#9AA3B2", "#9AA3B2")
_EDGE_DASHES = ([1, 0], [8, 4], [2, 3], [1, 0], [8, 4])
_LINE_HEIGHT = 380
_N_LAYERS = 32


def accuracy_bars(figures: Figures) -> alt.LayerChart:
    """For each model the accuracy of the “full model”, the “circuit” and “random circuits”."""
    return grouped_bars(_rows(figures), _known(_ACCURACIES, figures))


def transplant_bars(figures: Figures) -> alt.LayerChart:
    """For each source the target's accuracy with “none” of its heads, a group's, and “all”."""
    letters = {name: name for name in _SETS}
    return grouped_bars(_rows(figures), _SETS, letters, "heads transplanted")


def desiderata_bars(figures: Figures) -> alt.LayerChart:
    """For each group the share that gives the answer expected by “object” and the others."""
    return grouped_bars(_rows(figures), _known(_DESIDERATA, figures), None, "desideratum")


def knockout_lines(edges: Mapping[str, Mapping[int, float]]) -> alt.LayerChart:
    """Accuracy against the first layer of the cut, a line for each attention edge.

    Edges come in words: three, in the colours of the groups A, B and C that attend along them, then
    two controls in grey.
    """
    frame = pd.DataFrame(
        [
            {"edge": edge, "layer": layer, "accuracy": accuracy}
            for edge, at in edges.items()
            for layer, accuracy in at.items()
        ]
    )
    axis = {"labelFontSize": 14, "titleFontSize": 15}
    lines = alt.Chart(frame).encode(
        x=alt.X(
            "layer:Q",
            title="first layer of the cut (1 is the lowest)",
            scale=alt.Scale(domain=[1, _N_LAYERS], nice=False),
        ).axis(**axis, grid=False, values=[1, 4, 8, 12, 16, 20, 24, 28, 32]),
        y=alt.Y("accuracy:Q", title="accuracy", scale=alt.Scale(domain=[0, 0.8])).axis(
            **axis, gridOpacity=0.25, tickCount=5
        ),
        tooltip=[
            alt.Tooltip("edge:N", title="cut"),
            alt.Tooltip("layer:Q", title="from layer"),
            alt.Tooltip("accuracy:Q", format=".2f"),
        ],
    )
    names = list(edges)
    legend = alt.Legend(
        orient="top",
        title=None,
        labelFontSize=15,
        labelLimit=420,
        columns=3,
        symbolType="stroke",
        symbolSize=900,
        symbolStrokeWidth=3,
    )
    colour = alt.Color(
        "edge:N", scale=alt.Scale(domain=names, range=list(_EDGE_COLOURS)), legend=legend
    )
    dash = alt.StrokeDash(
        "edge:N", scale=alt.Scale(domain=names, range=list(_EDGE_DASHES)), legend=legend
    )
    drawn = lines.mark_line(strokeWidth=3).encode(color=colour, strokeDash=dash)
    points = lines.mark_point(filled=True, size=45, opacity=1).encode(color=colour)
    chart = alt.layer(drawn, points).properties(height=_LINE_HEIGHT)
    done: alt.LayerChart = chart.configure(background="transparent").configure_view(stroke=None)
    return done


def _rows(figures: Figures) -> list[dict[str, object]]:
    return [
        bar_row(name, kind, estimate)
        for name, kinds in figures.items()
        for kind, estimate in kinds.items()
    ]


def _known(looks: Mapping[str, str], figures: Figures) -> dict[str, str]:
    """The looks of the kinds that there are: no room is left for others."""
    kinds = {kind for of in figures.values() for kind in of}
    return {kind: look for kind, look in looks.items() if kind in kinds}
