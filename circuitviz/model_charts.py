"""Charts that compare models: bars with intervals, maps of heads, the overlap of two circuits.

Transparent, large text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from math import isnan
from typing import Any

import altair as alt
import pandas as pd

from backend.core.heads import Head
from backend.core.statistics import Estimate
from backend.methods.cmap import Transplanted
from backend.methods.compare import ModelFigures
from backend.tasks.task import Group, Task
from circuitviz.bare import bare, value_if
from circuitviz.palette import INK
from circuitviz.specification import Specification, drawn_once

WHOLE, CIRCUIT, RANDOM = "#9AA3B2", "#56B4E9", "#E69F00"
"""Grey and two of Okabe and Ito's colours that no group has."""
BAR_HEIGHT = 300
_GROUP_WIDTH = 0.86
"""Of a model's room, what its bars take."""
MINUS = "\N{MINUS SIGN}"
ACCURACY_LOOKS = {"full model": WHOLE, "circuit": CIRCUIT}
Label = Callable[[str], str]
Figures = Mapping[str, Mapping[str, Estimate]]
"""Accuracies by model, or by what else stands along the axis, then by kind of bar."""


def accuracy_chart(
    models: Sequence[ModelFigures], label: Label, measure: str = "accuracy"
) -> Specification:
    """For each model the accuracy of the whole, of the circuit and of random circuits.

    `measure` is what another metric than accuracy is called.
    """
    figures = {
        label(row.name): {
            "full model": row.model,
            "circuit": row.circuit,
            "random circuits": row.random.mean,
        }
        for row in models
    }
    return grouped_bars(figures, ACCURACY_LOOKS | {"random circuits": RANDOM}, measure=measure)


def knockout_chart(
    models: Sequence[ModelFigures],
    task: Task,
    label: Label,
    in_model: bool,
    measure: str = "accuracy",
) -> Specification:
    """For each model what is left without any group and without each: in it or in its circuit."""

    def left(row: ModelFigures, group: Group) -> Estimate:
        found = row.groups[group.key]
        return found.model if in_model else found.circuit

    figures = {
        label(row.name): {
            "intact": row.model if in_model else row.circuit,
            **{f"without {group.key}": left(row, group) for group in task.reading_order},
        }
        for row in models
    }
    order = task.reading_order
    looks = {"intact": WHOLE} | {f"without {group.key}": group.colour for group in order}
    letters = {"intact": "all"} | {f"without {group.key}": group.key for group in order}
    return grouped_bars(figures, looks, letters, measure=measure)


def _row(model: str, kind: str, estimate: Estimate) -> dict[str, object]:
    return {
        "model": model,
        "kind": kind,
        "accuracy": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "n": estimate.n,
        "text": f"{estimate.value:.2f}",
    }


@drawn_once
def grouped_bars(
    figures: Figures,
    looks: Mapping[str, str],
    letters: Mapping[str, str] | None = None,
    kind_title: str = "what runs",
    measure: str = "accuracy",
) -> alt.LayerChart:
    """Bars of every kind side by side for each model; `letters` are written above them.

    The axis goes from 0 to 1, or further where the measure does.
    """
    rows = [
        _row(model, kind, estimate)
        for model, kinds in figures.items()
        for kind, estimate in kinds.items()
    ]
    frame = pd.DataFrame(rows)
    if letters:
        frame["text"] = frame["kind"].map(letters) + "\n" + frame["text"].str.lstrip("0")
    kinds, names = list(looks), list(dict.fromkeys(frame["model"]))
    # Positions in numbers: with offsets of names, whiskers do not stand in the middle of bars.
    width = _GROUP_WIDTH / len(kinds)
    within = frame["kind"].map(kinds.index) - (len(kinds) - 1) / 2
    frame["middle"] = frame["model"].map(names.index) + within * width
    frame["left"] = frame["middle"] - 0.45 * width
    frame["right"] = frame["middle"] + 0.45 * width
    axis = alt.Axis(
        values=list(range(len(names))),
        labelExpr=f"split({json.dumps(names)}[datum.value], ' ')",
        labelFontSize=16,
        labelLimit=150,
        labelOverlap=False,
        labelPadding=8,
        ticks=False,
        grid=False,
    )
    place = alt.X(
        title=None, axis=axis, scale=alt.Scale(domain=[-0.5, len(names) - 0.5], nice=False)
    )
    bars = alt.Chart(frame).encode(
        x=_of("middle:Q", place),
        tooltip=[
            alt.Tooltip("model:N"),
            alt.Tooltip("kind:N", title=kind_title),
            alt.Tooltip("accuracy:Q", title=measure, format=".3f"),
            *(alt.Tooltip(f"{name}:Q", format=".3f") for name in ("low", "high")),
            alt.Tooltip("n:Q", title="prompts"),
        ],
    )
    scale, upward = _upward(frame["low"].min(), frame["high"].max())
    marks = bars.mark_rect(cornerRadius=2).encode(
        x=_of("left:Q", place),
        x2=alt.X2("right:Q"),
        y=alt.Y("accuracy:Q", title=measure, scale=scale).axis(**upward),
        y2=alt.datum(0),
        color=alt.Color(
            "kind:N",
            title=None,
            scale=alt.Scale(domain=kinds, range=list(looks.values())),
            legend=alt.Legend(orient="top", labelFontSize=15, symbolType="square", columns=6),
        ),
    )
    whiskers, written = _whiskers(bars, scale), _figures(bars, 2 if letters else 1, scale)
    return bare(alt.layer(marks, whiskers, written), BAR_HEIGHT)


def _of(field: str, place: alt.X) -> alt.X:
    placed: alt.X = place.copy()
    placed.shorthand = field
    return placed


_UNIT = alt.Scale(domain=[0, 1.18], nice=False)
_AXIS = {
    "labelFontSize": 14,
    "titleFontSize": 15,
    "values": [0, 0.2, 0.4, 0.6, 0.8, 1],
    "grid": True,
    "gridOpacity": 0.25,
}


def _upward(lowest: float, highest: float) -> tuple[alt.Scale, dict[str, Any]]:
    """From 0 to 1, or further where the figures go."""
    if lowest >= 0 and highest <= 1:
        return _UNIT, _AXIS
    scale = alt.Scale(domain=[min(lowest, 0), 1.18 * max(highest, 1)])
    return scale, {**_AXIS, "values": alt.Undefined}


def _whiskers(bars: alt.Chart, scale: alt.Scale = _UNIT) -> alt.Chart:
    return bars.mark_rule(strokeWidth=2, color=INK).encode(
        y=alt.Y("low:Q", scale=scale), y2=alt.Y2("high:Q")
    )


def _figures(bars: alt.Chart, n_lines: int = 1, scale: alt.Scale = _UNIT) -> alt.Chart:
    return bars.mark_text(
        dy=-4 - 15 * (n_lines - 1),
        lineHeight=15,
        fontSize=13,
        color=INK,
        fontWeight=600,
        baseline="bottom",
        lineBreak="\n",
    ).encode(y=alt.Y("high:Q", scale=scale), text=alt.Text("text:N"))


def in_words(estimate: Estimate) -> str:
    """A figure for a chart: two digits, or “undefined”."""
    return "undefined" if isnan(estimate.value) else f"{estimate.value:.2f}".replace("-", MINUS)


def _with_interval(estimate: Estimate) -> str:
    if isnan(estimate.value):
        return in_words(estimate)
    value, low, high = (
        f"{number:.3f}".replace("-", MINUS)
        for number in (estimate.value, estimate.low, estimate.high)
    )
    return f"{value}, 95 %: {low} to {high}"


GAIN, LOSS = (40, 104, 200), (200, 50, 24)
FAINT = 0.07
"""Opacity at zero: colours fade into the page, be it light or dark."""
_UNCLEAR = 0.3
YOURS = "#E69F00"


@drawn_once
def transplant_chart(
    sets: Mapping[str, Transplanted],
    lines: Mapping[str, Estimate],
    looks: Mapping[str, str],
    measure: str = "accuracy",
) -> alt.LayerChart:
    """A bar for each set of heads that is transplanted, and lines at both models' accuracies.

    `looks` are the colours of groups by key. `lines` has the two models' accuracies by what to call
    them; the set called “your set” stands out. Above each bar is the share of the gap that it
    recovers. `measure` is what another metric than accuracy is called.
    """
    looks = {**looks, "none": WHOLE, "your set": YOURS}
    frame = pd.DataFrame(
        [
            {
                "set": name,
                "label": f"{name}\n{in_words(outcome.recovery)}",
                "heads": outcome.n_sites,
                "accuracy": outcome.accuracy.value,
                "low": outcome.accuracy.low,
                "high": outcome.accuracy.high,
                "n": outcome.accuracy.n,
                "recovery": in_words(outcome.recovery),
                "colour": looks.get(name, CIRCUIT),
                "text": f"{outcome.accuracy.value:.2f}",
            }
            for name, outcome in sets.items()
        ]
    )
    bars = alt.Chart(frame).encode(
        x=alt.X(
            "label:N",
            sort=None,
            title="heads transplanted, and the recovery with them",
            scale=alt.Scale(paddingInner=0.3),
        ).axis(
            labelExpr="split(datum.label, '\\n')",
            labelFontSize=14,
            labelLineHeight=18,
            labelAngle=0,
            labelOverlap=False,
            labelLimit=120,
            labelPadding=8,
            ticks=False,
            titleFontSize=15,
            titlePadding=8,
        ),
        tooltip=[
            alt.Tooltip("set:N", title="transplanted"),
            alt.Tooltip("heads:Q"),
            alt.Tooltip("accuracy:Q", title=measure, format=".3f"),
            *(alt.Tooltip(f"{name}:Q", format=".3f") for name in ("low", "high")),
            alt.Tooltip("recovery:N"),
            alt.Tooltip("n:Q", title="prompts"),
        ],
    )
    figures = [*lines.values(), *(outcome.accuracy for outcome in sets.values())]
    scale, upward = _upward(min(f.low for f in figures), max(f.high for f in figures))
    marks = bars.mark_bar(cornerRadiusEnd=2).encode(
        y=alt.Y("accuracy:Q", title=f"{measure} of the target", scale=scale).axis(**upward),
        color=alt.Color("colour:N", scale=None),
    )
    levels = pd.DataFrame(
        [
            {"line": name, "accuracy": estimate.value, "text": f"{name} {estimate.value:.2f}"}
            for name, estimate in lines.items()
        ]
    )
    high = max(lines, key=lambda name: lines[name].value)
    rules = alt.Chart(levels).encode(y=alt.Y("accuracy:Q", scale=scale))
    names = [
        rules.transform_filter(alt.datum.line == name)
        .mark_text(align="left", dx=6, dy=-9 if name == high else 10, fontSize=14, color=INK)
        .encode(x=alt.value("width"), text=alt.Text("text:N"))
        for name in lines
    ]
    dashes = rules.mark_rule(color=INK, strokeDash=[6, 4], strokeWidth=2)
    layers = alt.layer(marks, dashes, _whiskers(bars, scale), _figures(bars, scale=scale), *names)
    return bare(layers, BAR_HEIGHT + 80)


@drawn_once
def head_chart(
    heads: Sequence[Sequence[Transplanted]],
    clear: Sequence[Sequence[bool]],
    pinned: Collection[Head],
    largest: float,
    measure: str = "accuracy",
) -> alt.LayerChart:
    """What each single head does: layers upward, heads to the right, zero is the page’s colour.

    Shown is the recovery, or the change of the measure where that is undefined; a head that is not
    `clear` is pale and without a number, and heads in `pinned` have a frame. A click on a cell is
    the selection “cell”.
    """
    frame = pd.DataFrame(
        [
            {
                "layer": layer,
                "head": index,
                "name": str(Head(layer, index)),
                "effect": effect(outcome).value,
                "change": _with_interval(outcome.change),
                "recovery": _with_interval(outcome.recovery),
                "accuracy": _with_interval(outcome.accuracy),
                "n": outcome.accuracy.n,
                "clear": clear[layer][index],
                "change_is": "clear" if clear[layer][index] else "not clear",
                "pinned": Head(layer, index) in pinned,
            }
            for layer, row in enumerate(heads)
            for index, outcome in enumerate(row)
        ]
    )
    n_layers, n_heads = len(heads), len(heads[0])
    axis = {"labelFontSize": 13, "titleFontSize": 14, "ticks": False, "domain": False}
    axis |= {"labelPadding": 4}
    cells = alt.Chart(frame).encode(
        x=alt.X("head:O", title="Head").axis(
            **axis, titlePadding=2, labelAngle=0, labelOverlap=True
        ),
        y=alt.Y("layer:O", title="Layer", sort="descending").axis(
            **axis, titlePadding=10, labelOverlap=True
        ),
        tooltip=[
            alt.Tooltip("name:N", title="head"),
            alt.Tooltip("recovery:N"),
            alt.Tooltip("change:N", title=f"change of {measure}"),
            alt.Tooltip("accuracy:N", title=measure),
            alt.Tooltip("change_is:N", title="among all heads"),
            alt.Tooltip("n:Q", title="prompts"),
        ],
    )
    colour = alt.Color(
        "effect:Q",
        scale=alt.Scale(
            domain=[-largest, -1e-6 * largest, 1e-6 * largest, largest],
            range=[_rgba(LOSS, 1), _rgba(LOSS, FAINT), _rgba(GAIN, FAINT), _rgba(GAIN, 1)],
            interpolate="rgb",
            clamp=True,
        ),
        legend=None,
    )
    squares = (
        cells.mark_rect(cornerRadius=2, cursor="pointer")
        .encode(
            color=colour,
            opacity=value_if(alt.OpacityValue, "datum.clear", 1.0, _UNCLEAR),
        )
        .add_params(alt.selection_point("cell", fields=["layer", "head"]))
    )
    frames = cells.transform_filter("datum.pinned").mark_rect(
        cornerRadius=2, filled=False, fillOpacity=0, aria=False, stroke=YOURS, strokeWidth=3
    )
    layers = [squares, frames]
    if n_heads <= _ROOM_FOR_NUMBERS:
        numbers = frame["effect"].map(lambda e: f"{e:+.2f}".replace("-", MINUS) if e else "")
        frame["text"] = numbers.where(frame["clear"], "")
        frame["strong"] = frame["effect"].abs() > 0.6 * largest
        layers.append(
            cells.mark_text(fontSize=12).encode(
                text=alt.Text("text:N"),
                color=value_if(alt.ColorValue, "datum.strong", "#FFFFFF", INK),
            )
        )
    height = min(max(150 / n_layers, 12), 40) * n_layers + 46
    return bare(alt.layer(*layers), height)


_ROOM_FOR_NUMBERS = 8


def effect(outcome: Transplanted) -> Estimate:
    """The recovery, or the change of the accuracy where the recovery is undefined."""
    return outcome.change if isnan(outcome.recovery.value) else outcome.recovery


def _rgba(colour: tuple[int, int, int], opacity: float) -> str:
    return f"rgba({','.join(map(str, colour))},{opacity})"
