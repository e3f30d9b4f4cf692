"""The component's own files, for the dashboard and for files that stay clickable without it."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).parent / "component"


def read(*names: str) -> str:
    """Files of the component, one after the other."""
    return "\n".join((_FOLDER / name).read_text(encoding="utf-8") for name in names)


HTML = read("circuit.html")
CSS = read("circuit.css")
SCRIPT = read("geometry.js", "drawing.js", "circuit.js")
"""A module whose default export, `circuit`, draws a picture's data and tells of clicks."""
