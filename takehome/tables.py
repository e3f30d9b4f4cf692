"""Tables as files: CSV for programs, Markdown and LaTeX for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd
from pandas.api.types import is_numeric_dtype

from backend.core.statistics import Estimate
from circuitviz.tables import Cell


def frame_of(headings: Sequence[str], rows: Iterable[Sequence[Cell]]) -> pd.DataFrame:
    """A table of figures with numbers in columns of their own: value, low, high and n of each.

    Lines of a text become one, with semicolons.
    """
    rows = [tuple(row) for row in rows]
    columns: dict[str, list[object]] = {}
    for place, heading in enumerate(headings):
        cells = [row[place] for row in rows]
        columns[heading] = [_plain(cell) for cell in cells]
        if any(isinstance(cell, Estimate) for cell in cells):
            for name in ("low", "high", "n"):
                columns[f"{heading}, {name}"] = [getattr(cell, name, None) for cell in cells]
    return pd.DataFrame(columns)


def worded(headings: Sequence[str], rows: Iterable[Sequence[Cell]]) -> pd.DataFrame:
    """The same table as people read it: each figure with its interval and n in one cell."""
    return pd.DataFrame([map(_in_words, row) for row in rows], columns=list(headings))


def csv(frame: pd.DataFrame) -> str:
    """A header, then a line for each row; figures with all their digits."""
    return frame.to_csv(index=False)


def markdown(frame: pd.DataFrame) -> str:
    """A table of GitHub's Markdown, its marks escaped."""
    head = _line(frame.columns)
    rule = "|".join("---:" if is_numeric_dtype(kind) else "---" for kind in frame.dtypes)
    rows = [_line(row) for row in frame.itertuples(index=False)]
    return "\n".join([head, f"|{rule}|", *rows]) + "\n"


def latex(frame: pd.DataFrame) -> str:
    """A tabular for the package booktabs, its special characters escaped."""
    sides = "".join("r" if is_numeric_dtype(kind) else "l" for kind in frame.dtypes)
    return str(frame.map(_cell).to_latex(index=False, escape=True, column_format=sides))


def _plain(cell: Cell) -> object:
    return cell.value if isinstance(cell, Estimate) else cell.replace("\n", "; ")


def _in_words(cell: Cell) -> str:
    if isinstance(cell, str):
        return cell.replace("\n", "; ")
    if cell.value != cell.value:
        return f"undefined (n = {cell.n})"
    return f"{cell.value:.3f} [{cell.low:.3f}, {cell.high:.3f}], n = {cell.n}"


def _line(cells: Iterable[object]) -> str:
    return f"| {' | '.join(_escaped(_cell(cell)) for cell in cells)} |"


def _cell(value: object) -> str:
    if value is None or value != value:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else " ".join(str(value).split())


def _escaped(text: str) -> str:
    return "".join(f"\\{letter}" if letter in r"\|`*_[]<>~$#" else letter for letter in text)
