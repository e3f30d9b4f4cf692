"""Tables as files are read back as what they were."""

from __future__ import annotations

import io
from math import nan

import pandas as pd
from pandas.testing import assert_frame_equal

from backend.core.statistics import Estimate
from takehome.tables import csv, frame_of, latex, markdown, worded

HEADINGS = ("Model", "Accuracy", "Note")
ROWS = [
    ("a|b <i>\n*x*", Estimate(0.123456789, 0.1, 0.2, 50), "–"),
    ("100 % & $5_{x}$", Estimate(nan, nan, nan, 3), "too\nfew"),
]


def read_markdown(text: str) -> list[list[str]]:
    """Cells of a table of GitHub's Markdown, by its rules: a bar ends a cell unless escaped."""
    rows = []
    for line in text.strip().splitlines():
        cells, cell, letters = [], "", iter(line)
        for letter in letters:
            if letter == "\\":
                cell += next(letters)
            elif letter == "|":
                cells.append(cell.strip())
                cell = ""
            else:
                cell += letter
        rows.append(cells[1:])
    return rows


def test_figures_come_back_from_csv_with_all_their_digits() -> None:
    frame = frame_of(HEADINGS, ROWS)
    assert [*frame] == [
        "Model",
        "Accuracy",
        "Accuracy, low",
        "Accuracy, high",
        "Accuracy, n",
        "Note",
    ]
    assert frame["Accuracy"][0] == ROWS[0][1].value
    assert frame["Model"][0] == "a|b <i>; *x*"
    assert_frame_equal(pd.read_csv(io.StringIO(csv(frame))), frame, check_dtype=False)


def test_markdown_comes_back_cell_by_cell() -> None:
    frame = worded(HEADINGS, ROWS)
    head, rule, *rows = read_markdown(markdown(frame))
    assert head == [*HEADINGS]
    assert rule == ["---"] * 3
    assert rows == frame.values.tolist()
    assert rows[0][1] == "0.123 [0.100, 0.200], n = 50"
    assert rows[1][1] == "undefined (n = 3)"


def test_numbers_stand_on_the_right() -> None:
    frame = pd.DataFrame({"of": ["a"], "value": [0.5]})
    assert read_markdown(markdown(frame))[1] == ["---", "---:"]
    assert "{lr}" in latex(frame)


def test_latex_has_every_cell_and_its_special_characters_escaped() -> None:
    text = latex(worded(HEADINGS, ROWS))
    assert text.count(r"\\") == 1 + len(ROWS)
    assert r"100 \% \& \$5\_\{x\}\$" in text
    assert "0.123 [0.100, 0.200], n = 50" in text
