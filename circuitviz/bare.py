"""What every chart has: no background of its own and no frame, so that it lies on the page."""

from __future__ import annotations

import altair as alt


def bare(chart: alt.LayerChart, height: float) -> alt.LayerChart:
    """The chart without background and frame; `height` in pixels."""
    sized = chart.properties(height=round(height))
    done: alt.LayerChart = sized.configure(background="transparent").configure_view(stroke=None)
    return done
