"""Charts of discovery: where the scores are, what each head adds, what the circuit lacks."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import altair as alt
import pandas as pd

from backend.core.heads import Head
from circuitviz.bare import bare, value_if
from circuitviz.palette import HELPS, HINDERS, INK
from circuitviz.specification import drawn_once

FAINT = 0.07
"""Opacity at zero: colours fade into the page, be it light or dark."""
OUTSIDE = "#8A93A3"

_LABELLED = 10
_WIDE_MODEL = 16
"""With more heads in a layer, a name is wider than its cell."""
_ROOM_FOR_NAMES = 50
"""With more bars side by side, their names stand upright."""
_ROW_HEIGHT = (12, 40)
_PLOT_HEIGHT = 170
_AXIS_HEIGHT = 44
_GAIN_TICKS = (-0.3, -0.1, -0.03, 0, 0.03, 0.1, 0.3, 1, 3, 10)


def score_frame(scores: Sequence[Sequence[float]], kept: Collection[Head]) -> pd.DataFrame:
    """A row per head of `score_map`; scores are [n_layers][n_heads]."""
    return pd.DataFrame(
        [
            {
                "layer": layer,
                "head": index,
                "name": str(Head(layer, index)),
                "score": score,
                "kept": Head(layer, index) in kept,
            }
            for layer, row in enumerate(scores)
            for index, score in enumerate(row)
        ]
    )


@drawn_once
def score_map(scores: pd.DataFrame, *, faded: bool = False, named: bool = True) -> alt.LayerChart:
    """Layers upward, heads to the right, colours centred at zero; kept heads have a frame.

    ``scores`` has a row per head: ``layer``, ``head``, ``name``, ``score``, ``kept`` and, where
    they are known, ``standard_error``, the number of prompts ``n`` and whether the score is
    ``clear``. A chart of scores that are old or noise is ``faded``; if it is ``named``, the
    strongest heads have their names.
    """
    shown = scores.copy()
    largest = float(shown["score"].abs().max()) or 1.0
    nothing = 1e-6 * largest
    shown["figure"] = [f"{score:+.4f}".replace("-", "\N{MINUS SIGN}") for score in shown["score"]]
    figure = "score"
    if "standard_error" in shown:
        shown["figure"] += shown["standard_error"].map(" ± {:.4f}".format)
        figure = "score ± standard error"
        shown["z"] = _z(shown)
    shown["label"] = _labels(shown)
    shown["strong"] = not faded and shown["score"].abs() > 0.6 * largest
    n_layers, n_heads = shown["layer"].nunique(), shown["head"].nunique()
    axis = {
        "labelFontSize": 13,
        "titleFontSize": 14,
        "titlePadding": 4,
        "ticks": False,
        "domain": False,
    }
    cells = alt.Chart(shown).encode(
        x=alt.X("head:O", title="Head").axis(**axis, labelAngle=0, labelOverlap=True),
        y=alt.Y("layer:O", title="Layer", sort="descending").axis(**axis, labelOverlap=True),
        tooltip=[
            alt.Tooltip("name:N", title="head"),
            alt.Tooltip("figure:N", title=figure),
            *(alt.Tooltip(f"{name}:N") for name in ("z", "n", "clear", "kept") if name in shown),
        ],
    )
    colour = alt.Color(
        "score:Q",
        scale=alt.Scale(
            domain=[-largest, -nothing, nothing, largest],
            range=[HELPS, _faint(HELPS), _faint(HINDERS), HINDERS],
            interpolate="rgb",
        ),
        legend=alt.Legend(
            title=None, format="+.2~g", labelFontSize=13, gradientThickness=10, tickCount=5
        ),
    )
    squares = cells.mark_rect(cornerRadius=2, opacity=0.4 if faded else 1).encode(color=colour)
    kept = cells.transform_filter("datum.kept")
    frames = kept.mark_rect(
        cornerRadius=2, filled=False, fillOpacity=0, aria=False, stroke=INK, strokeWidth=2
    )
    names = (
        cells.transform_filter("datum.label != ''")
        .mark_text(fontSize=14 if n_heads <= _WIDE_MODEL else 11, fontWeight=600)
        .encode(
            text=alt.Text("label:N"),
            color=value_if(alt.ColorValue, "datum.strong", "#FFFFFF", INK),
        )
    )
    low, high = _ROW_HEIGHT
    rows = min(max(_PLOT_HEIGHT / max(n_layers, 1), low), high) * n_layers
    layers = [squares, frames, names] if named else [squares, frames]
    return bare(alt.layer(*layers), rows + _AXIS_HEIGHT)


@drawn_once
def contribution_bars(heads: pd.DataFrame, least: float) -> alt.LayerChart:
    """One bar per head of what it adds, with its interval, and a line where minimal heads begin.

    ``heads`` has ``name``, ``gain`` with its ``low`` and ``high``, accuracies ``before`` and
    ``after``, ``removed``, ``minimal`` and ``colour`` per row; the order of the rows is kept.
    Small gains take much of the height, as it is there that the line runs.
    """
    is_long = len(heads) > _ROOM_FOR_NAMES
    bars = alt.Chart(heads).encode(
        x=alt.X("name:N", sort=list(heads["name"]), title=None).axis(
            labelFontSize=11 if is_long else 13,
            labelAngle=-90 if is_long else -60,
            ticks=False,
            domain=False,
            labelOverlap=False,
        ),
        tooltip=[
            alt.Tooltip("name:N", title="head"),
            alt.Tooltip("gain:Q", title="adds", format="+.1%"),
            alt.Tooltip("before:Q", title="accuracy without K", format=".3f"),
            alt.Tooltip("after:Q", title="accuracy without K and the head", format=".3f"),
            alt.Tooltip("removed:N", title="K"),
        ],
    )
    gain = alt.Y("gain:Q", title="adds", scale=alt.Scale(type="symlog", constant=0.02)).axis(
        format="+.0%", labelFontSize=13, titleFontSize=14, values=_GAIN_TICKS
    )
    marks = bars.mark_bar(cornerRadiusEnd=3).encode(
        y=gain,
        color=alt.Color("colour:N", scale=None),
        opacity=value_if(alt.OpacityValue, "datum.minimal", 1.0, 0.3),
    )
    whiskers = bars.mark_rule(color=INK, strokeWidth=1.4).encode(
        y=alt.Y("low:Q"), y2=alt.Y2("high:Q")
    )
    line = (
        alt.Chart(pd.DataFrame({"least": [least]}))
        .mark_rule(color=INK, strokeDash=[5, 4])
        .encode(y=alt.Y("least:Q"))
    )
    return bare(alt.layer(marks, whiskers, line), 320)


@drawn_once
def completeness_scatter(removals: pd.DataFrame) -> alt.LayerChart:
    """Circuit against model, each without the same heads; on the diagonal they agree.

    ``removals`` has ``name``, ``kind`` (the group, or "random"), ``circuit``, ``model`` with their
    ``_low`` and ``_high``, ``n_removed`` and ``colour`` per row.
    """
    scale = alt.Scale(domain=[0, 1])
    axis = {"labelFontSize": 13, "titleFontSize": 14, "tickCount": 5, "format": ".1f"}
    points = alt.Chart(removals).encode(
        x=alt.X("model:Q", scale=scale, title="accuracy of the model without K").axis(**axis),
        y=alt.Y("circuit:Q", scale=scale, title="accuracy of the circuit without K").axis(**axis),
        tooltip=[
            alt.Tooltip("name:N", title="K"),
            alt.Tooltip("n_removed:Q", title="heads"),
            alt.Tooltip("circuit:Q", format=".3f"),
            alt.Tooltip("model:Q", format=".3f"),
        ],
    )
    diagonal = (
        alt.Chart(pd.DataFrame({"model": [0, 1], "circuit": [0, 1]}))
        .mark_line(color=OUTSIDE, strokeDash=[6, 5])
        .encode(x=alt.X("model:Q"), y=alt.Y("circuit:Q"))
    )
    colour = alt.Color("colour:N", scale=None)
    across = points.mark_rule(opacity=0.45).encode(
        x=alt.X("model_low:Q"), x2=alt.X2("model_high:Q"), color=colour
    )
    up = points.mark_rule(opacity=0.45).encode(
        y=alt.Y("circuit_low:Q"), y2=alt.Y2("circuit_high:Q"), color=colour
    )
    dots = points.mark_point(filled=True, size=110, opacity=0.95).encode(color=colour)
    letters = (
        points.transform_filter("datum.kind != 'random'")
        .mark_text(dx=13, dy=-9, fontSize=17, fontWeight=700, color=INK)
        .encode(text=alt.Text("kind:N"))
    )
    return bare(alt.layer(diagonal, across, up, dots, letters), 380)


def _labels(shown: pd.DataFrame) -> list[str]:
    """The names of the strongest heads and of those kept; in a wide model of fewer."""
    most = _LABELLED if shown["head"].nunique() <= _WIDE_MODEL else _LABELLED // 2
    strongest = shown["score"].abs().nlargest(most)
    threshold = max(float(strongest.min()), 0.05 * float(strongest.max()))
    is_strong = (shown["score"].abs() >= threshold) & (shown["score"] != 0)
    is_shown = is_strong | (shown["kept"] & (most == _LABELLED))
    return [name if yes else "" for name, yes in zip(shown["name"], is_shown, strict=True)]


def _z(shown: pd.DataFrame) -> list[str]:
    """Scores in standard errors, in words; nothing of a head without an error."""
    return [
        f"{score / error:+.1f}".replace("-", "\N{MINUS SIGN}") if error > 0 else "–"
        for score, error in zip(shown["score"], shown["standard_error"], strict=True)
    ]


def _faint(colour: str) -> str:
    return colour.replace("rgb(", "rgba(").replace(")", f",{FAINT})")
