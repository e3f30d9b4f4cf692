"""Charts of logits: what each part of a model writes, how deep the answer is read, what is copied.

Transparent, large text.
"""

from __future__ import annotations

from collections.abc import Mapping

import altair as alt
import pandas as pd

from circuitviz.bare import bare, value_if
from circuitviz.charts import BEFORE, RIGHT
from circuitviz.palette import HELPS, HINDERS, INK
from circuitviz.specification import drawn_once

FAINT = 0.07
"""Opacity at zero: colours fade into the page, be it light or dark."""
OTHERS = "#8A93A3"
MINUS = "\N{MINUS SIGN}"
_UNCLEAR = 0.3
_ROOM_FOR_NUMBERS = 12
"""With more columns, a number is wider than its cell."""
_ROW_HEIGHT = (12, 40)
_LENS_HEIGHT = 150
_COPYING_HEIGHT = 250


@drawn_once
def contribution_map(cells: pd.DataFrame, largest: float) -> alt.LayerChart:
    """Layers upward, heads and what else writes to the right; nothing is the page’s colour.

    ``cells`` has ``column``, ``layer``, ``name``, ``value``, ``figure`` and ``clear`` per row, and
    ``frame``, the colour of its group or nothing; columns keep their order. The strongest colour is
    ``largest`` up or down; what is not clear is pale and without a number.
    """
    columns = list(dict.fromkeys(cells["column"]))
    shown = cells.copy()
    numbers = shown["value"].map(lambda value: f"{value:+.1f}".replace("-", MINUS))
    shown["text"] = numbers.where(shown["clear"] & (shown["value"].abs() >= 0.05), "")
    shown["strong"] = shown["value"].abs() > 0.6 * largest
    axis = {"labelFontSize": 13, "titleFontSize": 14, "ticks": False, "domain": False}
    squares = alt.Chart(shown).encode(
        x=alt.X("column:O", title=None, sort=columns).axis(
            **axis, labelAngle=0, labelOverlap=True, labelPadding=6
        ),
        y=alt.Y("layer:O", title="Layer", sort="descending").axis(
            **axis, titlePadding=6, labelOverlap=True
        ),
        tooltip=[
            alt.Tooltip("name:N", title="part"),
            alt.Tooltip("figure:N", title="adds, in logits"),
            alt.Tooltip("group:N", title="circuit"),
        ],
    )
    nothing = 1e-6 * largest
    colour = alt.Color(
        "value:Q",
        scale=alt.Scale(
            domain=[-largest, -nothing, nothing, largest],
            range=[HINDERS, _faint(HINDERS), _faint(HELPS), HELPS],
            interpolate="rgb",
            clamp=True,
        ),
        legend=None,
    )
    marks = squares.mark_rect(cornerRadius=2).encode(
        color=colour, opacity=value_if(alt.OpacityValue, "datum.clear", 1.0, _UNCLEAR)
    )
    frames = (
        squares.transform_filter("datum.frame != ''")
        .mark_rect(cornerRadius=2, filled=False, fillOpacity=0, aria=False, strokeWidth=3)
        .encode(stroke=alt.Stroke("frame:N", scale=None))
    )
    layers = [marks, frames]
    if len(columns) <= _ROOM_FOR_NUMBERS:
        figures = squares.mark_text(fontSize=12).encode(
            text=alt.Text("text:N"),
            color=value_if(alt.ColorValue, "datum.strong", "#FFFFFF", INK),
        )
        layers.append(figures)
    n_layers, (low, high) = shown["layer"].nunique(), _ROW_HEIGHT
    return bare(alt.layer(*layers), min(max(200 / n_layers, low), high) * n_layers + 36)


@drawn_once
def lens_chart(read: pd.DataFrame, measure: str, is_rank: bool) -> alt.LayerChart:
    """Lines by layer of the right answer and of its competitors, with bands; 1 on top of ranks.

    ``read`` has ``depth``, ``after``, ``which``, ``value``, ``low``, ``high`` and ``n`` per row; a
    share has a line at chance, the rows with ``which`` “chance”.
    """
    depths = list(dict.fromkeys(read["after"]))
    scale = (
        alt.Scale(type="log", reverse=True, nice=False)
        if is_rank
        else alt.Scale(domain=[0, 1], nice=False)
    )
    axis = {"labelFontSize": 13, "titleFontSize": 14}
    lines = alt.Chart(read.query("which != 'chance'")).encode(
        x=alt.X("after:O", sort=depths, title=None).axis(
            **axis, labelAngle=0, labelOverlap=True, ticks=False
        ),
        color=alt.Color(
            "which:N",
            title=None,
            scale=alt.Scale(domain=["right answer", "a competitor"], range=[RIGHT, BEFORE]),
            legend=alt.Legend(orient="top", labelFontSize=14, symbolOpacity=1),
        ),
        tooltip=[
            alt.Tooltip("which:N"),
            alt.Tooltip("after:N", title="layer"),
            *(
                alt.Tooltip(f"{name}:Q", title=title, format=".3~g")
                for name, title in (("value", measure), ("low", "95 % from"), ("high", "to"))
            ),
            alt.Tooltip("n:Q", title="prompts"),
        ],
    )
    y = alt.Y("value:Q", title=measure, scale=scale).axis(**axis, tickCount=3, gridOpacity=0.25)
    band = lines.mark_area(opacity=0.25).encode(y=alt.Y("low:Q", scale=scale), y2=alt.Y2("high:Q"))
    line = lines.mark_line(strokeWidth=2.5, point=alt.OverlayMarkDef(size=45)).encode(y=y)
    chance = (
        alt.Chart(read.query("which == 'chance'"))
        .mark_line(color=INK, strokeDash=[5, 4], strokeWidth=1.2)
        .encode(x=alt.X("after:O", sort=depths), y=alt.Y("value:Q", scale=scale))
    )
    return bare(alt.layer(band, line, chance), _LENS_HEIGHT + 64)


@drawn_once
def copying_chart(heads: pd.DataFrame, lines: Mapping[str, float]) -> alt.LayerChart:
    """A bar for each head with its interval, coloured by group, and dashed lines by their names.

    ``heads`` has ``name``, ``value``, ``low``, ``high``, ``n``, ``group`` and ``colour`` per row;
    the order of the rows is kept.
    """
    names = list(heads["name"])
    bars = alt.Chart(heads).encode(
        x=alt.X("name:N", sort=names, title=None).axis(
            labelFontSize=12, labelAngle=-90, ticks=False, domain=False, labelOverlap=False
        ),
        tooltip=[
            alt.Tooltip("name:N", title="head"),
            alt.Tooltip("group:N", title="circuit"),
            *(alt.Tooltip(f"{name}:Q", format=".3f") for name in ("value", "low", "high")),
            alt.Tooltip("n:Q", title="words"),
        ],
    )
    scale = alt.Scale(domain=[0, 1], nice=False)
    y = alt.Y("value:Q", title="share of words", scale=scale).axis(
        labelFontSize=13, titleFontSize=14, tickCount=5, gridOpacity=0.25
    )
    marks = bars.mark_bar(cornerRadiusEnd=2).encode(y=y, color=alt.Color("colour:N", scale=None))
    whiskers = bars.mark_rule(color=INK, strokeWidth=1.4).encode(
        y=alt.Y("low:Q", scale=scale), y2=alt.Y2("high:Q")
    )
    levels = pd.DataFrame({"line": [*lines], "value": [*lines.values()]})
    rules = alt.Chart(levels).encode(y=alt.Y("value:Q", scale=scale))
    dashes = rules.mark_rule(color=INK, strokeDash=[5, 4], strokeWidth=1.4)
    words = rules.mark_text(align="left", dx=6, fontSize=13, color=INK).encode(
        x=alt.value("width"), text=alt.Text("line:N")
    )
    return bare(alt.layer(marks, whiskers, dashes, words), _COPYING_HEIGHT + 50)


def in_logits(value: float, low: float | None = None, high: float | None = None) -> str:
    """“+1.30, 95 %: 1.11 to 1.48”, or the value alone."""
    interval = "" if low is None or high is None else f", 95 %: {low:.2f} to {high:.2f}"
    return f"{value:+.2f}{interval}".replace("-", MINUS)


def _faint(colour: str) -> str:
    return colour.replace("rgb(", "rgba(").replace(")", f",{FAINT})")
