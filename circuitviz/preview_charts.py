"""Charts of a preview: estimated scores beside exact ones."""

from __future__ import annotations

import altair as alt
import pandas as pd

from circuitviz.bare import bare
from circuitviz.palette import HELPS, HINDERS, INK
from circuitviz.score_charts import OUTSIDE
from circuitviz.specification import drawn_once

RANKED = "ranked high by the preview"
OTHER = "other"
MISSED = "missed: strong, ranked low"
_HEIGHT = 250


@drawn_once
def agreement_scatter(heads: pd.DataFrame) -> alt.LayerChart:
    """A point for every head that was measured exactly; on the dashed line the two are equal.

    ``heads`` has ``name``, ``preview``, ``exact`` and ``kind`` (`RANKED`, `OTHER` or `MISSED`) per
    row.
    """
    axis = {"labelFontSize": 13, "titleFontSize": 14, "tickCount": 5, "format": "+.2~g"}
    points = alt.Chart(heads).encode(
        x=alt.X("preview:Q", title="preview, not exact", scale=alt.Scale(padding=12)).axis(**axis),
        y=alt.Y("exact:Q", title="exact score", scale=alt.Scale(padding=12)).axis(**axis),
        tooltip=[
            alt.Tooltip("name:N", title="head"),
            alt.Tooltip("preview:Q", title="preview, not exact", format="+.4f"),
            alt.Tooltip("exact:Q", title="exact score", format="+.4f"),
            alt.Tooltip("kind:N", title="which"),
        ],
    )
    kinds = [kind for kind in (RANKED, OTHER, MISSED) if kind in set(heads["kind"])]
    colours = {RANKED: HINDERS, OTHER: OUTSIDE, MISSED: HELPS}
    dots = points.mark_point(filled=True, size=70, opacity=0.85).encode(
        color=alt.Color(
            "kind:N",
            scale=alt.Scale(domain=kinds, range=[colours[kind] for kind in kinds]),
            legend=alt.Legend(title=None, orient="top", labelFontSize=13, labelLimit=240),
        )
    )
    names = (
        points.transform_filter(f"datum.kind == '{MISSED}'")
        .mark_text(dx=8, align="left", fontSize=13, fontWeight=600, color=INK)
        .encode(text=alt.Text("name:N"))
    )
    ends = [float(heads[["preview", "exact"]].min().max()), 0.0]
    equal = (
        alt.Chart(pd.DataFrame({"preview": ends, "exact": ends}))
        .mark_line(color=OUTSIDE, strokeDash=[6, 5])
        .encode(x=alt.X("preview:Q"), y=alt.Y("exact:Q"))
    )
    return bare(alt.layer(equal, dots, names), _HEIGHT)
