"""The curve of a circuit search: faithfulness against the number of heads."""

from __future__ import annotations

import altair as alt
import pandas as pd

from circuitviz.bare import bare
from circuitviz.palette import INK
from circuitviz.score_charts import OUTSIDE
from circuitviz.specification import drawn_once

GROWN, PRUNED, RANDOM = "grown by score", "then pruned", "random circuits"
_COLOURS = {GROWN: "#0072B2", PRUNED: "#D55E00", RANDOM: OUTSIDE}
_HEIGHT = 340


@drawn_once
def search_curve(circuits: pd.DataFrame, marked: int | None) -> alt.LayerChart:
    """A line with a band for each way in which circuits were made; 1 is the whole model.

    ``circuits`` has ``way`` (`GROWN`, `PRUNED` or `RANDOM`), ``heads``, ``faithfulness`` with its
    ``low`` and ``high``, ``interval``, what these are, and ``searched``, what the circuit does
    where it was searched, as texts; ``marked`` is the row of the circuit that is marked.
    """
    ways = [way for way in _COLOURS if way in set(circuits["way"])]
    axis = {"labelFontSize": 13, "titleFontSize": 14}
    lines = alt.Chart(circuits).encode(
        x=alt.X("heads:Q", title="heads in the circuit", scale=alt.Scale(nice=False)).axis(
            **axis, grid=False, tickMinStep=1
        ),
        color=alt.Color(
            "way:N",
            scale=alt.Scale(domain=ways, range=[_COLOURS[way] for way in ways]),
            legend=alt.Legend(
                title=None, orient="top", labelFontSize=14, symbolType="circle", symbolOpacity=1
            ),
        ),
    )
    y = alt.Y("faithfulness:Q", title="faithfulness").axis(**axis, format=".1f")
    tooltip = [
        alt.Tooltip("way:N", title="circuit"),
        alt.Tooltip("heads:Q"),
        alt.Tooltip("faithfulness:Q", format=".3f"),
        alt.Tooltip("interval:N"),
        alt.Tooltip("searched:N", title="where it was searched"),
    ]
    whole = (
        alt.Chart(pd.DataFrame({"faithfulness": [1.0]}))
        .mark_rule(color=INK, strokeDash=[5, 4], opacity=0.6)
        .encode(y=alt.Y("faithfulness:Q"))
    )
    bands = lines.mark_area(opacity=0.17).encode(y=alt.Y("low:Q", title=""), y2=alt.Y2("high:Q"))
    marks = lines.mark_line(strokeWidth=2.2).encode(y=y)
    dots = lines.mark_point(filled=True, size=34, opacity=1).encode(y=y, tooltip=tooltip)
    layers = [bands, whole, marks, dots]
    if marked is not None:
        row = circuits.iloc[[marked]].assign(label=f"{circuits.iloc[marked]['heads']} heads")
        one = alt.Chart(row).encode(x=alt.X("heads:Q"), y=alt.Y("faithfulness:Q"), tooltip=tooltip)
        layers.append(one.mark_point(size=300, color=INK, strokeWidth=2.5))
        layers.append(
            one.mark_text(dy=26, fontSize=15, fontWeight=700, color=INK).encode(
                text=alt.Text("label:N")
            )
        )
    return bare(alt.layer(*layers), _HEIGHT)
