"""Charts of attention: a head's pattern, attention by role, and accuracy with attention cut.

Transparent, large text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from itertools import cycle
from textwrap import wrap

import altair as alt
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from backend.core.statistics import Estimate
from backend.tasks.attention_edges import RANDOM, AttentionEdge
from backend.tasks.task import Task
from circuitviz.bare import bare
from circuitviz.palette import INK, colours
from circuitviz.specification import drawn_once

LOOK = (0, 114, 178)
_FAINT = 0.05
_AXIS = {"labelFontSize": 14, "titleFontSize": 15}
_MODELS = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7")
_OTHER_EDGES = ("#CC79A7", "#56B4E9", "#E69F00", "#AA4499")
_CONTROLS = ("#9AA3B2", "#6B7280")
_ROW = 15
"""Pixels of a bar."""
_LABEL_LINE = 14


@drawn_once
def pattern_matrix(
    weights: NDArray[np.floating], words: Sequence[str], chosen: int
) -> alt.LayerChart:
    """Attention weights [seq, seq] of one head: from each row's token to those that it sees.

    The row of the `chosen` token has a frame. A click on a row is the selection “row”.
    """
    n = len(words)
    frame = pd.DataFrame(
        [
            {
                "query": query,
                "key": key,
                "weight": float(weights[query, key]),
                "from": words[query],
                "to": words[key],
            }
            for query in range(n)
            for key in range(query + 1)
        ]
    )
    axis = {
        "labelFontSize": 11 if n > 30 else 14,
        "titleFontSize": 14,
        "ticks": False,
        "domain": False,
        "labelExpr": f"{json.dumps([*words])}[datum.value]",
        "labelOverlap": False,
        "labelFlush": False,
    }
    cells = alt.Chart(frame).encode(
        x=alt.X("key:O", title="attended to").axis(**axis, orient="bottom", labelAngle=-90),
        y=alt.Y("query:O", title="from").axis(**axis),
        tooltip=[
            alt.Tooltip("from:N"),
            alt.Tooltip("to:N"),
            alt.Tooltip("weight:Q", format=".3f"),
        ],
    )
    squares = (
        cells.mark_rect(cursor="pointer")
        .encode(
            color=alt.Color(
                "weight:Q",
                scale=alt.Scale(
                    domain=[0, 1], range=[_rgba(_FAINT), _rgba(1)], interpolate="rgb", type="sqrt"
                ),
                legend=None,
            )
        )
        .add_params(alt.selection_point("row", fields=["query"]))
    )
    row = cells.transform_filter(f"datum.query == {int(chosen)}").mark_rect(
        filled=False, fillOpacity=0, aria=False, stroke="#E69F00", strokeWidth=1.5
    )
    return bare(alt.layer(squares, row), 90 + (11 if n > 30 else 20) * n)


@drawn_once
def role_bars(
    heads: Mapping[str, Mapping[str, Sequence[Estimate]]], targets: Sequence[str]
) -> alt.LayerChart:
    """Mean attention of heads to each target: a column for each, a row for each head.

    heads: by head and by model, an estimate for each of the targets. One bar per model, with its
    interval; a column is as wide as all of a head's attention.
    """
    models = [*dict.fromkeys(model for of_head in heads.values() for model in of_head)]
    frame = pd.DataFrame(
        [
            {
                "head": head,
                "model": model,
                "target": target,
                "left": column,
                "right": column + 0.9 * each.value,
                "low": column + 0.9 * each.low,
                "high": column + 0.9 * each.high,
                "said": f"{each.value:.3f}, 95 %: {each.low:.3f} to {each.high:.3f}",
                "n": each.n,
            }
            for head, of_head in heads.items()
            for model, estimates in of_head.items()
            for column, (target, each) in enumerate(zip(targets, estimates, strict=True))
        ]
    )
    labels = [wrap(target, 15) for target in targets]
    below = _LABEL_LINE * (max(map(len, labels)) - 1)
    axis = alt.Axis(
        orient="top",
        values=[*range(len(targets))],
        labelExpr=f"{json.dumps(labels)}[datum.value]",
        labelAlign="left",
        labelFontSize=13,
        labelOverlap=False,
        labelLimit=150,
        labelPadding=2 + below,
        gridOpacity=0.35,
        ticks=False,
        domain=False,
    )
    scale = alt.Scale(domain=[0, len(targets)], nice=False)
    bars = alt.Chart(frame).encode(
        y=alt.Y("head:N", title=None, sort=[*heads], scale=alt.Scale(paddingInner=0.3)).axis(
            labelFontSize=14, ticks=False, domain=False
        ),
        yOffset=alt.YOffset("model:N", sort=models),
        tooltip=[
            alt.Tooltip("head:N"),
            alt.Tooltip("model:N"),
            alt.Tooltip("target:N", title="attends to"),
            alt.Tooltip("said:N", title="mean attention"),
            alt.Tooltip("n:Q", title="prompts"),
        ],
    )
    legend = alt.Legend(orient="top", labelFontSize=14, symbolType="square", labelLimit=300)
    marks = bars.mark_bar(cornerRadiusEnd=2).encode(
        x=alt.X("left:Q", title=None, scale=scale, axis=axis),
        x2=alt.X2("right:Q"),
        color=alt.Color(
            "model:N",
            title=None,
            scale=alt.Scale(domain=models, range=[*_MODELS[: len(models)]]),
            legend=legend if len(models) > 1 else None,
        ),
    )
    whiskers = bars.mark_rule(strokeWidth=1.3, color=INK).encode(
        x=alt.X("low:Q", scale=scale, title=None, axis=axis), x2=alt.X2("high:Q")
    )
    height = len(heads) * (_ROW * len(models) + 8) + (96 if len(models) > 1 else 56) + below
    return bare(alt.layer(marks, whiskers), height)


def edge_looks(task: Task, edges: Sequence[AttentionEdge]) -> dict[AttentionEdge, str]:
    """A colour for each edge: those of groups for the task's own, greys for random keys."""
    of_groups, others, greys = (
        cycle(each) for each in ([*colours(task).values()][:3], _OTHER_EDGES, _CONTROLS)
    )
    own = {edge: next(of_groups) for edge in task.edges if edge.key != RANDOM}

    def look(edge: AttentionEdge) -> str:
        return next(greys) if edge.key == RANDOM else own.get(edge) or next(others)

    return {edge: look(edge) for edge in edges}


def legend_html(looks: Mapping[str, str], dashed: str = "") -> str:
    """What the colours of lines mean, and whose are dashed, as HTML that the page styles."""
    lines = [
        f'<span style="--line: {colour}">{escape(words)}</span>' for words, colour in looks.items()
    ]
    if dashed:
        lines.append(f'<span class="dashed">{escape(dashed)}</span>')
    return f'<div class="line-legend">{"".join(lines)}</div>'


@drawn_once
def knockout_curves(
    curves: pd.DataFrame,
    looks: Mapping[str, str],
    measure: str,
    by_depth: bool = False,
) -> alt.LayerChart:
    """A line against the first layer that is cut, for each edge, with a band for its interval.

    `curves` has ``edge``, ``layer``, ``depth`` (the layer as a share of all), ``value``, ``low``,
    ``high``, ``n``, ``clear`` and ``of`` per row; those ``of`` the paper are dashed and have no
    band. A full point differs clearly from nothing cut. With `by_depth`, layers of models of other
    depths lie above each other.
    """
    lowest, highest = float(curves["low"].min()), float(curves["high"].max())
    scale = alt.Scale(domain=[0, 1] if lowest >= 0 and highest <= 1 else [lowest, highest])
    ours = "datum.of == 'measured here'"
    layers = [*range(int(curves.loc[curves["of"] == "measured here", "layer"].max()) + 1)]
    x = (
        alt.X("depth:Q", title="first layer of the cut, as a share of all layers").axis(
            **_AXIS, grid=False, format=".0%", tickCount=5
        )
        if by_depth
        else alt.X(
            "layer:Q",
            title="first layer of the cut (0 is the lowest)",
            scale=alt.Scale(domain=[0, max(layers[-1], 1)], nice=False),
        ).axis(**_AXIS, grid=False, values=layers, format="d", labelOverlap=True)
    )
    colour = alt.Color(
        "edge:N", title=None, scale=alt.Scale(domain=[*looks], range=[*looks.values()]), legend=None
    )
    lines = alt.Chart(curves).encode(
        x=x,
        color=colour,
        tooltip=[
            alt.Tooltip("edge:N", title="cut"),
            alt.Tooltip("layer:Q", title="from layer"),
            alt.Tooltip("value:Q", title=measure, format=".3f"),
            alt.Tooltip("low:Q", format=".3f"),
            alt.Tooltip("high:Q", format=".3f"),
            alt.Tooltip("of:N", title="whose"),
            alt.Tooltip("n:Q", title="prompts"),
        ],
    )
    y = alt.Y("value:Q", title=measure, scale=scale).axis(**_AXIS, gridOpacity=0.25, tickCount=5)
    band = (
        lines.transform_filter(ours)
        .mark_area(opacity=0.16)
        .encode(y=alt.Y("low:Q", title=measure, scale=scale), y2=alt.Y2("high:Q"))
    )
    drawn = lines.mark_line(strokeWidth=3).encode(
        y=y,
        strokeDash=alt.StrokeDash(
            "of:N",
            title=None,
            scale=alt.Scale(domain=["measured here", "the paper"], range=[[1, 0], [5, 5]]),
            legend=None,
        ),
    )
    points = (
        lines.transform_filter(ours)
        .mark_point(size=70, opacity=1, strokeWidth=2)
        .encode(y=y, fill=alt.condition("datum.clear", colour, alt.value("transparent")))
    )
    return bare(alt.layer(band, drawn, points), 360)


def _rgba(opacity: float) -> str:
    return f"rgba({LOOK[0]},{LOOK[1]},{LOOK[2]},{opacity})"
