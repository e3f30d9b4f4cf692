"""The look of each group: an Okabe–Ito colour, a text colour that reads on it, and a shape."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from backend.core.circuit import Group

COLOURS: Mapping[Group, str] = MappingProxyType(
    {Group.A: "#D55E00", Group.B: "#0072B2", Group.C: "#009E73", Group.D: "#CC79A7"}
)
"""Okabe and Ito's colours, told apart with every common kind of colour blindness."""

INKS: Mapping[Group, str] = MappingProxyType(
    {Group.A: "#000000", Group.B: "#FFFFFF", Group.C: "#000000", Group.D: "#000000"}
)
"""The text colour with a contrast of at least 4.5 on the group's colour."""

INK = "currentColor"
"""The text colour of the page, for charts: SVG takes it from there, also when the theme changes."""

SHAPES: Mapping[Group, str] = MappingProxyType(
    {
        Group.A: "M-1,0A1,1 0 1,1 1,0A1,1 0 1,1 -1,0Z",
        Group.B: "M-.89,-.89H.89V.89H-.89Z",
        Group.C: "M0,-1.2L1.2,.85H-1.2Z",
        Group.D: "M0,-1.25L1.25,0L0,1.25L-1.25,0Z",
    }
)
"""SVG paths of about equal area around (0, 0): circle, square, triangle, diamond."""
