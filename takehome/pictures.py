"""Pictures as files, without a network: charts and the circuit as SVG, PNG and PDF."""

from __future__ import annotations

import json
from typing import Any

import vl_convert

from circuitviz.palette import INK
from circuitviz.specification import Specification
from circuitviz.themes import Theme

_VEGA_LITE = "6.4"
"""Altair writes charts for this version."""
_WIDTH = 760
_SHARPNESS = 2
"""Pixels of a PNG for each of the picture's own."""


def chart_svg(chart: Specification, theme: Theme) -> str:
    """A chart in the page's look, as SVG with text as text."""
    spec = dict(chart)
    own = {name: value for name, value in spec.pop("config", {}).items() if name != "background"}
    told = json.dumps({"width": _WIDTH} | spec | {"config": own})
    # Only a whole string is the colour; a word in the data may be the same, and nothing is lost.
    told = told.replace(json.dumps(INK), json.dumps(theme.text))
    return str(
        vl_convert.vegalite_to_svg(
            told, vl_version=_VEGA_LITE, config=_look(theme), allowed_base_urls=[]
        )
    )


def png(svg: str) -> bytes:
    """An SVG as PNG, with twice its pixels."""
    return bytes(vl_convert.svg_to_png(svg, scale=_SHARPNESS))


def pdf(svg: str) -> bytes:
    """An SVG as one page of PDF; its text can be selected and searched."""
    return bytes(vl_convert.svg_to_pdf(svg))


def _look(theme: Theme) -> dict[str, Any]:
    """What Streamlit makes of charts in this theme, as far as their own look leaves it open."""
    labels = {
        "labelColor": theme.label,
        "titleColor": theme.label,
        "titleFontWeight": "normal",
    }
    return {
        "font": "Source Sans, Helvetica Neue, Arial, sans-serif",
        "background": theme.background,
        "padding": 12,
        "autosize": {"type": "fit", "contains": "padding"},
        "title": {"align": "left", "anchor": "start", "color": theme.text, "fontSize": 16},
        "header": {**labels, "labelFontSize": 12, "titleFontSize": 16},
        "axis": {
            **labels,
            "labelFontSize": 12,
            "titleFontSize": 14,
            "ticks": False,
            "gridColor": theme.grid,
            "domain": False,
            "domainColor": theme.grid,
            "labelFlush": True,
            "labelLimit": 100,
            "titlePadding": 16,
            "labelPadding": 16,
            "labelSeparation": 4,
            "labelOverlap": True,
        },
        "legend": {
            **labels,
            "labelFontSize": 14,
            "titleFontSize": 14,
            "titlePadding": 8,
            "labelPadding": 16,
            "columnPadding": 8,
            "rowPadding": 4,
            "padding": 8,
            "symbolStrokeWidth": 4,
        },
        "view": {"stroke": None},
        "bar": {"binSpacing": 4},
        "axisDiscrete": {"grid": False},
        "axisXPoint": {"grid": False},
        "axisXBand": {"grid": False},
    }
