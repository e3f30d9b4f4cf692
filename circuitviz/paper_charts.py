"""Charts of the paper's figures, and of the same quantities measured here.

Transparent, large text.
"""

from __future__ import annotations

from collections.abc import Mapping

import altair as alt
import pandas as pd

from backend.tasks.entity_tracking import ENTITY_TRACKING
from circuitviz.bare import bare
from circuitviz.model_charts import (
    ACCURACY_LOOKS,
    CIRCUIT,
    RANDOM,
    WHOLE,
    Figures,
    grouped_bars,
)
from circuitviz.palette import colours
from circuitviz.specification import Specification, drawn_once

_SETS = {
    "none": WHOLE,
    **{group.key: group.colour for group in ENTITY_TRACKING.reading_order},
    "all": CIRCUIT,
}
_DESIDERATA = {"object": RANDOM, "position": CIRCUIT, "label": WHOLE}
_EDGE_COLOURS = (*(colours(ENTITY_TRACKING)[key] for key in ("A", "B", "C")), WHOLE, WHOLE)
_EDGE_DASHES = ([1, 0], [8, 4], [2, 3], [1, 0], [8, 4])
_LINE_HEIGHT = 380
_N_LAYERS = 32


def accuracy_bars(figures: Figures) -> Specification:
    """For each model the accuracy of the “full model” and of the “circuit”."""
    return grouped_bars(figures, ACCURACY_LOOKS)


def transplant_bars(figures: Figures) -> Specification:
    """For each source the target's accuracy with “none” of its heads, a group's, and “all”."""
    letters = {name: name for name in _SETS}
    return grouped_bars(figures, _SETS, letters, "heads transplanted")


def desiderata_bars(figures: Figures) -> Specification:
    """For each group the share that gives the answer expected by “object” and the others."""
    return grouped_bars(figures, _DESIDERATA, kind_title="desideratum")


@drawn_once
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
    return bare(alt.layer(drawn, points), _LINE_HEIGHT)
