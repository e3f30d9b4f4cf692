"""What is on screen as files: one small control of the same look beside each chart and table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from backend.methods.requests import Request, models_of
from backend.tasks.prompts import Prompts
from circuitviz.picture import Picture
from circuitviz.specification import Specification
from circuitviz.svg import drawn
from circuitviz.tables import Cell, figures_table
from circuitviz.themes import DARK, LIGHT, Theme
from shell.frame.history import Switches
from shell.frame.words import unmarked
from takehome import tables
from takehome.names import file_name

_WIDTH = 320
"""Of what is behind the button, in pixels: no wider than a phone."""
_PICTURE = 1200, 760
"""Width and height, in pixels."""
_NO_SWITCHES = Switches()


@dataclass(frozen=True)
class File:
    """A file that is made when it is asked for."""

    label: str
    name: str
    mime: str
    make: Callable[[], str | bytes]


@dataclass(frozen=True)
class Origin:
    """Where something is shown and what it was measured on, for the names of its files."""

    page: str
    models: tuple[str, ...] = ()
    prompts: Prompts | None = None

    def name(self, what: str, suffix: str) -> str:
        """Of a file of this."""
        return file_name((self.page, what), self.models, self.prompts, suffix)


def origin_of(page: str, request: Request) -> Origin:
    """Of what answers a request."""
    return Origin(page, models_of(request), request.prompts)


def theme() -> Theme:
    """That of the page now."""
    return DARK if st.context.theme.type == "dark" else LIGHT


def show_chart(
    chart: Specification,
    origin: Origin,
    key: str,
    alt: str | None = None,
    on_select: Callable[[], None] | None = None,
    *,
    what: str = "",
    is_wide: bool = False,
) -> None:
    """A chart as wide as there is room, and its pictures, called `what` or else as the key.

    One that `is_wide` has more beside each other than a phone shows: there it is scrolled.
    """
    selected: Any = {"on_select": on_select} if on_select else {}
    with st.container(key=f"wide_{key}") if is_wide else nullcontext():
        st.vega_lite_chart(chart, width="stretch", key=key, alt=alt, **selected)
    show_control(key, lambda: chart_files(chart, origin, what or key))


def show_table(
    headings: Sequence[str], rows: Iterable[Sequence[Cell]], origin: Origin, key: str
) -> None:
    """A table of figures, and its files."""
    rows = [tuple(row) for row in rows]
    st.html(figures_table(headings, rows))
    show_control(key, lambda: figures_files(headings, rows, origin, key))


def show_control(key: str, files: Callable[[], Iterable[File]]) -> None:
    """A button with these files behind it; they are listed when it is open, made when chosen."""
    with st.container(horizontal=True, horizontal_alignment="right", key=f"home_{key}"):
        show_button(key, files)


def show_button(
    key: str, files: Callable[[], Iterable[File]], more: Callable[[], None] = lambda: None
) -> None:
    """The button alone, in a row of others; `more` is drawn below the files."""
    behind = st.popover(
        "Take home",
        icon=":material/download:",
        type="tertiary",
        key=f"take_home_{key}",
        on_change="rerun",
    )
    if not behind.open:
        return
    with behind, st.container(horizontal=True, gap="small", width=_WIDTH):
        for file in files():
            st.download_button(
                unmarked(file.label),
                file.make,
                file.name,
                file.mime,
                key=f"file_{key}_{file.label}",
                on_click="ignore",
            )
    with behind, st.container(width=_WIDTH):
        more()


def chart_files(chart: Specification, origin: Origin, what: str) -> list[File]:
    """A chart as SVG and PNG, in the colours of the page as it is now."""
    now = theme()
    return [
        File("SVG", origin.name(what, "svg"), "image/svg+xml", partial(_chart_svg, chart, now)),
        File("PNG", origin.name(what, "png"), "image/png", lambda: _png(_chart_svg(chart, now))),
    ]


def picture_files(
    picture: Picture, origin: Origin, what: str, switches: Switches = _NO_SWITCHES
) -> list[File]:
    """A circuit's picture with its switches as they stand, in the colours of the page."""
    svg = partial(
        drawn, picture.data, *_PICTURE, theme(), off=switches.off, switched=switches.switched
    )
    return [
        File("SVG", origin.name(what, "svg"), "image/svg+xml", svg),
        File("PNG", origin.name(what, "png"), "image/png", lambda: _png(svg())),
        File("PDF", origin.name(what, "pdf"), "application/pdf", lambda: _pdf(svg())),
    ]


def _png(svg: str) -> bytes:
    from takehome.pictures import png

    return png(svg)


def _pdf(svg: str) -> bytes:
    from takehome.pictures import pdf

    return pdf(svg)


def _chart_svg(chart: Specification, now: Theme) -> str:
    from takehome.pictures import chart_svg

    return chart_svg(chart, now)


def figures_files(
    headings: Sequence[str], rows: Sequence[Sequence[Cell]], origin: Origin, what: str
) -> list[File]:
    """A table of figures as CSV with every number by itself, and as people read it."""
    return _table_files(
        partial(tables.frame_of, headings, rows),
        partial(tables.worded, headings, rows),
        origin,
        what,
    )


def frame_files(frame: pd.DataFrame, origin: Origin, what: str) -> list[File]:
    """A frame in all forms."""
    return _table_files(lambda: frame, lambda: frame, origin, what)


def _table_files(
    numbers: Callable[[], pd.DataFrame],
    words: Callable[[], pd.DataFrame],
    origin: Origin,
    what: str,
) -> list[File]:
    return [
        File("CSV", origin.name(what, "csv"), "text/csv", lambda: tables.csv(numbers())),
        File(
            "Markdown",
            origin.name(what, "md"),
            "text/markdown",
            lambda: tables.markdown(words()),
        ),
        File("LaTeX", origin.name(what, "tex"), "text/x-tex", lambda: tables.latex(words())),
    ]
