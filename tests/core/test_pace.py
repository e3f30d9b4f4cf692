"""One estimate for the whole of the work, which never runs backwards."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.core.pace import Pace


def after(*told: tuple[float, float]) -> Pace:
    """The pace when shares were told at these moments."""
    pace = Pace()
    for share, at in told:
        pace = pace.told(share, at)
    return pace


def test_steady_work_takes_as_long_as_it_takes() -> None:
    steady = [(0.01 + step / 100, 7.0 + step) for step in range(50)]
    assert after(*steady).seconds_left(7.0 + 49) == pytest.approx(50)
    assert after(*steady).seconds_left(7.0 + 59) == pytest.approx(40)  # nothing was told meanwhile


def test_what_was_there_already_makes_it_no_faster() -> None:
    """A job that goes on where it was, and takes half a minute to start."""
    told = [(0.0, 0.0), (0.5, 30.0), *((0.5 + step / 100, 30.0 + step) for step in range(1, 11))]
    assert after(*told).seconds_left(40.0) == pytest.approx(40)


def test_nothing_is_said_before_anything_is_known() -> None:
    assert Pace().seconds_left(5.0) is None
    assert after((0.0, 0.0), (0.3, 10.0)).seconds_left(10.0) is None
    assert after((0.0, 0.0), (0.3, 10.0), (0.31, 11.0)).seconds_left(11.0) is None


def test_another_rate_is_followed_but_not_at_once() -> None:
    slow = [(0.01 + step / 1000, float(step)) for step in range(100)]
    faster = [(slow[-1][0] + step / 100, 99.0 + step) for step in range(1, 61)]
    before = after(*slow).seconds_left(99.0)
    just_after = after(*slow, *faster[:3]).seconds_left(102.0)
    assert before
    assert just_after
    assert before > just_after > 0.5 * before
    assert after(*slow, *faster).seconds_left(159.0) == pytest.approx(29, rel=0.6)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 100))))
def test_the_share_never_falls_and_the_estimate_is_never_negative(
    steps: list[tuple[float, float]],
) -> None:
    pace, now = Pace(), 0.0
    for share, seconds in steps:
        now += seconds
        before, pace = pace.share, pace.told(share, now)
        assert pace.share >= max(before, share) - 1e-12
        left = pace.seconds_left(now)
        assert left is None or left >= 0
