"""Do 95 % intervals hold the true value 95 times in 100? Every kind on screen, simulated.

Right and wrong answers come in whole numbers, so that what an interval holds goes up and down
with the true value: truths are drawn anew for every simulated study, from a range.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from backend.core.statistics import (
    Estimate,
    mcnemar,
    mean_estimate,
    mean_ratio,
    mean_ratio_difference,
    mean_share,
    median_estimate,
    ratio_difference,
    score_limits,
    wilson,
)

SIZES = (20, 50, 200)
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
RATIO = np.array([(0, 0), (1, 0), (0, 1), (1, 1)], float)
GAP = np.concatenate([RATIO, -RATIO[1:]])
CHANGE = np.array([(1, 1), (-1, 1), (0, 1)], float)


def held(low: Any, high: Any, truth: Any) -> float:
    return float(((low <= truth + 1e-9) & (truth - 1e-9 <= high)).mean())


def check(coverage: float, n_studies: int, most: float = 0.97, least: float = 0.93) -> None:
    """From 93 to 97 %, give or take three standard errors of the simulation."""
    error = 3 * sqrt(0.05 * 0.95 / n_studies)
    assert least - error <= coverage <= most + error


def held_by(estimate: Callable[[Any], Estimate], studies: Any, truths: Any) -> float:
    found = [estimate(study) for study in studies]
    return held(*(np.array([getattr(e, side) for e in found]) for side in ("low", "high")), truths)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("of", [(0.0, 0.15), (0.3, 0.7), (0.85, 1.0)])
def test_a_share(n: int, of: tuple[float, float]) -> None:
    rng = np.random.default_rng(n)
    truth = rng.uniform(*of, 4000)
    check(held_by(wilson, rng.random((4000, n)) < truth[:, None], truth), 4000)


# Changes one way and the other: few, as many, nearly all one way, and nearly all.
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize(
    ("gained", "lost", "most"),
    [
        ((0.2, 0.4), (0.2, 0.4), 0.97),
        ((0.2, 0.4), (0.0, 0.1), 0.97),
        ((0.7, 1.0), (0.0, 0.0), 0.98),
        ((0.0, 0.1), (0.0, 0.1), 1.0),
        ((0.0, 0.0), (0.0, 0.05), 1.0),
    ],
)
def test_a_difference_on_the_same_prompts(
    n: int, gained: tuple[float, float], lost: tuple[float, float], most: float
) -> None:
    rng = np.random.default_rng(n)
    up, down = rng.uniform(*gained, 20000), rng.uniform(*lost, 20000)
    counts = rng.multinomial(n, np.stack([up, down, 1 - up - down], 1))
    check(held(*score_limits(CHANGE, counts, 0.95), up - down), 20000, most)


@pytest.mark.parametrize("n", SIZES)
def test_nothing_is_called_clear_more_often_than_in_5_percent(n: int) -> None:
    """Two equal models, however often they differ."""
    rng = np.random.default_rng(n)
    for differ in (0.02, 0.2, 0.8):
        changed = rng.binomial(n, differ, 4000)
        p = [mcnemar(k, m - k) for k, m in zip(rng.binomial(changed, 0.5), changed, strict=True)]
        assert (np.array(p) <= 0.05).mean() <= 0.05 + 3 * sqrt(0.05 * 0.95 / 4000)


# The circuit's share of what the model does, and what it does beside: half, all but all, nothing.
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize(
    ("model", "kept", "beside", "most"),
    [
        ((0.6, 0.9), (0.4, 0.8), (0.0, 0.2), 0.97),
        ((0.4, 0.6), (0.2, 0.6), (0.1, 0.5), 0.97),
        ((0.6, 0.9), (0.9, 1.0), (0.0, 0.05), 1.0),
        ((0.9, 1.0), (0.95, 1.0), (0.0, 1.0), 1.0),
        ((0.6, 0.9), (0.0, 0.05), (0.0, 0.05), 1.0),
        ((1.0, 1.0), (1.0, 1.0), (1.0, 1.0), 1.0),
    ],
)
def test_a_ratio(
    n: int,
    model: tuple[float, float],
    kept: tuple[float, float],
    beside: tuple[float, float],
    most: float,
) -> None:
    rng = np.random.default_rng(n)
    m, k, b = (rng.uniform(*of, 20000) for of in (model, kept, beside))
    counts = rng.multinomial(n, np.stack([(1 - m) * (1 - b), (1 - m) * b, m * (1 - k), m * k], 1))
    shown = counts[:, 2:].sum(1) >= 6
    truth = (m * k + (1 - m) * b) / m
    low, high = score_limits(RATIO, counts, 0.95)
    check(held(low[shown], high[shown], truth[shown]), int(shown.sum()), most)


# Patched answers are the source's with some chance, else the target's, and a few others.
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize(
    ("target", "gained", "lost", "taken", "others", "most"),
    [
        ((0.2, 0.5), 0.8, 0.05, (0.3, 0.7), 0.05, 0.98),
        ((0.2, 0.5), 0.8, 0.05, (0.9, 1.0), 0.0, 1.0),
        ((0.2, 0.5), 0.8, 0.05, (0.0, 0.1), 0.02, 1.0),
        ((0.6, 0.8), 0.1, 0.8, (0.2, 0.8), 0.05, 0.98),
    ],
)
def test_recovery(
    n: int,
    target: tuple[float, float],
    gained: float,
    lost: float,
    taken: tuple[float, float],
    others: float,
    most: float,
) -> None:
    rng = np.random.default_rng(n)
    n_studies = 6000
    t, k = rng.uniform(*target, n_studies), rng.uniform(*taken, n_studies)
    s = t * (1 - lost) + (1 - t) * gained
    # Shares of (target, source, patched), each 0 or 1.
    shares = np.empty((n_studies, 2, 2, 2))
    for of_target, of_source in ((0, 0), (0, 1), (1, 0), (1, 1)):
        turned = lost if of_target else gained
        pair = (t if of_target else 1 - t) * (turned if of_source != of_target else 1 - turned)
        right = k * of_source + (1 - k) * of_target
        right = right * (1 - others) + (1 - right) * others
        shares[:, of_target, of_source, 1] = pair * right
        shares[:, of_target, of_source, 0] = pair * (1 - right)
    truth = (shares[..., 1].sum((1, 2)) - t) / (s - t)
    counts = rng.multinomial(n, shares.reshape(n_studies, 8)).reshape(shares.shape)
    sign = np.sign(counts[:, 0, 1].sum(1) - counts[:, 1, 0].sum(1))
    of_cell = np.stack(
        [
            sum(
                counts[:, a, b, c] * ((c - a) * sign == above) * ((b - a) * sign == below)
                for a, b, c in np.ndindex(2, 2, 2)
            )
            for above, below in GAP
        ],
        1,
    )
    gaps = zip(counts[:, 0, 1].sum(1).tolist(), counts[:, 1, 0].sum(1).tolist(), strict=True)
    shown = np.array([mcnemar(*gap) <= 0.05 for gap in gaps])
    low, high = score_limits(GAP, of_cell[shown], 0.95)
    check(held(low, high, truth[shown]), int(shown.sum()), most)


def models(n: int, differ: float, rng: np.random.Generator) -> tuple[list[Bools], float]:
    """Answers of model and circuit, twice, and the true difference of faithfulness.

    The second circuit is the first but for `differ` of the prompts, on which it is wrong.
    """
    whole, kept = rng.random(n) < 0.75, rng.random(n) < 0.85
    other = rng.random(n) < 0.75 if differ > 0.2 else whole
    kept_too = rng.random(n) < 0.5 if differ > 0.2 else kept & (rng.random(n) >= differ)
    truth = 0.5 - 0.85 if differ > 0.2 else -0.85 * differ
    return [whole & kept, whole, other & kept_too, other], truth


# Models that share nothing, models that are nearly the same, and models that are the same.
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize(("differ", "most"), [(1.0, 0.99), (0.05, 1.0), (0.0, 1.0)])
def test_a_difference_of_ratios(n: int, differ: float, most: float) -> None:
    rng = np.random.default_rng(n)
    found, truths = [], []
    for _ in range(300):
        (before, whole, after, other), truth = models(n, differ, rng)
        found.append(ratio_difference((after, other), (before, whole)))
        truths.append(truth)
    low, high = (np.array([getattr(e, side) for e in found]) for side in ("low", "high"))
    check(held(low, high, np.array(truths)), 300, most)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("shape", [(0.5, 0.2), (8.0, 0.4), (2.0, 3.0), (0.3, 3.0)])
def test_a_mean_of_probabilities(n: int, shape: tuple[float, float]) -> None:
    """Of a model that is sure on many prompts, on nearly all, on none, and nearly always wrong."""
    rng = np.random.default_rng(n)
    least = 0.92 if n == 20 and shape == (8.0, 0.4) else 0.93
    held_true = held_by(mean_share, rng.beta(*shape, (3000, n)), shape[0] / sum(shape))
    check(held_true, 3000, least=least)


# Random circuits: ten draws are asked the same prompts, and easy prompts are easy for all.
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize(
    ("mean", "alike", "most"), [(0.01, 20.0, 1.0), (0.1, 2.0, 0.97), (0.5, 0.3, 0.97)]
)
def test_a_mean_over_draws_and_prompts(n: int, mean: float, alike: float, most: float) -> None:
    rng = np.random.default_rng(n)
    ease = rng.beta(mean * alike, (1 - mean) * alike, (3000, n))
    shares = rng.binomial(10, ease) / 10
    check(held_by(lambda study: mean_share(study, 10 * n), shares, mean), 3000, most)


def logit_differences(
    n: int, n_studies: int, kept: float, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Of the model, and of a circuit that keeps so much of it, skewed as those of answers are."""
    whole = rng.gamma(3.0, 1.0, (n_studies, n))
    return kept * whole + rng.normal(0, 0.7, (n_studies, n)), whole


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("kept", [0.0, 0.5, 0.95])
def test_a_ratio_of_means(n: int, kept: float) -> None:
    circuit, whole = logit_differences(n, 3000, kept, np.random.default_rng(n))
    studies = list(zip(circuit, whole, strict=True))
    check(held_by(lambda study: mean_ratio(*study), studies, kept), 3000)


# Models that share nothing, and a circuit twice in one model.
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize(("is_shared", "most"), [(False, 0.99), (True, 1.0)])
def test_a_difference_of_ratios_of_means(n: int, is_shared: bool, most: float) -> None:
    rng, n_studies = np.random.default_rng(n), 1000
    one = logit_differences(n, n_studies, 0.9, rng)
    two = logit_differences(n, n_studies, 0.6, rng)
    if is_shared:
        two = one[0] - 0.3 * one[1] + rng.normal(0, 0.2, (n_studies, n)), one[1]
    found = [
        mean_ratio_difference((two[0][i], two[1][i]), (one[0][i], one[1][i]))
        for i in range(n_studies)
    ]
    low, high = (np.array([getattr(e, side) for e in found]) for side in ("low", "high"))
    check(held(low, high, np.full(n_studies, -0.3)), n_studies, most)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("kind", ["normal", "heavy", "skewed", "very skewed"])
def test_a_mean_of_scores(n: int, kind: str) -> None:
    """Of a skewness of 0, 1 and 2; scores of the bundled models' heads have about 1.5."""
    rng = np.random.default_rng(n)
    draw = {
        "normal": lambda size: rng.normal(-0.2, 0.3, size) + 0.2,
        "heavy": lambda size: rng.standard_t(5, size),
        "skewed": lambda size: rng.gamma(4.0, 1.0, size) - 4,
        "very skewed": lambda size: rng.gamma(1.0, 1.0, size) - 1,
    }[kind]
    least = 0.91 if n == 20 and kind == "very skewed" else 0.93
    check(held_by(mean_estimate, draw((4000, n)), 0.0), 4000, least=least)


@pytest.mark.parametrize(("n", "most"), [(20, 0.97), (50, 0.97), (200, 0.97)])
def test_a_median_of_ranks(n: int, most: float) -> None:
    """Of ranks with a tail so long that a mean of them says nothing."""
    rng = np.random.default_rng(n)
    studies = 10 * rng.pareto(0.8, (4000, n))
    check(held_by(median_estimate, studies, 10 * (2 ** (1 / 0.8) - 1)), 4000, most)
