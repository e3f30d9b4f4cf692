"""What charts share: no background and no frame, so that they lie on the page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import altair as alt


def bare(chart: alt.LayerChart, height: float) -> alt.LayerChart:
    """The chart without background and frame; `height` in pixels."""
    sized = chart.properties(height=round(height))
    done: alt.LayerChart = sized.configure(background="transparent").configure_view(stroke=None)
    return done


def value_if(
    channel: Callable[..., Any], test: str, then: float | str, otherwise: float | str
) -> Any:
    """One of two values of a channel, such as ``alt.ColorValue``, by what a row has.

    ``alt.condition`` says the same, but Altair takes as long over that as over a whole chart.
    """
    return channel(otherwise, condition={"test": test, "value": then})
