"""The picture that stands still: well-formed, complete, and nothing outside it."""

from __future__ import annotations

import re
from collections import Counter
from xml.etree import ElementTree

from backend.core.heads import Head, ModelShape
from backend.models import catalogue
from backend.tasks.circuit import Circuit
from backend.tasks.entity_tracking import ENTITY_TRACKING
from circuitviz.svg import circuit_svg

BASE = catalogue.circuit("base")
SHAPE = ModelShape(5, 8, 8, 16)
_NAMESPACE = "{http://www.w3.org/2000/svg}"


def test_every_head_is_drawn_once_inside_the_picture_in_its_colour() -> None:
    root = ElementTree.fromstring(circuit_svg(BASE, SHAPE, {"A": "last “<the>”"}))
    colours = Counter()
    for group in root.iter(f"{_NAMESPACE}g"):
        shape = group.find(f"{_NAMESPACE}path")
        if shape is None:
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
    assert re.findall(r"<title>(\S+), [^<]*</title><path [^>]*stroke=", svg) == ["L0.1"]


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


def test_a_notebook_shows_it() -> None:
    svg = circuit_svg(BASE, SHAPE)
    assert svg._repr_svg_() == svg
