"""The page's colours, light and dark, for pictures that leave it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Theme:
    """Background and text of the page, as `.streamlit/config.toml` has them, and what Streamlit
    gives labels and grids of charts beside them; all "#rrggbb"."""

    name: str
    background: str
    text: str
    label: str
    grid: str

    def faded(self, share: float) -> str:
        """So much of the text's colour, the rest of the background's: "#rrggbb"."""
        return mixed(self.text, share, self.background)


LIGHT = Theme("light", "#ffffff", "#1b1f2a", "#808495", "#e6eaf1")
DARK = Theme("dark", "#12151c", "#eceff6", "#e6eaf1", "#31333f")


def mixed(colour: str, share: float, other: str) -> str:
    """So much of a colour, the rest of the other; all "#rrggbb"."""
    pairs = zip(_parts(colour), _parts(other), strict=True)
    parts = (round(share * first + (1 - share) * second) for first, second in pairs)
    return "#" + "".join(f"{part:02x}" for part in parts)


def _parts(colour: str) -> list[int]:
    return [int(colour[start : start + 2], 16) for start in (1, 3, 5)]
