"""Edges of the picture that stands still: in bundles by group, or each on its own if measured.

The same ways as on the page (`component/geometry.js`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from math import hypot
from typing import Any, NamedTuple

from circuitviz.themes import Theme, mixed

DASHES = {"q": "6 4", "k": "2 4"}
_TIPS = {"q": "M2,1L8,5L2,9", "k": "M8,0V10M2,5H8"}
_CORNER = 7
_LANE_SHIFT = 2
_LANE_ROW = 44
"""In rows lower than this, edges run along lanes between them."""


class Place(NamedTuple):
    """Where a head is drawn, in pixels."""

    x: float
    y: float
    radius: float


class Frame(NamedTuple):
    """Where units of the picture's data are, in pixels."""

    left: float
    right: float
    top: float
    bottom: float
    across: float
    up: float

    def x(self, units: float) -> float:
        """From the left of the picture."""
        return self.left + units * self.across

    def y(self, units: float) -> float:
        """From its top."""
        return self.bottom - units * self.up


def markers(data: Mapping[str, Any]) -> Iterator[str]:
    """The ends of edges: filled for values and logits, open for queries, a bar for keys."""
    for column in data["columns"]:
        tip, colour = _TIPS.get(column["composition"]), column["colour"]
        drawn = (
            f'<path d="{tip}" fill="none" stroke="{colour}" stroke-width="1.8"/>'
            if tip
            else f'<path d="M1,1L9,5L1,9Z" fill="{colour}"/>'
        )
        yield (
            f'<marker id="arrow-{column["group"]}" viewBox="0 0 10 10" refX="8" refY="5" '
            f'markerWidth="9" markerHeight="9" markerUnits="userSpaceOnUse" orient="auto">'
            f"{drawn}</marker>"
        )


def measured(
    data: Mapping[str, Any], places: Sequence[Place], on: Collection[int], theme: Theme
) -> Iterator[str]:
    """Each edge that has a score, as wide as it is strong; pale where an end of it is off."""
    for edge in data["measured"]:
        column = _column(data, data["nodes"][edge["source"]]["group"])
        colour = column["colour"] if edge["helps"] else theme.faded(0.72)
        is_on = edge["source"] in on and edge["target"] in on
        opacity = 0.3 + 0.6 * edge["strength"] if is_on else 0.1
        way = _direct(places[edge["source"]], places[edge["target"]])
        yield _path(way, colour, 1 + 6.5 * edge["strength"], opacity, _dash(column), _tip(column))


def bundles(
    data: Mapping[str, Any],
    frame: Frame,
    places: Sequence[Place],
    on: Collection[int],
    theme: Theme,
) -> Iterator[str]:
    """A stem from each head to its group's spine, and a branch from there to each that reads it."""
    for number, column in enumerate(data["columns"]):
        yield from _bundle(data, frame, places, on, theme, number, column)


def _bundle(
    data: Mapping[str, Any],
    frame: Frame,
    places: Sequence[Place],
    on: Collection[int],
    theme: Theme,
    number: int,
    column: Mapping[str, Any],
) -> Iterator[str]:
    nodes, rows, logits = data["nodes"], data["rows"], len(data["nodes"])
    sources = [i for i, node in enumerate(nodes) if node["group"] == column["group"] and node["to"]]
    targets = sorted({target for i in sources for target in nodes[i]["to"]})
    if not sources:
        return
    x = _spine(data, frame, number)
    has_lanes = frame.up < _LANE_ROW
    colour = mixed(column["colour"], 0.75, theme.text)

    def layer_of(i: int) -> int:
        return len(rows) if i == logits else int(nodes[i]["layer"])

    def writes(i: int, wanted: Callable[[int], bool]) -> bool:
        return i in on and any(target in on and wanted(target) for target in nodes[i]["to"])

    def drawn(way: str, width: float, opacity: float, live: bool, *look: str) -> str:
        return _path(way, colour, width, opacity if live else 0.1, *look)

    for i in sources:
        way = _stem(places[i], x, frame.y(rows[nodes[i]["layer"]]["top"]), has_lanes)
        yield drawn(way, 1.7, 0.6, writes(i, lambda _: True))
    for layer, row in enumerate(rows):
        below = [i for i in sources if nodes[i]["layer"] < layer]
        above = [target for target in targets if layer_of(target) > layer]
        if below and above:
            way = f"M{x:.1f},{frame.y(row['bottom']):.1f}V{frame.y(row['top']):.1f}"
            live = any(writes(i, above.__contains__) for i in below)
            yield drawn(way, 3, 0.7, live)
    for target in targets:
        live = target in on and any(i in on and target in nodes[i]["to"] for i in sources)
        if target == logits:
            way = f"M{x:.1f},{frame.y(data['height']) + 8:.1f}V{frame.top - 6:.1f}"
        else:
            leave = frame.y(rows[nodes[target]["layer"]]["bottom"])
            way = _branch(places[target], x, leave, has_lanes)
        yield drawn(way, 1.7, 0.6, live, _dash(column), _tip(column))
    if column["composition"] != "logits":
        low = max(frame.y(rows[nodes[i]["layer"]]["top"]) for i in sources)
        high = min(frame.y(rows[layer_of(i)]["bottom"]) for i in targets)
        yield _pill(column, x, (low + high) / 2, theme)


def _spine(data: Mapping[str, Any], frame: Frame, number: int) -> float:
    """Where a group's edges are gathered: the middle of the gap to the next column."""
    columns = data["columns"]
    if number + 1 == len(columns):
        return frame.x(data["width"])
    return frame.x((columns[number]["right"] + columns[number + 1]["left"]) / 2)


def logits_at(data: Mapping[str, Any], frame: Frame) -> Place:
    """Where the logits are: above the spine of the last group that writes into them."""
    numbers = [i for i, each in enumerate(data["columns"]) if each["composition"] == "logits"]
    return Place(min(_spine(data, frame, numbers[-1]), frame.right), frame.top - 22, 16)


def _stem(at: Place, spine: float, join: float, has_lanes: bool) -> str:
    across, up = spine - at.x, at.y - join
    if has_lanes:
        lane, reach = join + _LANE_SHIFT, at.x + min(up * 1.5, across - _CORNER)
        return (
            f"M{_point(at.x, at.y)}C{_point(at.x, lane)} {_point(at.x, lane)} "
            f"{_point(reach, lane)}H{spine - _CORNER:.1f}"
            f"Q{_point(spine, lane)} {_point(spine, lane - _CORNER)}"
        )
    return (
        f"M{_point(at.x, at.y)}C{_point(at.x + across * 0.3, at.y - up * 0.75)} "
        f"{_point(spine, join + up * 0.85)} {_point(spine, join)}"
    )


def _branch(at: Place, spine: float, leave: float, has_lanes: bool) -> str:
    across, up = at.x - spine, leave - at.y
    start = f"M{_point(spine, leave)}"
    if has_lanes:
        lane, away = leave - _LANE_SHIFT, at.radius + 2
        reach = max(at.x - up * 1.5, spine + _CORNER)
        return (
            f"{start}V{lane + _CORNER:.1f}Q{_point(spine, lane)} {_point(spine + _CORNER, lane)}"
            f"H{reach:.1f}Q{_point(max(at.x - up * 0.7, reach), lane)} "
            f"{_point(at.x - away * 0.6, at.y + away * 0.8)}"
        )
    control = at.x - across * 0.3, at.y + up * 0.75
    first = _point(spine, leave - up * 0.85)
    return f"{start}C{first} {_point(*control)} {_point(*_rim(at, control, 3))}"


def _direct(source: Place, target: Place) -> str:
    """A gentle curve from the rim of one place to the rim of another."""
    across, down = target.x - source.x, target.y - source.y
    first = source.x + across * 0.42, source.y + down * 0.22
    last = target.x - across * 0.42, target.y - down * 0.22
    start, end = _rim(source, first, 2), _rim(target, last, 4)
    return f"M{_point(*start)}C{_point(*first)} {_point(*last)} {_point(*end)}"


def _rim(place: Place, toward: tuple[float, float], gap: float) -> tuple[float, float]:
    x, y = toward[0] - place.x, toward[1] - place.y
    share = (place.radius + gap) / (hypot(x, y) or 1)
    return place.x + x * share, place.y + y * share


def _path(way: str, colour: str, width: float, opacity: float, *look: str) -> str:
    return (
        f'<path d="{way}" fill="none" stroke="{colour}" stroke-width="{width:.1f}" '
        f'opacity="{opacity:.2f}"{"".join(look)}/>'
    )


def _tip(column: Mapping[str, Any]) -> str:
    return f' marker-end="url(#arrow-{column["group"]})"'


def _dash(column: Mapping[str, Any]) -> str:
    dashes = DASHES.get(column["composition"])
    return f' stroke-dasharray="{dashes}"' if dashes else ""


def _pill(column: Mapping[str, Any], x: float, y: float, theme: Theme) -> str:
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="11" fill="{theme.background}" '
        f'stroke="{column["colour"]}" stroke-width="1.6"/>'
        f'<text x="{x:.1f}" y="{y + 4.5:.1f}" text-anchor="middle" font-size="14" '
        f'font-weight="bold" font-style="italic" fill="{theme.text}">{column["composition"]}</text>'
    )


def _column(data: Mapping[str, Any], group: str) -> Mapping[str, Any]:
    return next(column for column in data["columns"] if column["group"] == group)


def _point(x: float, y: float) -> str:
    return f"{x:.1f},{y:.1f}"
