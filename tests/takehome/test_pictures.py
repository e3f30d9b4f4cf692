"""Charts and the circuit as files: well-formed, text as text, without a network."""

from __future__ import annotations

import struct
from xml.etree import ElementTree

import altair as alt
import pandas as pd
import pytest

from backend.core.heads import ModelShape
from backend.models import catalogue
from circuitviz.palette import INK
from circuitviz.svg import circuit_svg
from circuitviz.themes import DARK, LIGHT, Theme
from takehome.pictures import chart_svg, pdf, png

WORD = "a <b> & “c”"
_SVG = "{http://www.w3.org/2000/svg}"


def bars() -> alt.LayerChart:
    frame = pd.DataFrame({"of": [WORD, INK], "share": [0.25, 0.5]})
    base = alt.Chart(frame).encode(x="share:Q", y=alt.Y("of:N", title="axis of words"))
    marks = base.mark_bar(color="#0072B2") + base.mark_rule(color=INK)
    return marks.properties(height=120).configure(background="transparent")


def size_of(picture: bytes) -> tuple[int, int]:
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", picture[16:24])


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_a_chart_keeps_its_words_and_takes_the_pages_colours(theme: Theme) -> None:
    svg = chart_svg(bars().to_dict(), theme)
    root = ElementTree.fromstring(svg)
    text = {"".join(each.itertext()) for each in root.iter(f"{_SVG}text")}
    assert {WORD, "axis of words"} <= text
    assert "currentColor" not in svg
    first = next(root.iter(f"{_SVG}rect"))
    assert first.attrib["fill"] == theme.background
    colours = {each.attrib.get("stroke") for each in root.iter(f"{_SVG}line")}
    assert theme.text in colours
    assert size_of(png(svg)) == (2 * int(root.attrib["width"]), 2 * int(root.attrib["height"]))


def test_the_circuit_is_a_picture_and_a_page() -> None:
    svg = circuit_svg(catalogue.circuit("base"), ModelShape(5, 8, 8, 16), width=800, height=500)
    assert size_of(png(svg)) == (1600, 1000)
    page = pdf(svg)
    assert page.startswith(b"%PDF-")
    assert page.rstrip().endswith(b"%%EOF")
    assert b"/ToUnicode" in page  # without it, text could not be searched


def test_nothing_is_fetched_for_a_chart() -> None:
    chart = alt.Chart(alt.UrlData("https://example.org/x.csv")).mark_bar().encode(x="a:Q")
    with pytest.raises(ValueError, match="not allowed"):
        chart_svg(chart.to_dict(), LIGHT)
