"""The picture that stands still: well-formed, complete, and nothing outside it."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from xml.etree import ElementTree

import pytest

from backend.core.heads import Head, ModelShape
from backend.models import catalogue
from backend.tasks.circuit import Circuit
from backend.tasks.entity_tracking import ENTITY_TRACKING
from circuitviz.graph import circuit_graph, outside_heads
from circuitviz.layout import circuit_layout
from circuitviz.palette import HINDERS
from circuitviz.picture import circuit_picture
from circuitviz.svg import circuit_svg, drawn
from circuitviz.themes import DARK, LIGHT, Theme
from tests.dashboard import ROOT

BASE = catalogue.circuit("base")
SHAPE = ModelShape(5, 8, 8, 16)
_NAMESPACE = "{http://www.w3.org/2000/svg}"


def test_every_head_is_drawn_once_inside_the_picture_in_its_colour() -> None:
    root = ElementTree.fromstring(circuit_svg(BASE, SHAPE, {"A": "last “<the>”"}))
    colours = Counter()
    for group in root.iter(f"{_NAMESPACE}g"):
        shape = group.find(f"{_NAMESPACE}path")
        if shape is None or "data-head" not in group.attrib:
            continue
        x, y = map(float, re.findall(r"[\d.]+", shape.attrib["transform"])[:2])
        assert 0 < x < 960
        assert 0 < y < 600
        colours[shape.attrib["fill"]] += 1
    assert colours == {g.colour: len(BASE.heads(g.key)) for g in ENTITY_TRACKING.groups}
    text = [each.text for each in root.iter(f"{_NAMESPACE}text")]
    assert "last “<the>”" in text
    assert {group.name for group in ENTITY_TRACKING.groups} <= {*text}


def test_stronger_heads_are_larger() -> None:
    scores = [[-0.9, -0.1, 0.0, 0.0], [0.0] * 4]
    heads = {"A": (Head(0, 0), Head(0, 1))}
    circuit = Circuit.of(ENTITY_TRACKING, heads, provenance={"scores": {"A": scores}})
    found = re.findall(
        r"<title>(\S+), .*scale\(([\d.]+)\)", circuit_svg(circuit, ModelShape(2, 4, 4, 8))
    )
    sizes = {name: float(size) for name, size in found}
    assert sizes["L0.0"] > sizes["L0.1"]


def test_a_head_that_hinders_has_a_rim() -> None:
    scores = [[-0.9, 0.4, -0.2, 0.0], [0.0] * 4]
    heads = {"A": (Head(0, 0), Head(0, 1), Head(0, 2))}
    circuit = Circuit.of(ENTITY_TRACKING, heads, provenance={"scores": {"A": scores}})
    svg = circuit_svg(circuit, ModelShape(2, 4, 4, 8))
    rims = re.findall(r"<title>(\S+), [^<]*</title><path [^>]* stroke=\"([^\"]*)\"", svg)
    assert [name for name, colour in rims if colour == HINDERS] == ["L0.1"]


def test_names_do_not_cover_each_other_where_heads_are_crowded() -> None:
    shape = ModelShape(24, 16, 16, 64)
    heads = {key: [Head(layer, i) for layer in range(0, 24, 2) for i in range(4)] for key in "ABCD"}
    svg = circuit_svg(Circuit.of(ENTITY_TRACKING, heads), shape)
    names = [
        (float(x), float(y), name)
        for x, y, name in re.findall(r'<text x="([\d.]+)" y="([\d.]+)" [^>]*>(L\d+\.\d+)<', svg)
    ]
    assert names
    for place, (x, y, name) in enumerate(names):
        for other_x, other_y, _ in names[place + 1 :]:
            assert abs(x - other_x) >= 3.7 * len(name) or abs(y - other_y) >= 12


def with_switches(theme: Theme, outside_on: bool = False) -> ElementTree.Element:
    """The base circuit and all other heads, two of either kind switched."""
    extra = outside_heads(BASE, SHAPE)
    graph = circuit_graph(BASE, SHAPE, extra=extra)
    layout = circuit_layout(graph, SHAPE, grid=True)
    picture = circuit_picture(graph, layout, off_word="zero & <none>", outside_on=outside_on)
    off, switched = BASE.members[::9], extra[::40]
    return ElementTree.fromstring(drawn(picture.data, 1200, 760, theme, off, switched))


def heads_of(root: ElementTree.Element) -> dict[str, ElementTree.Element]:
    groups = root.iter(f"{_NAMESPACE}g")
    return {g.attrib["data-head"]: g for g in groups if "data-head" in g.attrib}


@pytest.mark.parametrize("outside_on", [False, True])
def test_switches_stand_as_they_are(outside_on: bool) -> None:
    found = heads_of(with_switches(LIGHT, outside_on))
    off = {f"{key} {head}" for key, head in BASE.members[::9]}
    switched = {f"{key} {head}" for key, head in outside_heads(BASE, SHAPE)[::40]}
    members = {f"{key} {head}" for key, head in BASE.members}
    on = {name for name, group in found.items() if group.attrib["data-switch"] == "on"}
    others = {*found} - members
    assert on == members - off | (others - switched if outside_on else switched)
    struck = {name for name, g in found.items() if len(g.findall(f"{_NAMESPACE}path")) == 2}
    assert struck == off
    for name in off:
        title = found[name].find(f"{_NAMESPACE}title")
        assert title is not None
        assert str(title.text).endswith("zero & <none>")


def test_edges_of_heads_that_are_off_are_pale() -> None:
    graph = circuit_graph(BASE, SHAPE)
    data = circuit_picture(graph, circuit_layout(graph, SHAPE)).data
    a_off = [key for key in BASE.members if key[0] == "A"]
    pale = [
        drawn(data, 900, 600, off=off).count('opacity="0.10"') for off in ((), a_off[:1], a_off)
    ]
    assert pale[0] == 0 < pale[1] < pale[2]


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_it_has_the_pages_colours_and_its_labels_are_text(theme: Theme) -> None:
    config = tomllib.loads((ROOT / ".streamlit/config.toml").read_text())["theme"][theme.name]
    assert (theme.background, theme.text) == (config["backgroundColor"], config["textColor"])
    root = with_switches(theme)
    background = root.find(f"{_NAMESPACE}rect")
    assert background is not None
    assert background.attrib["fill"] == theme.background
    assert root.attrib["fill"] == theme.text
    text = {each.text for each in root.iter(f"{_NAMESPACE}text")}
    assert {"logits", "zero & <none>", *(group.name for group in ENTITY_TRACKING.groups)} <= text
    wide = {
        each.text
        for each in ElementTree.fromstring(circuit_svg(BASE, SHAPE, width=1600, height=900)).iter(
            f"{_NAMESPACE}text"
        )
    }
    assert {str(head) for _, head in BASE.members} <= wide


def test_a_notebook_shows_it() -> None:
    svg = circuit_svg(BASE, SHAPE)
    assert svg._repr_svg_() == svg


@pytest.mark.parametrize("height", [300, 420, 600, 900])
def test_edges_never_run_back_behind_the_line_that_they_leave(height: int) -> None:
    """Those that end at a head: they leave their group's line, to the right of it."""
    root = ElementTree.fromstring(circuit_svg(BASE, SHAPE, height=height))
    ways = [
        path.attrib["d"] for path in root.iter(f"{_NAMESPACE}path") if "marker-end" in path.attrib
    ]
    assert ways
    for way in ways:
        start = float(re.findall(r"^M([\d.]+)", way)[0])
        lanes = [float(x) for x in re.findall(r"H([\d.]+)", way)]
        assert all(x >= start - 0.1 for x in lanes), way
