"""How sure one can be of what was measured on some prompts.

Intervals are at 95 % unless a level is given. Those of right and wrong answers are score intervals:
Wilson's for a share, Tango's for a difference on the same prompts, Nam and Blackwelder's for a
ratio, and the same for a share of a gap. Each holds the values that a score test does not refuse,
so none shrinks to a point where all answers are right, or none, or where nothing changed. With few
prompts, and where few answers could be otherwise, they are conservative: up to 100 % hold the true
value. Otherwise 93 to 97 % do, from 20 prompts on, unless a function says less.

SciPy is imported where it is needed: first paint must not wait for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import inf, isnan, nan, sqrt
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
_HALVINGS = 32
"""Of an angle, until its error is far below what is shown."""
Floats = NDArray[np.floating[Any]]
Counts = NDArray[np.floating[Any] | np.integer[Any]]
PerPrompt = NDArray[np.floating[Any] | np.integer[Any] | np.bool_]
Pair = tuple[PerPrompt, PerPrompt]
"""What is above and what is below the line of a ratio."""


_CHANGES = np.array([(1, 1), (-1, 1), (0, 1)], float)
_TWO_ANSWERS = np.array([(0, 0), (1, 0), (0, 1), (1, 1)], float)
_THREE_ANSWERS = np.concatenate([_TWO_ANSWERS, -_TWO_ANSWERS])
"""What a prompt can add to what is above and below the line, where answers are right or wrong."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval and the number of prompts behind it; NaN is undefined.

    p: of the test that there is nothing, for what is tested beside many others: McNemar's of a
    difference of shares, Student's of a mean. None of anything else, and where so few answers
    changed that no outcome could be clear: that was no test, and takes nothing from others (Tarone
    1990; Gilbert 2005).
    """

    value: float
    low: float
    high: float
    n: int
    p: float | None = None

    @property
    def is_clear(self) -> bool:
        """Whether zero lies outside the interval: a difference is larger than its interval."""
        return self.low > 0 or self.high < 0

    @property
    def is_vague(self) -> bool:
        """Whether the interval of a share or a ratio is wider than half of all that it can be."""
        return self.high - self.low > 0.5


def wilson(correct: NDArray[np.bool_]) -> Estimate:
    """A share of right answers with its Wilson score interval (Wilson 1927)."""
    share, n = float(correct.mean()), len(correct)
    return Estimate(share, *_wilson(share, n, _z(LEVEL)), n)


def share_above(right: NDArray[np.bool_], chance: float) -> Estimate:
    """A share with Wilson's interval, and the exact binomial p that it is no more than `chance`."""
    from scipy.special import bdtrc

    n_right, n = int(right.sum()), len(right)
    return replace(wilson(right), p=float(bdtrc(n_right - 1, n, chance)) if n_right else 1.0)


def mean_share(shares: Floats, n_answers: float = inf) -> Estimate:
    """A mean of numbers from 0 to 1, [n], such as probabilities; undefined of none.

    Wilson's interval for as many right and wrong answers as would vary like this, at most
    `n_answers` (the effective sample size; Korn and Graubard 1998), with Student's quantile. It
    stays within 0 and 1, and holds near them where Student's does not: with 20 prompts of which
    nearly all are sure, in 92 % of cases (Student's: 90 %).
    """
    n = len(shares)
    if n < 2:
        return Estimate(float(shares[0]), 0.0, 1.0, n) if n else _undefined(n)
    value, variance = float(shares.mean()), float(np.var(shares, ddof=1)) / n
    effective = min(value * (1 - value) / variance, n_answers) if variance else n_answers
    return Estimate(value, *_wilson(value, effective, _t(n)), n)


def mean_estimate(values: PerPrompt, level: float = LEVEL) -> Estimate:
    """A mean of values without bounds, [n], with Student's interval and p; undefined of none.

    Skewed values need more prompts: at a skewness of 2 (scores of a head have about 1.5) it holds
    the mean in 91 % of cases with 20 prompts, in 93 % with 50.
    """
    n, values = len(values), np.asarray(values, float)
    if n == 0:
        return _undefined(n)
    error = float(values.std(ddof=1)) / sqrt(n) if n > 1 else nan
    return student(float(values.mean()), error, n, level)


def student(mean: float, standard_error: float, n: int, level: float = LEVEL) -> Estimate:
    """A mean with Student's interval and p, from its standard error (Student 1908)."""
    from scipy.special import stdtr

    if n < 2:
        return Estimate(mean, -inf, inf, n, 1.0)
    margin = _t(n, level) * standard_error
    p = 2 * float(stdtr(n - 1, -abs(mean) / standard_error)) if standard_error else float(mean == 0)
    return Estimate(mean, mean - margin, mean + margin, n, p)


def median_estimate(values: PerPrompt) -> Estimate:
    """A median, [n], between the two of the values that hold it in 95 % of cases or more.

    Whatever the distribution (by order statistics; Conover 1999, 3.2); undefined of fewer than 6.
    A mean of ranks has no honest interval: one rank in a thousand decides it.
    """
    from scipy.special import bdtr

    n = len(values)
    cut = int((bdtr(np.arange(n), n, 0.5) <= (1 - LEVEL) / 2).sum())
    if not cut:
        return _undefined(n)
    ordered = np.sort(np.asarray(values, float))
    return Estimate(float(np.median(ordered)), float(ordered[cut - 1]), float(ordered[-cut]), n)


def share_difference(after: PerPrompt, before: PerPrompt, level: float = LEVEL) -> Estimate:
    """Share of right answers after less that before, both [n] on the same prompts.

    Tango's score interval (Tango 1998), with McNemar's exact p. The interval reaches to zero where
    that test does not refuse zero: what is clear by one is clear by the other.
    """
    change = np.asarray(after, float) - np.asarray(before, float)
    n, value = len(change), float(change.mean())
    counts = np.array([(change > 0).sum(), (change < 0).sum(), (change == 0).sum()])
    low, high = map(float, score_limits(_CHANGES, counts, level))
    p = mcnemar(int(counts[0]), int(counts[1]))
    if p > 1 - level:
        low, high = min(low, 0.0), max(high, 0.0)
    could_be_clear = mcnemar(int(counts[:2].sum()), 0) <= 1 - LEVEL
    return Estimate(value, low, high, n, p if could_be_clear else None)


def mean_share_difference(after: PerPrompt, before: PerPrompt, level: float = LEVEL) -> Estimate:
    """Mean of `after` less that of `before`, of numbers from 0 to 1, both [n] on the same prompts.

    The score interval of `share_difference`, for whatever lies between losing and gaining all, with
    Student's p: it does not shrink to a point where nothing changed.
    """
    change = np.asarray(after, float) - np.asarray(before, float)
    seen, counts = np.unique(change, return_counts=True)
    cells = np.concatenate([np.stack([seen, np.ones(len(seen))], 1), _CHANGES])
    counts = np.append(counts, np.zeros(len(_CHANGES)))
    low, high = map(float, score_limits(cells, counts, level))
    return Estimate(float(change.mean()), low, high, len(change), mean_estimate(change).p)


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided exact p of prompts that changed one way and the other (McNemar 1947)."""
    from scipy.special import bdtr

    return min(1.0, 2 * float(bdtr(min(gained, lost), gained + lost, 0.5)))


def ratio(numerator: PerPrompt, denominator: PerPrompt, level: float = LEVEL) -> Estimate:
    """Share of right answers over another one, both [n] on the same prompts.

    Nam and Blackwelder's score interval (2002). Undefined where the denominator is not clearly more
    than nothing: with fewer than six right answers. Faithfulness is the ratio of the circuit's
    accuracy to the model's (Prakash et al., circuit evaluation).
    """
    return _quotient(numerator, denominator, _TWO_ANSWERS, level)


def recovery(patched: PerPrompt, target: PerPrompt, source: PerPrompt) -> Estimate:
    """(patched − target) / (source − target) of shares of right answers, all [n].

    The score interval of `ratio`, for all that three answers can be. Undefined where source and
    target do not differ clearly.
    """
    start = np.asarray(target, float)
    return _quotient(patched - start, source - start, _THREE_ANSWERS, LEVEL)


def ratio_difference(after: Pair, before: Pair, level: float = LEVEL) -> Estimate:
    """`ratio(*after)` − `ratio(*before)`, all four [n] on the same prompts.

    From the limits of both ratios and the correlation of their errors (square-and-add, or MOVER;
    Zou and Donner 2008), which is taken as if z² more prompts had shown none: without them models
    that hardly ever differ would differ clearly. Undefined where either ratio is.
    """
    return _difference_of_ratios(ratio, after, before, level)


def mean_ratio(above: PerPrompt, below: PerPrompt, level: float = LEVEL) -> Estimate:
    """Mean of one over mean of the other, of values without bounds, both [n] on the same prompts.

    Fieller's interval (1954), with Student's quantile. Undefined where the mean below is not
    clearly more than nothing.
    """
    pair = np.stack([np.asarray(above, float), np.asarray(below, float)])
    n = pair.shape[1]
    if n < 2:
        return _undefined(n)
    top, bottom = map(float, pair.mean(1))
    reach = _t(n, level) ** 2 / n * np.cov(pair)
    # θ with (top − θ bottom)² ≤ t² var(top − θ bottom): a parabola in θ.
    a, b, c = (
        float(each)
        for each in (
            bottom**2 - reach[1, 1],
            top * bottom - reach[0, 1],
            top**2 - reach[0, 0],
        )
    )
    if bottom <= 0 or a <= 0:
        return _undefined(n)
    half = sqrt(max(b**2 - a * c, 0.0))
    return Estimate(top / bottom, (b - half) / a, (b + half) / a, n)


def mean_ratio_difference(after: Pair, before: Pair, level: float = LEVEL) -> Estimate:
    """`mean_ratio(*after)` − `mean_ratio(*before)`, all four [n], as in `ratio_difference`."""
    return _difference_of_ratios(mean_ratio, after, before, level)


def _difference_of_ratios(
    of: Callable[[PerPrompt, PerPrompt, float], Estimate], after: Pair, before: Pair, level: float
) -> Estimate:
    later, earlier = of(*after, level), of(*before, level)
    value = later.value - earlier.value
    if isnan(value):
        return _undefined(later.n)
    together = _correlation(_errors(after), _errors(before)) / (1 + _z(level) ** 2 / later.n)
    down = _added(later.value - later.low, earlier.high - earlier.value, together)
    up = _added(later.high - later.value, earlier.value - earlier.low, together)
    return Estimate(value, value - down, value + up, later.n)


def spearman(one: PerPrompt, other: PerPrompt) -> Estimate:
    """How alike two figures rank the same things, both [n]: from −1 to 1 (Spearman 1904).

    What is equal shares its mean rank. Fisher's interval with the error of Bonett and Wright
    (2000), as if the things were drawn by chance; in full agreement as if two neighbours had
    changed places. Undefined of fewer than four, and where all are equal.
    """
    n, ranks = len(one), [_ranks(one), _ranks(other)]
    if n < 4 or not all(rank.any() for rank in ranks):
        return _undefined(n)
    value = float(np.clip(_correlation(*ranks), -1, 1))
    most = 1 - 12 / (n * (n * n - 1))
    middle = float(np.arctanh(np.clip(value, -most, most)))
    margin = _z(LEVEL) * sqrt((1 + value**2 / 2) / (n - 3))
    low, high = float(np.tanh(middle - margin)), float(np.tanh(middle + margin))
    return Estimate(value, min(low, value), max(high, value), n)


def p_below_zero(mean: Floats, standard_error: Floats, n: int) -> Floats:
    """One-sided p of Student's test that means over `n` prompts are below zero, [...] each.

    NaN of a mean that is zero without an error, and of fewer than two prompts: nothing was tested.
    """
    from scipy.special import stdtr

    if n < 2:
        return np.full_like(mean, nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(stdtr(n - 1, mean / standard_error))


def false_discovery(p: Floats) -> Floats:
    """The smallest false discovery rate at which each of these tests is kept, in the shape of `p`.

    Of all tests with at most 0.05 here, about 5 % at most are of nothing (Benjamini and Hochberg
    1995). NaN is no test, and stays.
    """
    flat = np.ravel(np.asarray(p, float))
    tested = np.flatnonzero(~np.isnan(flat))
    order = tested[np.argsort(flat[tested], kind="stable")]
    rates = flat[order] * len(order) / np.arange(1, len(order) + 1)
    found = np.full(len(flat), nan)
    found[order] = np.minimum(np.minimum.accumulate(rates[::-1])[::-1], 1)
    return found.reshape(np.shape(p))


def score_limits(cells: Floats, counts: Counts, level: float) -> tuple[Floats, Floats]:
    """Where a score test stops refusing θ = mean of a / mean of b, for a mean of b above zero.

    cells [cells, 2]: the values of a and b that prompts can have; counts [..., cells]: how many
    prompts have them; both limits [...].
    θ makes the mean of w = a − θ b zero. With S = Σ counts·w, the cells' most probable shares under
    that are counts / n(1 + λw), and the score statistic is λS: θ is refused when λ = z² / S is
    still too small for a mean of zero, although it leaves no cell a negative share.
    """
    z_squared = _z(level) ** 2
    a, b = cells.T
    angle = np.arctan2(counts @ a, counts @ b)[..., None]
    # θ as the tangent of an angle, so that both limits are at a finite distance.
    kept = np.concatenate([angle, angle], -1)
    refused = np.stack([np.full_like(angle[..., 0], s * np.pi / 2) for s in (-1, 1)], -1)
    counts = counts[..., None, :]
    for _ in range(_HALVINGS):
        middle = (kept + refused) / 2
        w = np.cos(middle)[..., None] * a - np.sin(middle)[..., None] * b
        total = (counts * w).sum(-1, keepdims=True)
        with np.errstate(divide="ignore", invalid="ignore"):
            tilt = 1 + z_squared * w / total
            mean = (counts * w / total / tilt).sum(-1)
        is_refused = (tilt > 0).all(-1) & (mean > 0)
        kept, refused = np.where(is_refused, kept, middle), np.where(is_refused, middle, refused)
    low, high = np.tan(np.moveaxis(kept, -1, 0))
    return low, high


def clear_among(estimates: Sequence[Estimate], rate: float = 1 - LEVEL) -> list[bool]:
    """Which of these differ clearly from nothing, all looked at together.

    rate: the share of false discoveries among them, at most. Estimates without p were not tested
    and are judged by their own intervals.
    """
    rates = false_discovery(np.array([nan if e.p is None else e.p for e in estimates]))
    pairs = zip(estimates, rates.tolist(), strict=True)
    return [e.is_clear if isnan(found) else found <= rate for e, found in pairs]


def _quotient(above: PerPrompt, below: PerPrompt, possible: Floats, level: float) -> Estimate:
    """Mean of one over mean of the other, [n]; possible [cells, 2]: what both can be."""
    pairs = np.stack([np.asarray(above, float), np.asarray(below, float)], 1)
    n, more, less = len(pairs), int((pairs[:, 1] > 0).sum()), int((pairs[:, 1] < 0).sum())
    if mcnemar(more, less) > 1 - LEVEL:
        return _undefined(n)
    # What is below must be positive, also when the source is the worse model.
    seen, counts = np.unique(np.sign(more - less) * pairs, axis=0, return_counts=True)
    cells = np.concatenate([seen, possible])
    low, high = score_limits(cells, np.append(counts, np.zeros(len(possible))), level)
    above_total, below_total = pairs.sum(0)
    return Estimate(float(above_total / below_total), float(low), float(high), n)


def _undefined(n: int) -> Estimate:
    return Estimate(nan, nan, nan, n)


def _z(level: float) -> float:
    return NormalDist().inv_cdf((1 + level) / 2)


def _t(n: int, level: float = LEVEL) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(n - 1, (1 + level) / 2))


def _wilson(share: float, n: float, quantile: float) -> tuple[float, float]:
    unsure = quantile**2 / n
    centre = (share + unsure / 2) / (1 + unsure)
    half = sqrt(unsure * share * (1 - share) + unsure**2 / 4) / (1 + unsure)
    # Exact where rounding would leave 1e-18 or so.
    return (0.0 if share == 0 else centre - half), (1.0 if share == 1 else centre + half)


def _ranks(values: PerPrompt) -> Floats:
    """From the lowest on, less their mean; what is equal shares its mean rank."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[which] - (len(which) + 1) / 2)


def _errors(pair: Pair) -> Floats:
    """Each prompt's share in the error of a ratio, but for a factor."""
    above, below = (np.asarray(each, float) for each in pair)
    return above - above.mean() / below.mean() * below


def _added(one: float, other: float, correlation: float) -> float:
    """How far a difference reaches, of two that reach so far."""
    return sqrt(max(one**2 + other**2 - 2 * correlation * one * other, 0.0))


def _correlation(one: Floats, other: Floats) -> float:
    sizes = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / sizes if sizes else 0.0
