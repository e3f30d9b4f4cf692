"""The look of groups: colours come from the task, and so do the names of shapes."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from backend.tasks.task import Task

INK = "currentColor"
"""The text colour of the page, for charts: SVG takes it from there, also when the theme changes."""

HELPS = "rgb(200,50,24)"
"""Heads with negative scores: the answer needs them."""
HINDERS = "rgb(40,104,200)"
"""Heads with positive scores: the answer is more likely without them."""

SHAPES: Mapping[str, str] = MappingProxyType(
    {
        "circle": "M-1,0A1,1 0 1,1 1,0A1,1 0 1,1 -1,0Z",
        "square": "M-.89,-.89H.89V.89H-.89Z",
        "triangle": "M0,-1.2L1.2,.85H-1.2Z",
        "diamond": "M0,-1.25L1.25,0L0,1.25L-1.25,0Z",
        "hexagon": "M-.55,-.95H.55L1.1,0L.55,.95H-.55L-1.1,0Z",
    }
)
"""SVG paths of about equal area around (0, 0)."""

_MIDDLES = {"triangle": 0.16}
"""How far below (0, 0) the middle of a shape is, where a letter stands."""


def colours(task: Task) -> dict[str, str]:
    """The colour of each group of a task, by its key."""
    return {group.key: group.colour for group in task.groups}


def ink_on(colour: str) -> str:
    """Black or white, whichever has more contrast on a colour such as "#0072B2" (WCAG 2)."""
    luminance = _luminance(colour)
    return "#FFFFFF" if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05 else "#000000"


def middle_of(shape: str) -> float:
    """How far below (0, 0) the middle of a shape is."""
    return _MIDDLES.get(shape, 0.0)


def _luminance(colour: str) -> float:
    parts = (int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5))
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
