"""Charts that are drawn once: as Altair draws them, and again only for other arguments."""

from __future__ import annotations

import altair as alt
import pandas as pd
import pytest
from altair.utils.schemapi import SchemaValidationError

from circuitviz.bare import bare, value_if
from circuitviz.specification import drawn_once


def line(frame: pd.DataFrame, colour: str = "#112233") -> alt.LayerChart:
    drawn.append(colour)
    return bare(
        alt.layer(alt.Chart(frame).mark_line(color=colour).encode(x="at:Q", y="share:Q")), 9
    )


drawn: list[str] = []


def frame(*shares: float) -> pd.DataFrame:
    return pd.DataFrame({"at": range(len(shares)), "share": shares, "name": ["a"] * len(shares)})


def test_equal_arguments_are_drawn_once_and_other_ones_anew() -> None:
    drawn.clear()
    once = drawn_once(line)
    first = once(frame(0.5, 1.0))
    assert first == line(frame(0.5, 1.0)).to_dict()
    drawn.clear()
    assert once(frame(0.5, 1.0)) == first
    assert not drawn
    assert once(frame(0.5, 0.25)) != first
    assert once(frame(0.5, 1.0), colour="#445566") != first
    assert drawn == ["#112233", "#445566"]


def test_what_is_done_to_a_specification_stays_with_who_did_it() -> None:
    once = drawn_once(line)
    once(frame(0.5))["layer"].clear()
    assert len(once(frame(0.5))["layer"]) == 1


def test_a_missing_number_is_null() -> None:
    (rows,) = drawn_once(line)(frame(0.5, float("nan")))["datasets"].values()
    assert [row["share"] for row in rows] == [0.5, None]


def test_more_rows_than_altair_allows_by_itself_are_drawn() -> None:
    (rows,) = drawn_once(line)(frame(*[0.5] * 6000))["datasets"].values()
    assert len(rows) == 6000


def test_a_value_that_a_row_decides_is_altairs_condition() -> None:
    dots = alt.Chart(frame(0.5)).mark_point()
    ours = dots.encode(color=value_if(alt.ColorValue, "datum.clear", "#112233", "#445566"))
    theirs = dots.encode(
        color=alt.condition("datum.clear", alt.value("#112233"), alt.value("#445566"))
    )
    assert ours.to_dict() == theirs.to_dict()


def wrong() -> alt.LayerChart:
    chart = bare(alt.layer(alt.Chart(frame(0.5)).mark_line().encode(x="at:Q")), 9)
    chart.height = "tall"
    return chart


def test_tests_check_what_the_app_takes_no_time_to_check() -> None:
    with pytest.raises(SchemaValidationError, match="tall"):
        drawn_once(wrong)()
