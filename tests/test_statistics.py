"""Measures against SciPy and against loops that anyone can read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, bootstrap

from backend.statistics import (
    Estimate,
    mean_difference,
    mean_estimate,
    ratio,
    ratio_difference,
    recovery,
    wilson,
)


@given(st.lists(st.booleans(), min_size=1, max_size=300))
def test_wilson_is_scipys(correct: list[bool]) -> None:
    ours = wilson(np.array(correct))
    theirs = binomtest(sum(correct), len(correct)).proportion_ci(method="wilson")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert ours.low <= ours.value <= ours.high or np.isclose(ours.low, ours.value)
    assert ours.n == len(correct)


def test_paired_bootstrap_is_scipys() -> None:
    rng = np.random.default_rng(3)
    model = rng.random(400) < 0.7
    circuit = model & (rng.random(400) < 0.9)
    ours = ratio(circuit, model)
    theirs = bootstrap(
        (circuit, model),
        lambda a, b, axis: a.mean(axis) / b.mean(axis),
        paired=True,
        method="percentile",
        n_resamples=4000,
        vectorized=True,
        rng=1,
    ).confidence_interval
    assert ours.value == circuit.sum() / model.sum()
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.01)
    values = rng.normal(size=400)
    theirs = bootstrap((values,), np.mean, method="percentile", rng=1).confidence_interval
    ours = mean_estimate(values)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.02)


def test_ratio_difference_and_recovery_are_scipys() -> None:
    rng = np.random.default_rng(4)
    one, two = rng.random((2, 400)) < 0.8
    of_one, of_two = one & (rng.random(400) < 0.9), two & (rng.random(400) < 0.7)
    target, source = rng.random(400) < 0.4, rng.random(400) < 0.8
    patched = np.where(rng.random(400) < 0.6, source, target)

    def interval(samples: Any, statistic: Any) -> tuple[float, float]:
        found = bootstrap(
            tuple(np.asarray(sample, float) for sample in samples),
            statistic,
            paired=True,
            method="percentile",
            n_resamples=4000,
            vectorized=True,
            rng=1,
        ).confidence_interval
        return found.low, found.high

    ours = ratio_difference((of_two, two), (of_one, one))
    theirs = interval(
        (of_two, two, of_one, one),
        lambda a, b, c, d, axis: a.mean(axis) / b.mean(axis) - c.mean(axis) / d.mean(axis),
    )
    assert ours.value == pytest.approx(of_two.sum() / two.sum() - of_one.sum() / one.sum())
    assert (ours.low, ours.high) == pytest.approx(theirs, abs=0.015)
    assert ours.is_clear
    ours = recovery(patched, target, source)
    theirs = interval(
        (patched, target, source),
        lambda p, t, s, axis: (p - t).mean(axis) / (s - t).mean(axis),
    )
    assert (ours.low, ours.high) == pytest.approx(theirs, abs=0.015)


def test_a_difference_is_clear_when_zero_is_outside_its_interval() -> None:
    assert Estimate(0.1, 0.05, 0.2, 9).is_clear
    assert Estimate(-0.1, -0.2, -0.05, 9).is_clear
    assert not Estimate(0.1, -0.01, 0.2, 9).is_clear
    assert not Estimate(0.1, 0, 0.2, 9).is_clear
    assert not Estimate(np.nan, np.nan, np.nan, 9).is_clear


def test_no_difference_has_no_width() -> None:
    values = np.random.default_rng(0).random(50)
    same = mean_difference(values, values)
    assert (same.value, same.low, same.high, same.n) == (0, 0, 0, 50)
    assert ratio(values > 0.5, values > 0.5).value == 1


def test_a_ratio_to_nothing_is_undefined() -> None:
    nothing = np.zeros(20, dtype=bool)
    assert np.isnan(ratio(~nothing, nothing).value)
