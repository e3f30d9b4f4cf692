"""Charts of what heads carry: a map of tests by group, and how a mask over heads is learned."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import pandas as pd

from backend.tasks.task import Group
from circuitviz.bare import bare, value_if
from circuitviz.charts import BEFORE, EXPECTED
from circuitviz.pairs import VARIABLE
from circuitviz.palette import INK
from circuitviz.specification import drawn_once

_GAP = 0.6
"""Between two models, in cells."""
_STRONG = 0.75
"""Share from which on figures are white."""
_ROW_HEIGHT = (34, 62)
_MAP_HEIGHT = 250
_CURVE_HEIGHT = 190
_AXIS = {"labelFontSize": 13, "titleFontSize": 14}


@drawn_once
def carried_map(
    cells: pd.DataFrame, tests: Sequence[str], models: Sequence[str], groups: Sequence[Group]
) -> alt.LayerChart:
    """Tests downward, the groups of each model to the right: shares of the expected answer.

    ``cells`` has a row per group and test of a model: ``model``, ``group``, ``test``, ``share``,
    whether it is ``clear`` and ``chosen``, and in words ``interval``, ``n``, ``nothing``,
    ``random``, ``chance`` and ``own``. Only clear cells are coloured. A click on a cell is the
    selection “cell”.
    """
    width = len(groups) + _GAP
    letters = [group.key for group in groups]
    shown = cells.copy()
    places = zip(shown["model"], shown["group"], strict=True)
    shown["left"] = [models.index(m) * width + letters.index(g) + 0.03 for m, g in places]
    shown["right"], shown["middle"] = shown["left"] + 0.94, shown["left"] + 0.47
    shown["text"] = shown["share"].map("{:.2f}".format)
    shown["strong"] = shown["clear"] & (shown["share"] > _STRONG)
    shown["finding"] = shown["clear"].map({True: "clear", False: "not clear"})
    heads = pd.DataFrame(
        [
            {"test": "", "group": group.key, "colour": group.colour, "middle": at + i + 0.5}
            for at in (place * width for place in range(len(models)))
            for i, group in enumerate(groups)
        ]
    )
    names = pd.DataFrame(
        [
            {"test": "", "model": model, "middle": place * width + len(groups) / 2}
            for place, model in enumerate(models)
        ]
    )
    scale = alt.Scale(domain=[0, len(models) * width - _GAP], nice=False)
    bands = alt.Scale(paddingInner=0.07, paddingOuter=0)
    row = alt.Y("test:N", sort=["", *tests], title=None, scale=bands).axis(
        labelFontSize=15, labelLimit=230, ticks=False, domain=False, labelPadding=8
    )
    based = alt.Chart(shown).encode(
        y=row,
        tooltip=[
            alt.Tooltip("group:N"),
            alt.Tooltip("test:N"),
            alt.Tooltip("model:N"),
            alt.Tooltip("interval:N", title="expected answer"),
            alt.Tooltip("nothing:N", title="nothing patched"),
            alt.Tooltip("random:N", title="random groups"),
            alt.Tooltip("chance:N"),
            alt.Tooltip("own:N", title="base’s own answer"),
            alt.Tooltip("n:N", title="prompts"),
            alt.Tooltip("finding:N", title="among all tests"),
        ],
    )
    squares = (
        based.mark_rect(cornerRadius=3, cursor="pointer", color=EXPECTED, stroke=INK)
        .encode(
            x=alt.X("left:Q", scale=scale, axis=None),
            x2=alt.X2("right:Q"),
            fillOpacity=alt.condition(
                "datum.clear", alt.Opacity("share:Q", scale=_FADING, legend=None), alt.value(0)
            ),
            strokeOpacity=alt.value(0.18),
        )
        .add_params(alt.selection_point("cell", fields=["group", "name"]))
    )
    frames = (
        based.transform_filter("datum.chosen")
        .mark_rect(
            cornerRadius=3, filled=False, fillOpacity=0, aria=False, stroke=VARIABLE, strokeWidth=3
        )
        .encode(x=alt.X("left:Q", scale=scale, axis=None), x2=alt.X2("right:Q"))
    )
    figures = based.mark_text(fontSize=16, fontWeight=600).encode(
        x=alt.X("middle:Q", scale=scale, axis=None),
        text=alt.Text("text:N"),
        opacity=value_if(alt.OpacityValue, "datum.clear", 1, 0.45),
        color=value_if(alt.ColorValue, "datum.strong", "#FFFFFF", INK),
    )
    above = alt.Chart(heads).encode(y=row, x=alt.X("middle:Q", scale=scale, axis=None))
    low, high = _ROW_HEIGHT
    row_height = min(max(_MAP_HEIGHT / (len(tests) + 1), low), high)
    key_at = min(14, row_height / 2 - 11)  # never into the first row of cells
    keys = above.mark_text(fontSize=17, fontWeight=700, dy=key_at).encode(
        text=alt.Text("group:N"), color=alt.Color("colour:N", scale=None)
    )
    titles = (
        alt.Chart(names)
        .mark_text(fontSize=15, dy=key_at - 22, color=INK)
        .encode(y=row, x=alt.X("middle:Q", scale=scale, axis=None), text=alt.Text("model:N"))
    )
    layers = alt.layer(squares, frames, figures, keys, titles)
    return bare(layers, row_height * (len(tests) + 1))


_FADING = alt.Scale(domain=[0, 1], range=[0.07, 1])
"""Opacity of shares: colours fade into the page, be it light or dark."""


@drawn_once
def loss_line(losses: Sequence[float], n_steps: int) -> alt.LayerChart:
    """The loss of each batch so far, of `n_steps` batches in all."""
    frame = pd.DataFrame({"batch": range(1, len(losses) + 1), "loss": losses})
    line = (
        alt.Chart(frame)
        .mark_line(color=BEFORE, strokeWidth=2)
        .encode(
            x=_batches(n_steps),
            y=alt.Y("loss:Q", title="loss", scale=alt.Scale(zero=False)).axis(**_AXIS, tickCount=3),
            tooltip=[alt.Tooltip("batch:Q"), alt.Tooltip("loss:Q", format=".3f")],
        )
    )
    return bare(alt.layer(line), _CURVE_HEIGHT)


@drawn_once
def heads_line(checks: pd.DataFrame, n_heads: int, n_steps: int) -> alt.LayerChart:
    """How many of `n_heads` heads the rounded mask keeps at each check."""
    line = (
        alt.Chart(checks)
        .mark_line(color=VARIABLE, strokeWidth=2.5, interpolate="step-after")
        .encode(
            x=_batches(n_steps),
            y=alt.Y(
                "heads:Q", title="heads kept", scale=alt.Scale(domain=[0, n_heads], nice=False)
            ).axis(**_AXIS, tickCount=3, format="d"),
            tooltip=[alt.Tooltip("batch:Q"), alt.Tooltip("heads:Q")],
        )
    )
    return bare(alt.layer(line), _CURVE_HEIGHT)


@drawn_once
def validation_line(checks: pd.DataFrame, n_steps: int, kept_at: int | None) -> alt.LayerChart:
    """The share of expected answers at each check, with its interval; a dot where it was kept.

    ``checks`` has ``batch``, ``heads``, ``share``, ``low``, ``high`` and ``n``.
    """
    base = alt.Chart(checks).encode(
        x=_batches(n_steps),
        tooltip=[
            alt.Tooltip("batch:Q"),
            alt.Tooltip("heads:Q"),
            *(alt.Tooltip(f"{name}:Q", format=".3f") for name in ("share", "low", "high")),
            alt.Tooltip("n:Q", title="pairs"),
        ],
    )
    share = alt.Y("share:Q", title="validation", scale=_UNIT).axis(
        **_AXIS, values=[0, 0.25, 0.5, 0.75, 1], gridOpacity=0.25
    )
    band = base.mark_area(color=EXPECTED, opacity=0.2).encode(
        y=alt.Y("low:Q", scale=_UNIT), y2=alt.Y2("high:Q")
    )
    line = base.mark_line(color=EXPECTED, strokeWidth=2.5).encode(y=share)
    layers = [band, line]
    if kept_at is not None:
        kept = base.transform_filter(alt.datum.batch == kept_at)
        layers.append(
            kept.mark_point(filled=True, size=120, opacity=1, color=EXPECTED).encode(y=share)
        )
    return bare(alt.layer(*layers), _CURVE_HEIGHT)


@drawn_once
def penalty_chart(penalties: pd.DataFrame, chosen: float) -> alt.LayerChart:
    """The share of expected answers on test pairs against heads kept, a point for each λ.

    ``penalties`` has ``penalty``, ``heads``, ``share``, ``low``, ``high`` and ``n``.
    """
    frame = penalties.assign(
        label=penalties["penalty"].map("λ {:g}".format), chosen=penalties["penalty"] == chosen
    )
    most = max(1, int(frame["heads"].max()))
    base = alt.Chart(frame).encode(
        x=alt.X(
            "heads:Q", title="heads kept", scale=alt.Scale(domain=[-0.5, most + 0.5], nice=False)
        ).axis(labelFontSize=13, titleFontSize=14, format="d", tickMinStep=1, grid=False),
        tooltip=[
            alt.Tooltip("label:N", title="penalty"),
            alt.Tooltip("heads:Q"),
            *(alt.Tooltip(f"{name}:Q", format=".3f") for name in ("share", "low", "high")),
            alt.Tooltip("n:Q", title="pairs"),
        ],
    )
    share = alt.Y("share:Q", title="expected answer", scale=_UNIT).axis(
        **_AXIS, values=[0, 0.25, 0.5, 0.75, 1], gridOpacity=0.25
    )
    rules = base.mark_rule(color=INK, strokeWidth=1.4).encode(
        y=alt.Y("low:Q", scale=_UNIT), y2=alt.Y2("high:Q")
    )
    points = base.mark_point(filled=True, opacity=1).encode(
        y=share,
        color=value_if(alt.ColorValue, "datum.chosen", EXPECTED, BEFORE),
        size=value_if(alt.SizeValue, "datum.chosen", 170, 90),
    )
    # One label for all penalties that keep as many heads: they would lie upon one another.
    alike = frame.groupby("heads", sort=True)
    written = alike["penalty"].agg(lambda of: "λ " + ", ".join(map("{:g}".format, of)))
    together = pd.DataFrame({"high": alike["high"].max(), "penalty": written}).reset_index()
    labels = (
        alt.Chart(together)
        .mark_text(dy=-10, fontSize=13, color=INK)
        .encode(x=alt.X("heads:Q"), y=alt.Y("high:Q", scale=_UNIT), text=alt.Text("penalty:N"))
    )
    return bare(alt.layer(rules, points, labels), 240)


_UNIT = alt.Scale(domain=[0, 1], nice=False)


def _batches(n_steps: int) -> alt.X:
    axis = {"labelFontSize": 13, "titleFontSize": 14, "grid": False, "tickMinStep": 1}
    scale = alt.Scale(domain=[0, max(1, n_steps)], nice=False)
    return alt.X("batch:Q", title="batch", scale=scale).axis(**axis)
