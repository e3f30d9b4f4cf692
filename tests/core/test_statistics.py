"""Intervals against SciPy, closed forms from the papers, and plain optimisation."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from math import inf, isnan, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import minimize

from backend.core.statistics import (
    Estimate,
    clear_among,
    false_discovery,
    mcnemar,
    mean_estimate,
    mean_ratio,
    mean_ratio_difference,
    mean_share,
    mean_share_difference,
    median_estimate,
    ratio,
    ratio_difference,
    recovery,
    score_limits,
    share_above,
    share_difference,
    spearman,
    student,
    wilson,
)

Z = 1.959963984540054


def answers(*counts: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Paired answers: so many right in both, in the first only, in the second only, in none."""
    both, first, second, none = counts
    return (
        np.repeat([True, True, False, False], [both, first, second, none]),
        np.repeat([True, False, True, False], [both, first, second, none]),
    )


@pytest.mark.parametrize(("n_right", "n"), [(0, 8), (3, 8), (8, 8), (70, 100)])
def test_a_share_above_chance_is_scipys_binomial_test(n_right: int, n: int) -> None:
    ours = share_above(np.arange(n) < n_right, 0.3)
    theirs = stats.binomtest(n_right, n, 0.3, alternative="greater")
    assert ours.p == pytest.approx(theirs.pvalue)
    assert replace(ours, p=None) == wilson(np.arange(n) < n_right)


@given(st.lists(st.booleans(), min_size=1, max_size=300))
def test_wilson_is_scipys(correct: list[bool]) -> None:
    ours = wilson(np.array(correct))
    theirs = stats.binomtest(sum(correct), len(correct)).proportion_ci(method="wilson")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert ours.low <= ours.value <= ours.high or np.isclose(ours.low, ours.value)
    assert ours.n == len(correct)


def tango(gained: int, lost: int, n: int, difference: float) -> float:
    """Tango's statistic with the closed form of the constrained maximum (1998, section 2)."""
    a, b = 2 * n, -gained - lost + (2 * n - gained + lost) * difference
    c = -lost * difference * (1 - difference)
    q = (sqrt(b * b - 4 * a * c) - b) / (2 * a)
    return (gained - lost - n * difference) / sqrt(n * (2 * q + difference * (1 - difference)))


@pytest.mark.parametrize(
    "counts", [(10, 7, 3, 20), (0, 0, 0, 50), (46, 4, 0, 0), (1, 30, 2, 7), (3, 0, 9, 8)]
)
def test_the_interval_of_a_difference_is_tangos(counts: tuple[int, ...]) -> None:
    (_, gained, lost, _), n = counts, sum(counts)
    limits = score_limits(
        np.array([(1, 1), (-1, 1), (0, 1)], float),
        np.array([gained, lost, n - gained - lost]),
        0.95,
    )
    found = [tango(gained, lost, n, float(limit)) for limit in limits]
    assert found == pytest.approx([Z, -Z], abs=1e-6)
    ours = share_difference(*answers(*counts))
    assert ours.value == pytest.approx((gained - lost) / n)
    if mcnemar(gained, lost) <= 0.05 or gained == lost:
        assert (ours.low, ours.high) == pytest.approx(limits)


def refusal(cells: NDArray[np.float64], counts: NDArray[np.int64], theta: float) -> float:
    """Pearson's X² of the counts against the most probable shares with this θ, by optimisation."""
    w = cells[:, 0] - theta * cells[:, 1]
    seen = counts > 0

    def unlikely(shares: NDArray[np.float64]) -> float:
        return -float(counts[seen] @ np.log(np.maximum(shares[seen], 1e-300)))

    limits = [
        {"type": "eq", "fun": lambda shares: shares.sum() - 1},
        {"type": "eq", "fun": lambda shares: shares @ w},
    ]
    start = np.full(len(cells), 1 / len(cells))
    found = minimize(
        unlikely, start, bounds=[(0, 1)] * len(cells), constraints=limits, tol=1e-12,
        options={"maxiter": 1000},
    )  # fmt: skip
    expected = counts.sum() * found.x
    return float((((counts - expected) ** 2)[expected > 1e-7] / expected[expected > 1e-7]).sum())


@pytest.mark.parametrize(
    ("counts", "kind"),
    [
        ((12, 3, 5, 20), "ratio"),
        ((0, 0, 9, 11), "ratio"),
        ((0, 0, 0, 20), "ratio"),
        ((30, 8, 2, 10), "ratio"),
        ((0, 4, 7, 12, 2, 0, 1), "recovery"),
        ((20, 0, 9, 0, 0, 0, 0), "recovery"),
        ((10, 0, 0, 15, 0, 0, 0), "recovery"),
    ],
)
def test_limits_are_where_a_score_test_refuses(counts: tuple[int, ...], kind: str) -> None:
    grid = [(0, 0), (1, 0), (0, 1), (1, 1)]
    grid += [(-1, 0), (0, -1), (-1, -1)] if kind == "recovery" else []
    cells, of_each = np.array(grid, float), np.array(counts)
    limits = score_limits(cells, of_each, 0.95)
    value = of_each @ cells[:, 0] / (of_each @ cells[:, 1])
    for limit in map(float, limits):
        if limit == 0 and kind == "ratio":
            assert value == 0, "nothing is below no right answers"
        else:
            assert refusal(cells, of_each, limit) == pytest.approx(Z**2, rel=1e-3)
    above, below = np.repeat(cells, of_each, axis=0).T
    target = (above < 0) | (below < 0)
    if kind == "ratio":
        ours = ratio(above > 0, below > 0)
    else:
        ours = recovery(target + above > 0, target, target + below > 0)
    assert (ours.value, ours.low, ours.high) == pytest.approx((value, *limits))


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_scipys(gained: int, lost: int) -> None:
    expected = stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1
    assert mcnemar(gained, lost) == pytest.approx(expected)


def test_a_difference_is_clear_exactly_when_mcnemar_says_so() -> None:
    """Tango's interval alone never holds zero where the exact test refuses it."""
    cells = np.array([(1, 1), (-1, 1), (0, 1)], float)
    for changed in [*range(1, 60), 200, 1000]:
        gained = np.arange(changed + 1)
        p = np.array([mcnemar(k, changed - k) for k in gained.tolist()])
        for rest in (0, 3 * changed):
            counts = np.stack([gained, changed - gained, np.full(changed + 1, rest)], 1)
            for level in (0.95, 0.99):
                low, high = score_limits(cells, counts, level)
                outside = (low > 0) | (high < 0)
                assert outside[p <= 1 - level].all()
    for gained, lost in product(range(12), repeat=2):
        found = share_difference(*answers(5, gained, lost, 5))
        assert found.is_clear == (mcnemar(gained, lost) <= 0.05)
        assert found.p == (mcnemar(gained, lost) if gained + lost >= 6 else None)
        assert found.low <= found.value <= found.high


def test_four_changed_against_none_are_not_clear() -> None:
    found = share_difference(*answers(30, 4, 0, 16))
    assert (found.value, found.low, mcnemar(4, 0)) == (0.08, 0, 0.125)
    assert not found.is_clear
    assert share_difference(*answers(30, 6, 0, 14)).is_clear
    assert not share_difference(*answers(30, 6, 0, 14), level=0.99).is_clear


def test_what_never_changed_has_a_width() -> None:
    right, _ = answers(30, 0, 0, 20)
    same = share_difference(right, right)
    reach = Z**2 / (50 + Z**2)
    assert (same.value, same.low, same.high) == pytest.approx((0, -reach, reach))
    assert ratio(right, right).low < 0.95 < 1 < 1.05 < ratio(right, right).high
    same = ratio_difference((right, right), (right, right))
    assert same.low < -0.02 < 0 == same.value < 0.02 < same.high


@given(st.lists(st.integers(0, 40), min_size=4, max_size=4).filter(any))
def test_a_difference_of_means_of_answers_is_that_of_shares(counts: list[int]) -> None:
    found, shares = (of(*answers(*counts)) for of in (mean_share_difference, share_difference))
    assert found.value == pytest.approx(shares.value)
    assert min(found.low, 0) == pytest.approx(min(shares.low, 0), abs=1e-6)
    assert max(found.high, 0) == pytest.approx(max(shares.high, 0), abs=1e-6)


def test_a_difference_of_means_holds_the_true_one() -> None:
    rng = np.random.default_rng(0)
    held = []
    for _ in range(400):
        random = (rng.random((5, 60)) < 0.1).mean(0)
        found = mean_share_difference(rng.random(60) < 0.4, random)
        held.append(found.low <= 0.3 <= found.high)
    assert 0.92 <= np.mean(held) <= 0.99


def test_nothing_right_is_undefined_and_never_a_point() -> None:
    nothing, some = np.zeros(50, bool), np.arange(50) < 5
    for below in (nothing, some):
        assert isnan(ratio(some, below).value)
        assert isnan(ratio_difference((some, below), (~nothing, ~nothing)).value)
    none = ratio(nothing, np.arange(50) < 30)
    assert none.value == none.low == 0
    assert 0.05 < none.high < 0.2
    all_right = ratio(~nothing, ~nothing)
    assert 0.9 < all_right.low < all_right.value == 1 < all_right.high


def test_recovery_is_undefined_without_a_clear_gap() -> None:
    source, target = answers(20, 5, 0, 20)
    assert isnan(recovery(source, target, source).value)
    source, target = answers(20, 6, 0, 20)
    found = recovery(source, target, source)
    assert found.low < found.value == 1 < found.high
    back = recovery(target, source, target)
    assert (back.value, back.low, back.high) == (found.value, found.low, found.high)


def test_recovery_of_shares_lies_between_that_of_answers() -> None:
    """The mean over several sets is no answer of right or wrong."""
    rng = np.random.default_rng(0)
    source, target = rng.random((2, 200)) < [[0.9], [0.3]]
    patched = np.where(rng.random((3, 200)) < 0.5, source, target)
    found = recovery(patched.mean(0), target, source)
    expected = (patched.mean() - target.mean()) / (source.mean() - target.mean())
    assert found.value == pytest.approx(expected)
    assert found.low < found.value < found.high
    single = recovery(patched[0], target, source)
    assert found.high - found.low < single.high - single.low


def test_the_difference_of_ratios_of_models_that_share_no_prompt_is_zou_and_donners() -> None:
    rng = np.random.default_rng(4)
    (one, two), (of_one, of_two) = rng.random((2, 2, 300)) < 0.8
    found = ratio_difference((of_two & two, two), (of_one & one, one))
    later, earlier = ratio(of_two & two, two), ratio(of_one & one, one)
    assert found.value == later.value - earlier.value
    apart = sqrt((later.value - later.low) ** 2 + (earlier.high - earlier.value) ** 2)
    assert found.value - found.low == pytest.approx(apart, rel=0.1)


def test_a_mean_is_students() -> None:
    values = np.random.default_rng(3).normal(0.3, 1, 40)
    ours, theirs = mean_estimate(values), stats.ttest_1samp(values, 0)
    interval = theirs.confidence_interval()
    assert (ours.low, ours.high) == pytest.approx((interval.low, interval.high))
    assert ours.p == pytest.approx(theirs.pvalue)
    assert student(ours.value, float(stats.sem(values)), 40) == ours
    assert mean_estimate(values[:1]) == Estimate(values[0], -inf, inf, 1, 1.0)
    assert isnan(mean_estimate(values[:0]).value)
    assert student(0.0, 0.0, 9).p == 1


@pytest.mark.parametrize("level", [0.95, 0.99])
def test_limits_of_a_ratio_of_means_are_where_students_test_refuses(level: float) -> None:
    rng = np.random.default_rng(2)
    below = rng.normal(2, 1, 30)
    above = 0.7 * below + rng.normal(0, 0.5, 30)
    found = mean_ratio(above, below, level)
    assert found.value == pytest.approx(above.mean() / below.mean())
    assert found.low < found.value < found.high
    for limit in (found.low, found.high):
        p = stats.ttest_1samp(above - limit * below, 0).pvalue
        assert p == pytest.approx(1 - level)


def test_a_ratio_to_a_mean_that_is_not_clearly_positive_is_undefined() -> None:
    rng = np.random.default_rng(5)
    above, around_nothing = rng.normal(2, 1, 30), rng.normal(0, 1, 30)
    for below in (around_nothing, -above, np.zeros(30)):
        assert isnan(mean_ratio(above, below).value)
        assert isnan(mean_ratio_difference((above, below), (above, above)).value)
    assert isnan(mean_ratio(above[:1], above[:1]).value)
    assert mean_ratio(above, above).value == pytest.approx(1)


def test_the_mean_of_many_has_a_wider_interval_at_a_higher_level() -> None:
    values = np.random.default_rng(3).normal(0.3, 1, 40)
    ours, theirs = mean_estimate(values, 0.99), stats.ttest_1samp(values, 0)
    interval = theirs.confidence_interval(0.99)
    assert (ours.low, ours.high) == pytest.approx((interval.low, interval.high))


def test_a_mean_of_right_and_wrong_is_nearly_wilsons() -> None:
    right = np.arange(400) < 100
    ours, to_json = mean_share(right.astype(float)), wilson(right)
    assert (ours.low, ours.high) == pytest.approx((to_json.low, to_json.high), abs=1e-3)


def test_shares_of_few_answers_are_not_surer_than_the_answers() -> None:
    nothing = np.zeros(50)
    found = mean_share(nothing, 500)
    assert 0 == found.low == found.value < found.high == pytest.approx(0.0077, abs=1e-3)
    assert mean_share(np.array([0.25])) == Estimate(0.25, 0, 1, 1)


def test_a_median_lies_between_the_order_statistics_of_scipy() -> None:
    values = np.random.default_rng(1).integers(1, 90, 60)
    ours = median_estimate(values)
    test = stats.quantile_test(values, p=0.5).confidence_interval()
    assert ours.value == np.median(values)
    assert (ours.low, ours.high) == (test.low, test.high)
    assert isnan(median_estimate(values[:5]).value)
    few = median_estimate(values[:6])
    assert (few.low, few.high) == (values[:6].min(), values[:6].max())


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60))
def test_false_discovery_is_scipys(p: list[float]) -> None:
    np.testing.assert_allclose(false_discovery(np.array(p)), stats.false_discovery_control(p))


def test_what_was_not_tested_is_not_counted() -> None:
    found = false_discovery(np.array([[0.01, np.nan], [0.5, 0.02]]))
    np.testing.assert_allclose(found, [[0.03, np.nan], [0.5, 0.03]])
    assert false_discovery(np.array([])).shape == (0,)


def test_among_many_what_could_not_be_clear_takes_nothing_from_the_others() -> None:
    lost_nine = share_difference(*answers(41, 0, 9, 0))
    unmoved, tried = (
        share_difference(*answers(46, 2, 2, 0)),
        share_difference(*answers(30, 9, 11, 0)),
    )
    assert clear_among([lost_nine, *[unmoved] * 100]) == [True] + [False] * 100
    assert clear_among([lost_nine, *[tried] * 100]) == [False] * 101
    assert clear_among([]) == []


def test_undefined_is_never_clear() -> None:
    assert Estimate(0.1, 0.05, 0.2, 9).is_clear
    assert Estimate(-0.1, -0.2, -0.05, 9).is_clear
    assert not Estimate(0.1, 0, 0.2, 9).is_clear
    assert not Estimate(np.nan, np.nan, np.nan, 9).is_clear


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(-5, 5)), min_size=4, max_size=60))
def test_a_rank_correlation_is_scipys(pairs: list[tuple[int, int]]) -> None:
    one, other = np.array(pairs).T
    found = spearman(one, other)
    if len({*one.tolist()}) == 1 or len({*other.tolist()}) == 1:
        assert isnan(found.value)
        return
    assert found.value == pytest.approx(float(stats.spearmanr(one, other).statistic), abs=1e-12)
    assert -1 <= found.low <= found.value <= found.high <= 1
    assert found.low < found.high
    assert found.n == len(pairs)


@pytest.mark.parametrize(("n", "correlation"), [(40, 0.0), (40, 0.6), (200, 0.9)])
def test_the_interval_of_a_rank_correlation_holds_the_true_one(n: int, correlation: float) -> None:
    chance = np.random.default_rng(0)
    true = 6 / np.pi * np.arcsin(correlation / 2)
    covariance = [[1, correlation], [correlation, 1]]
    drawn = chance.multivariate_normal([0, 0], covariance, (1000, n))
    found = [spearman(each[:, 0], each[:, 1]) for each in drawn]
    held = np.mean([each.low <= true <= each.high for each in found])
    assert 0.93 < held < 0.97


def test_so_few_that_a_rank_correlation_says_nothing_are_undefined() -> None:
    assert isnan(spearman(np.arange(3), np.arange(3)).value)
    assert spearman(np.arange(4), np.arange(4)).value == pytest.approx(1)
