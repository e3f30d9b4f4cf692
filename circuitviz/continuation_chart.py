"""The likeliest next words of one model as bars."""

from __future__ import annotations

import altair as alt
import pandas as pd

from circuitviz.bare import value_if
from circuitviz.charts import BEFORE, RIGHT, ROW_HEIGHT
from circuitviz.specification import drawn_once


@drawn_once
def continuation_bars(likeliest: pd.DataFrame) -> alt.Chart:
    """Bars with a row for each `word`, `probability` and whether it `is_answer`, in their order."""
    bars = alt.Chart(likeliest).encode(
        y=alt.Y("word:N", title=None, sort=list(likeliest["word"])).axis(
            labelFontSize=18, labelLimit=160, ticks=False, domain=False, labelPadding=8
        ),
        x=alt.X("probability:Q", scale=alt.Scale(domain=[0, 1.15])).axis(None),
        tooltip=[alt.Tooltip("word:N"), alt.Tooltip("probability:Q", format=".4f")],
    )
    colour = value_if(alt.ColorValue, "datum.is_answer", RIGHT, BEFORE)
    marks = bars.mark_bar(cornerRadiusEnd=3).encode(color=colour)
    numbers = bars.mark_text(align="left", dx=5, fontSize=14).encode(
        text=alt.Text("probability:Q", format=".2f"), color=alt.value(BEFORE)
    )
    height = ROW_HEIGHT * 0.8 * max(len(likeliest), 1)
    return alt.layer(marks, numbers).properties(height=height).configure_view(stroke=None)
