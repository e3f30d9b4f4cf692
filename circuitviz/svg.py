"""A picture that stands still, as one SVG: for a notebook, a paper or a talk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from html import escape
from math import hypot
from typing import Any, NamedTuple

from backend.core.heads import ModelShape
from backend.tasks.circuit import Circuit
from circuitviz.graph import circuit_graph
from circuitviz.layout import circuit_layout
from circuitviz.picture import circuit_picture
from circuitviz.provenance import evidence_of, scores_of

_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 62, 96, 36
_LARGEST, _SMALLEST = 20.0, 5.0
_CALM, _HAIR, _BAND = "#555", "#ddd", "#f6f6f6"
_DASHES = {"q": "6 4", "k": "2 3"}
_LINES = {"v": "lines: read as values", "q": "dashed: as queries", "k": "dotted: as keys"}


class Svg(str):
    """SVG text, which a notebook shows as a picture."""

    def _repr_svg_(self) -> str:
        return str(self)


class _Place(NamedTuple):
    x: float
    y: float
    radius: float


def circuit_svg(
    circuit: Circuit,
    shape: ModelShape,
    words: Mapping[str, str] | None = None,
    *,
    width: int = 960,
    height: int = 600,
) -> Svg:
    """The circuit in a model of this shape, in pixels: columns are groups, layers go upward.

    Heads are sized by the scores that the circuit came with, on one scale for all groups. `words`
    names each group's token, by the group's key. Raises UserError if the model lacks a head.
    """
    members = circuit.members
    graph = circuit_graph(
        circuit,
        shape,
        scores_of(circuit, members),
        evidence=evidence_of(circuit, members),
    )
    layout = circuit_layout(graph, shape, aspect=width / height)
    return drawn(circuit_picture(graph, layout, words, switchable=False).data, width, height)


def drawn(data: Mapping[str, Any], width: int, height: int) -> Svg:
    """A picture's data as SVG of so many pixels."""
    columns = {column["group"]: column for column in data["columns"]}
    places = _places(data, width, height)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" font-family="sans-serif" font-size="13">',
        f"<title>{escape(data['title'])}</title>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        *_axis(data, width, height),
        *_edges(data, columns, places),
        *(
            _head(node, columns[node["group"]], place, name, data["hinderColour"])
            for node, place, name in zip(data["nodes"], places, _names(data, places), strict=False)
        ),
        _logits(places[-1]),
        _legend(columns.values(), height),
        "</svg>",
    ]
    return Svg("\n".join(parts))


def _units(data: Mapping[str, Any], width: int, height: int) -> tuple[float, float]:
    """Pixels in a slot and in a row."""
    return (
        (width - _LEFT - _RIGHT) / data["width"],
        (height - _TOP - _BOTTOM) / data["height"],
    )


def _places(data: Mapping[str, Any], width: int, height: int) -> list[_Place]:
    """Of every head, and of the logits after them."""
    across, up = _units(data, width, height)
    largest = max(_SMALLEST, min(_LARGEST, across * 0.37, (up - 14) * 0.45))
    smallest = min(largest, max(largest * 0.4, _SMALLEST))

    def at(node: Mapping[str, Any]) -> _Place:
        radius = smallest + (largest - smallest) * node["size"]
        return _Place(_LEFT + node["x"] * across, height - _BOTTOM - node["y"] * up, radius)

    return [*map(at, data["nodes"]), _Place(width - _RIGHT + 4, _TOP - 24, 16)]


def _axis(data: Mapping[str, Any], width: int, height: int) -> Iterator[str]:
    across, up = _units(data, width, height)
    bottom = height - _BOTTOM
    for column in data["columns"]:
        left, right = (_LEFT + column[side] * across for side in ("left", "right"))
        yield (
            f'<rect x="{left - 8:.1f}" y="{_TOP}" width="{right - left + 16:.1f}" '
            f'height="{bottom - _TOP}" rx="10" fill="{_BAND}"/>'
        )
        yield from _heading(column, (left + right) / 2)
    for layer, row in enumerate(data["rows"]):
        edge, middle = (bottom - y * up for y in (row["top"], (row["bottom"] + row["top"]) / 2))
        yield f'<path d="M{_LEFT - 8},{edge:.1f}H{width - _RIGHT}" stroke="{_HAIR}"/>'
        if not row["empty"] or up > 40:
            yield _text(_LEFT - 14, middle + 5, f"L{layer}", 'text-anchor="end"')


def _heading(column: Mapping[str, Any], x: float) -> Iterator[str]:
    middle = 'text-anchor="middle"'
    if column["word"]:
        yield _text(x, 18, column["word"], f'{middle} fill="{_CALM}"')
    yield (
        f'<path d="{column["shape"]}" transform="translate({x:.1f},40) scale(10)" '
        f'fill="{column["colour"]}"/>'
    )
    size = max(7, 14 - 3 * len(column["group"]))
    look = f'{middle} fill="{column["ink"]}" font-size="{size}" font-weight="bold"'
    yield _text(x, 44 + 10 * column["middle"], column["group"], look)
    yield _text(x, 72, column["name"], f'{middle} font-weight="bold"')


def _edges(
    data: Mapping[str, Any], columns: Mapping[str, Mapping[str, Any]], places: list[_Place]
) -> Iterator[str]:
    if data["isMeasured"]:
        edges = [(edge["source"], edge["target"], edge["strength"]) for edge in data["measured"]]
    else:
        edges = [
            (source, target, 0.0)
            for source, node in enumerate(data["nodes"])
            for target in node["to"]
        ]
    for source, target, strength in edges:
        column = columns[data["nodes"][source]["group"]]
        dashes = _DASHES.get(column["composition"])
        yield (
            f'<path d="{_curve(places[source], places[target])}" fill="none" '
            f'stroke="{column["colour"]}" stroke-width="{1 + 5 * strength:.1f}" '
            f'opacity="{0.35 + 0.5 * strength:.2f}"'
            + (f' stroke-dasharray="{dashes}"/>' if dashes else "/>")
        )


def _curve(source: _Place, target: _Place) -> str:
    """A gentle curve from the rim of one place to the rim of another."""
    across, down = target.x - source.x, target.y - source.y
    first = source.x + across * 0.42, source.y + down * 0.22
    last = target.x - across * 0.42, target.y - down * 0.22
    start, end = _rim(source, first, 2), _rim(target, last, 3)
    return f"M{_points([start])}C{_points([first, last, end])}"


def _rim(place: _Place, toward: tuple[float, float], gap: float) -> tuple[float, float]:
    x, y = toward[0] - place.x, toward[1] - place.y
    share = (place.radius + gap) / (hypot(x, y) or 1)
    return place.x + x * share, place.y + y * share


def _points(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _head(
    node: Mapping[str, Any],
    column: Mapping[str, Any],
    place: _Place,
    name: tuple[float, float] | None,
    hinders: str,
) -> str:
    said = ", ".join(filter(None, (node["spoken"], node["evidence"])))
    x, y, radius = place
    rim = f' stroke="{hinders}" stroke-width="{3 / radius:.2f}"' if node["hinders"] else ""
    return (
        f'<g><title>{escape(said)}</title><path d="{column["shape"]}" fill="{column["colour"]}" '
        f'transform="translate({x:.1f},{y:.1f}) scale({radius:.1f})"{rim}/>'
        + (_text(*name, node["name"], 'text-anchor="middle"') if name else "")
        + "</g>"
    )


def _names(data: Mapping[str, Any], places: list[_Place]) -> list[tuple[float, float] | None]:
    """Where each head's name stands, below or beside it; nowhere if it would touch another.

    The strongest heads come first.
    """
    taken = [(x - r, y - r, x + r, y + r) for x, y, r in places]
    found: list[tuple[float, float] | None] = [None] * len(data["nodes"])
    for i in sorted(range(len(found)), key=lambda i: -data["nodes"][i]["size"]):
        x, y, radius = places[i]
        half = 3.7 * len(data["nodes"][i]["name"])
        for middle, base in ((x, y + radius + 13), (x + radius + half + 3, y + 5)):
            box = (middle - half, base - 10, middle + half, base + 3)
            others = (other for other in range(len(taken)) if other != i)
            if not any(_touch(box, taken[other]) for other in others):
                taken.append(box)
                found[i] = middle, base
                break
    return found


def _touch(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _logits(place: _Place) -> str:
    x, y, _ = place
    return (
        f'<g transform="translate({x:.1f},{y:.1f})">'
        '<rect x="-30" y="-14" width="60" height="28" rx="8" fill="#fff" stroke="#000"/>'
        + _text(0, 5, "logits", 'text-anchor="middle"')
        + "</g>"
    )


def _legend(columns: Iterable[Mapping[str, Any]], height: int) -> str:
    there = {column["composition"] for column in columns}
    said = "; ".join(words for composition, words in _LINES.items() if composition in there)
    return _text(_LEFT, height - 12, said, f'fill="{_CALM}"')


def _text(x: float, y: float, text: str, look: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {look}>{escape(text)}</text>'
