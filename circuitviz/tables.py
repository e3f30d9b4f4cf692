"""Tables of figures for the page as HTML: the figure large, its interval and its n below it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from math import isnan

from backend.core.statistics import Estimate

Cell = Estimate | str
MINUS = "\N{MINUS SIGN}"


def figures_table(headings: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """A table of estimates and words; the first cell of each row names it.

    Lines below the first one of a text are its details.
    """
    head = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in headings)
    body = "".join(
        f'<tr><th scope="row">{_cell(first)}</th>{"".join(map(_data, others))}</tr>'
        for first, *others in rows
    )
    return (
        '<div class="figures-frame"><table class="figures">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def signed(number: float, digits: int = 3) -> str:
    """A number with its sign, the minus a true one."""
    return f"{number:+.{digits}f}".replace("-", MINUS)


def _data(cell: Cell) -> str:
    is_words = isinstance(cell, str) and len(cell.split("\n")[0]) > _LONGEST_FIGURE
    return f'<td class="words">{_cell(cell)}</td>' if is_words else f"<td>{_cell(cell)}</td>"


_LONGEST_FIGURE = 12


def _cell(cell: Cell) -> str:
    if isinstance(cell, str):
        return _written(*cell.split("\n"))
    if isnan(cell.value):
        return _written("undefined", f"n = {cell.n}")
    told = ["too few to say how much"] if cell.is_vague else []
    interval = f"{_plain(cell.low)} to {_plain(cell.high)}, n = {cell.n}"
    return _written(_plain(cell.value), interval, *told)


def _plain(number: float) -> str:
    return f"{number:.3f}".replace("-", MINUS)


def _written(figure: str, *details: str) -> str:
    below = "".join(f"<small>{escape(detail)}</small>" for detail in details)
    return f"<span>{escape(figure)}</span>{below}"
