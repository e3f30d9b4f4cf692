"""The figures that a click on a head moves, as a Streamlit component: no build step.

Python draws them with the rest of the page; before that, the circuit component hands over those
that it has fetched for a click. As there, the newer ones stay, unless the epoch has changed.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import streamlit as st

_FOLDER = Path(__file__).parent


def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


_mount = st.components.v2.component(
    "figures",
    html=_read("figures.html"),
    css=_read("figures.css"),
    js=_read("figures.js"),
    isolate_styles=False,
)


@dataclass(frozen=True)
class Figure:
    """A figure as it is read: plain text.

    change: since every head was on, and `way` which way that is, if it has moved; below: its
    interval, or why there is none; about: how it is measured.
    """

    label: str
    value: str
    change: str
    way: Literal["up", "down", ""]
    below: str
    about: str = ""


@dataclass(frozen=True)
class Figures:
    """Figures, what is said of all of them, and the outcome as a screen reader says it."""

    shown: tuple[Figure, ...]
    spoken: str
    note: str = ""


def figures_component(
    figures: Figures, *, served_sequence: int, epoch: int, key: str, large: bool = False
) -> None:
    """Show figures, those after the click with this sequence number.

    ``large`` is for a lecture hall: they grow with the screen.
    """
    data = {"served": served_sequence, "epoch": epoch, "large": large, "figures": asdict(figures)}
    _mount(key=key, data=data)
