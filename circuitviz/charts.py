"""Charts of the page, in Altair: transparent, large text, legible in both themes."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from functools import cache
from math import ceil, isnan
from typing import Any

import altair as alt
import pandas as pd

BEFORE = "#9AA3B2"
RIGHT = "#0F9D75"
WRONG = "#D9730D"
EXPECTED = "#7B5CD6"
LOOKS: Mapping[str, str] = {"after, right": RIGHT, "after": WRONG}
"""Of bars of what a model answers after a click, unless told otherwise."""
ROW_HEIGHT = 36
LEGEND_HEIGHT = 50
"""Streamlit fits the whole chart into its height, the legend included."""


def answer_bars(
    answers: pd.DataFrame, least: Mapping[str, float], looks: Mapping[str, str] = LOOKS
) -> dict[str, Any]:
    """Paired bars of the model's top answers, before above after, as a Vega-Lite specification.

    ``answers`` has a row per answer: ``word``, probabilities ``before`` and ``after``, and
    ``kind``, which of ``looks`` the latter has; the order of the rows is kept. A probability that
    is NaN is not known: it is below the ``least`` one that is, in ``before`` or ``after``.
    """
    long = answers.melt(
        ["word", "kind"], ["before", "after"], var_name="when", value_name="probability"
    )
    long["look"] = long["when"].where(long["when"] == "before", long["kind"])
    read = [*zip(long["probability"], long["when"].map(least), strict=True)]
    long["text"] = [_written(*each, digits=2) for each in read]
    long["exactly"] = [_written(*each, digits=3) for each in read]
    long["probability"] = long["probability"].fillna(0.0)
    spec = deepcopy(_answer_bars())
    for layer in spec["layer"]:
        layer["encoding"]["y"]["sort"] = list(answers["word"])
    spec["layer"][0]["encoding"]["color"]["scale"] = {
        "domain": ["before", *looks],
        "range": [BEFORE, *looks.values()],
    }
    return spec | {
        "data": {"values": long.to_dict("records")},
        "height": LEGEND_HEIGHT + ROW_HEIGHT * max(len(answers), 1),
    }


def _written(probability: float, least: float, digits: int) -> str:
    if not isnan(probability):
        return f"{probability:.{digits}f}"
    return f"< {ceil(least * 10**digits) / 10**digits:.{digits}f}"


@cache
def _answer_bars() -> dict[str, Any]:
    """All but the data and its order: drawn after every click, and Altair checks charts slowly."""
    bars = alt.Chart(alt.NamedData("answers")).encode(
        y=alt.Y("word:N", title=None, scale=alt.Scale(paddingInner=0.25)).axis(
            labelFontSize=18, labelLimit=160, ticks=False, domain=False, labelPadding=8
        ),
        yOffset=alt.YOffset("when:N", sort=["before", "after"]),
        x=alt.X("probability:Q", scale=alt.Scale(domain=[0, 1.12])).axis(None),
        tooltip=[
            alt.Tooltip("word:N", title="answer"),
            alt.Tooltip("when:N"),
            alt.Tooltip("exactly:N", title="probability"),
        ],
    )
    marks = bars.mark_bar(cornerRadiusEnd=3).encode(
        color=alt.Color(
            "look:N",
            title=None,
            legend=alt.Legend(orient="top", labelFontSize=15, symbolType="square"),
        )
    )
    numbers = bars.mark_text(align="left", dx=5, fontSize=13).encode(
        text=alt.Text("text:N"), color=alt.value(BEFORE)
    )
    chart = alt.layer(marks, numbers).configure(background="transparent")
    spec: dict[str, Any] = chart.configure_view(stroke=None).to_dict()
    return spec
