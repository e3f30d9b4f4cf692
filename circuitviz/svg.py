"""A picture that stands still, as one SVG: for a notebook, a paper or a talk."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from html import escape
from typing import Any

from backend.core.heads import ModelShape
from backend.tasks.circuit import Circuit
from circuitviz.graph import NodeKey, circuit_graph
from circuitviz.layout import circuit_layout
from circuitviz.picture import circuit_picture, node_id
from circuitviz.provenance import evidence_of, scores_of
from circuitviz.svg_edges import DASHES, Frame, Place, bundles, logits_at, markers, measured
from circuitviz.themes import LIGHT, Theme, mixed

_LEFT, _RIGHT, _TOP, _LEGEND_ROW = 52, 62, 100, 24
_LARGEST, _SMALLEST = 26.0, 6.0
_FONT = "Source Sans, Helvetica Neue, Arial, sans-serif"
_LETTER = 7.2
"""About the width of a letter of the legend, in pixels."""


class Svg(str):
    """SVG text, which a notebook shows as a picture."""

    def _repr_svg_(self) -> str:
        return str(self)


def circuit_svg(
    circuit: Circuit,
    shape: ModelShape,
    words: Mapping[str, str] | None = None,
    *,
    width: int = 960,
    height: int = 600,
    theme: Theme = LIGHT,
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
    picture = circuit_picture(graph, layout, words, switchable=False)
    return drawn(picture.data, width, height, theme)


def drawn(
    data: Mapping[str, Any],
    width: int,
    height: int,
    theme: Theme = LIGHT,
    off: Collection[NodeKey] = (),
    switched: Collection[NodeKey] = (),
) -> Svg:
    """A picture's data as SVG of so many pixels, with its switches as they stand.

    off: heads of the circuit that are off; switched: others that are not as usual.
    """
    on = _on(data, {*map(node_id, off)}, {*map(node_id, switched)})
    legend = _legend(data, width, theme)
    bottom = height - 14 - _LEGEND_ROW * len(legend)
    frame = Frame(
        _LEFT,
        width - _RIGHT,
        _TOP,
        bottom,
        (width - _LEFT - _RIGHT) / data["width"],
        (bottom - _TOP) / data["height"],
    )
    logits = logits_at(data, frame)
    places = [
        *(_place(node, frame) for node in data["nodes"]),
        Place(logits.x - 16, logits.y + 15, 0),
    ]
    edges = (
        measured(data, places, on, theme)
        if data["isMeasured"]
        else bundles(data, frame, places, on, theme)
    )
    names = _names(data, places, bottom)
    heads = [
        _head(data, i, places[i], names[i], i in on, theme)
        for i in sorted(range(len(names)), key=lambda i: data["nodes"][i]["inCircuit"])
    ]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" font-family="{_FONT}" font-size="14" fill="{theme.text}">',
        f"<title>{escape(data['title'])}</title>",
        f"<defs>{''.join(markers(data))}</defs>",
        f'<rect width="{width}" height="{height}" fill="{theme.background}"/>',
        *_axis(data, frame, theme),
        *edges,
        *heads,
        _logits(logits, theme),
        *(
            f'<g transform="translate(0,{bottom + 14 + _LEGEND_ROW * row})">{entries}</g>'
            for row, entries in enumerate(legend)
        ),
        "</svg>",
    ]
    return Svg("\n".join(parts))


def _on(data: Mapping[str, Any], off: set[str], switched: set[str]) -> frozenset[int]:
    """Numbers of the heads that are on, and of the logits after them."""

    def is_on(node: Mapping[str, Any]) -> bool:
        if node["inCircuit"]:
            return node["id"] not in off
        return bool(data["outsideOn"] != (node["id"] in switched))

    nodes = data["nodes"]
    return frozenset({*(i for i, node in enumerate(nodes) if is_on(node)), len(nodes)})


def _place(node: Mapping[str, Any], frame: Frame) -> Place:
    across, up = frame.across, frame.up
    with_name, alone = min(across * 0.37, (up - 14) * 0.42), min(across * 0.37, up * 0.4, 9)
    largest = min(max(with_name, alone, 3), _LARGEST)
    smallest = max(largest * 0.4, min(largest, _SMALLEST))
    radius = smallest + (largest - smallest) * node["size"]
    if not node["inCircuit"] and not node["hinders"]:
        radius = min(smallest, 7)
    return Place(frame.x(node["x"]), frame.y(node["y"]), radius)


def _axis(data: Mapping[str, Any], frame: Frame, theme: Theme) -> Iterator[str]:
    for column in data["columns"]:
        left, right = frame.x(column["left"]), frame.x(column["right"])
        yield (
            f'<rect x="{left - 8:.1f}" y="{frame.top}" width="{right - left + 16:.1f}" '
            f'height="{frame.bottom - frame.top:.1f}" rx="10" fill="{theme.faded(0.04)}"/>'
        )
        yield from _heading(column, (left + right) / 2, theme)
    for layer, row in enumerate(data["rows"]):
        edge, middle = frame.y(row["top"]), frame.y((row["bottom"] + row["top"]) / 2)
        if edge > frame.top + 1:
            yield (
                f'<path d="M{frame.left - 8},{edge:.1f}H{frame.right}" '
                f'stroke="{theme.faded(0.12)}"/>'
            )
        if not row["empty"] or frame.up > 40:
            weight = f'fill="{theme.faded(0.72)}"' if row["empty"] else 'font-weight="bold"'
            yield _text(frame.left - 14, middle + 5, f"L{layer}", f'text-anchor="end" {weight}')


def _heading(column: Mapping[str, Any], x: float, theme: Theme) -> Iterator[str]:
    middle = 'text-anchor="middle"'
    if column["word"]:
        yield _text(x, 20, column["word"], f'{middle} fill="{theme.faded(0.72)}" font-size="15"')
    yield (
        f'<path d="{column["shape"]}" transform="translate({x:.1f},42) scale(10)" '
        f'fill="{column["colour"]}"/>'
    )
    size = max(7, 14 - 3 * len(column["group"]))
    look = f'{middle} fill="{column["ink"]}" font-size="{size}" font-weight="bold"'
    yield _text(x, 46 + 10 * column["middle"], column["group"], look)
    yield _text(x, 74, column["name"], f'{middle} font-size="16" font-weight="bold"')


def _head(
    data: Mapping[str, Any],
    i: int,
    place: Place,
    name: tuple[float, float] | None,
    is_on: bool,
    theme: Theme,
) -> str:
    node = data["nodes"][i]
    column = next(each for each in data["columns"] if each["group"] == node["group"])
    is_usual = is_on == (node["inCircuit"] or data["outsideOn"])
    switch = "" if is_usual else ", on" if is_on else f", {data['offWord']}"
    said = ", ".join(filter(None, (node["spoken"], node["evidence"]))) + switch
    x, y, radius = place
    drawn = (
        f'<path d="{column["shape"]}" transform="translate({x:.1f},{y:.1f}) scale({radius:.1f})" '
        f"{_look(data, node, column['colour'], radius, is_on, theme)}/>"
    )
    strike = radius + 4
    if node["inCircuit"] and not is_on:
        drawn += (
            f'<path d="M{x - strike:.1f},{y + strike:.1f}L{x + strike:.1f},{y - strike:.1f}" '
            f'stroke="{theme.text}" stroke-width="2"/>'
        )
    pale = ' opacity="0.6"' if node["inCircuit"] and not is_on else ""
    edged = f'stroke="{theme.background}" stroke-width="3.5" paint-order="stroke"'
    label = _text(*name, node["name"], f'text-anchor="middle" {edged}{pale}') if name else ""
    return (
        f'<g data-head="{escape(node["id"])}" data-switch="{"on" if is_on else "off"}">'
        f"<title>{escape(said)}</title>{drawn}{label}</g>"
    )


def _look(
    data: Mapping[str, Any],
    node: Mapping[str, Any],
    colour: str,
    radius: float,
    is_on: bool,
    theme: Theme,
) -> str:
    """Fill and outline of a head, as on the page; the outline's width is in radii."""
    hinders, paper, calm = data["hinderColour"], theme.background, theme.faded(0.72)
    fill, edge, width, opacity = _weighed(data, node, colour, theme), colour, 2.0, 1.0
    dashes = ""
    if node["inCircuit"] and not is_on:
        fill, opacity, dashes = paper, 0.75, f' stroke-dasharray="{3 / radius:.2f}"'
    elif not node["inCircuit"]:
        edge, width = theme.text, 2.0
        if not is_on or data["outsideOn"]:
            fill, edge, width, opacity = paper, calm, 1.2, 0.7
    if node["hinders"]:
        edge, width = hinders, 3.0
        if not node["inCircuit"]:
            opacity = 1.0
    return (
        f'fill="{fill}" stroke="{edge}" stroke-width="{width / radius:.3f}" '
        f'opacity="{opacity}"{dashes}'
    )


def _weighed(data: Mapping[str, Any], node: Mapping[str, Any], colour: str, theme: Theme) -> str:
    """The fill of a head that is on: its group's colour, or that of what it adds."""
    if not node.get("adds"):
        return colour
    share = node["share"]
    if share is None:
        return theme.background
    of = data["helpColour"] if share > 0 else data["hinderColour"]
    return mixed(_hex(of), round(10 + 90 * abs(share)) / 100, theme.background)


def _hex(colour: str) -> str:
    """A colour "rgb(r,g,b)" as "#rrggbb"."""
    parts = colour.removeprefix("rgb(").removesuffix(")").split(",")
    return "#" + "".join(f"{int(part):02x}" for part in parts)


def _names(
    data: Mapping[str, Any], places: list[Place], bottom: float
) -> list[tuple[float, float] | None]:
    """Where each head's name stands, below or beside it; nowhere if it would touch another.

    The strongest heads come first.
    """
    taken = [(x - r, y - r, x + r, y + r) for x, y, r in places]
    found: list[tuple[float, float] | None] = [None] * len(data["nodes"])
    named = [i for i, node in enumerate(data["nodes"]) if node["inCircuit"]]
    for i in sorted(named, key=lambda i: -data["nodes"][i]["size"]):
        x, y, radius = places[i]
        half = 3.9 * len(data["nodes"][i]["name"])
        for middle, base in ((x, y + radius + 14), (x + radius + half + 3, y + 5)):
            box = (middle - half, base - 11, middle + half, base + 3)
            others = (other for other in range(len(taken)) if other != i)
            if base < bottom + 4 and not any(_touch(box, taken[other]) for other in others):
                taken.append(box)
                found[i] = middle, base
                break
    return found


def _touch(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _logits(place: Place, theme: Theme) -> str:
    return (
        f'<g transform="translate({place.x:.1f},{place.y:.1f})">'
        f'<rect x="-33" y="-15" width="66" height="30" rx="8" fill="{theme.background}" '
        f'stroke="{theme.text}" stroke-width="1.6"/>'
        + _text(0, 5, "logits", 'text-anchor="middle" font-size="16" font-weight="bold"')
        + "</g>"
    )


def _legend(data: Mapping[str, Any], width: int, theme: Theme) -> list[str]:
    """The legend's rows, each of entries beside each other."""
    rows: list[str] = []
    room = 0.0
    for sample, words in _entries(data, theme):
        taken = 52 + _LETTER * len(words) + 18
        if taken > room:
            rows.append("")
            room = float(width - _LEFT)
        x = width - room
        rows[-1] += f'<g transform="translate({x:.1f},0)">{sample}'
        rows[-1] += _text(52, 16, words, f'fill="{theme.faded(0.72)}"') + "</g>"
        room -= taken
    return rows


def _entries(data: Mapping[str, Any], theme: Theme) -> Iterator[tuple[str, str]]:
    """A sample and what it means, as the page's legend has them."""
    calm = theme.faded(0.72)
    line = f'fill="none" stroke="{calm}" stroke-width="1.8"'
    yield (
        "".join(f'<circle cx="{x}" cy="11" r="{r}" fill="{calm}"/>' for x, r in _SIZES),
        "weak – strong score, one scale for all groups",
    )
    for composition, (words, tip) in _READ.items():
        if any(column["composition"] == composition for column in data["columns"]):
            dashes = DASHES.get(composition)
            look = f'{line} stroke-dasharray="{dashes}"' if dashes else line
            yield f'<path d="M2,11H38" {look}/><path d="{tip}" {line}/>', words
    if data["isMeasured"]:
        widths = ((2, 1), (16, 3), (30, 7))
        drawn = (
            f'<path d="M{x},15L{x + 11},7" stroke="{calm}" stroke-width="{width}"/>'
            for x, width in widths
        )
        yield "".join(drawn), "weak – strong edge"
    else:
        hair = f'<path d="M2,11H42" stroke="{calm}" stroke-width="1"/>'
        yield hair, "edges: not measured, or none clear"
    if data["switchable"]:
        circle = f'<circle cx="28" cy="11" r="8" stroke-dasharray="3 3" {line}/>'
        yield f'{circle}<path d="M20,19L36,3" {line}/>', data["offWord"]
    if any(node["hinders"] for node in data["nodes"]):
        rim = f'fill="none" stroke="{data["hinderColour"]}" stroke-width="3"'
        yield f'<circle cx="28" cy="11" r="7" {rim}/>', "positive score: hinders the answer"
    if data["contributions"]:
        yield _scale(data, theme), f"contribution, {data['contributions']} logits"
    if any(not node["inCircuit"] for node in data["nodes"]):
        yield f'<circle cx="28" cy="11" r="5" {line}/>', data["outsideWord"]


_SIZES = ((6, 3), (18, 5.5), (35, 8.5))
_READ = {
    "v": ("read as value (v)", "M33,6L42,11L33,16Z"),
    "q": ("read as query (q)", "M34,6L41,11L34,16"),
    "k": ("read as key (k)", "M41,5V17"),
}


def _scale(data: Mapping[str, Any], theme: Theme) -> str:
    looks = (("hinderColour", 1.0), ("hinderColour", 0.4), ("helpColour", 0.4), ("helpColour", 1.0))
    return "".join(
        f'<rect x="{11 * i}" y="4" width="11" height="14" '
        f'fill="{mixed(_hex(data[name]), share, theme.background)}"/>'
        for i, (name, share) in enumerate(looks)
    )


def _text(x: float, y: float, text: str, look: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {look}>{escape(text)}</text>'
