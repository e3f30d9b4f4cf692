"""How sure one can be of what was measured on some prompts (NumPy only)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Z_95 = 1.959963984540054
_N_RESAMPLES = 2000
Floats = NDArray[np.floating[Any]]
PerPrompt = NDArray[np.floating[Any] | np.integer[Any] | np.bool_]
Pair = tuple[PerPrompt, PerPrompt]
"""What is above and what is below the line of a ratio."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval and the number of prompts behind it; NaN is undefined."""

    value: float
    low: float
    high: float
    n: int

    @property
    def is_clear(self) -> bool:
        """Whether zero lies outside the interval: a difference is larger than its interval."""
        return self.low > 0 or self.high < 0


def wilson(correct: NDArray[np.bool_]) -> Estimate:
    """A share with its 95 % Wilson score interval (Wilson 1927)."""
    n = len(correct)
    share = float(correct.mean())
    centre = (share + Z_95**2 / (2 * n)) / (1 + Z_95**2 / n)
    half = Z_95 / (1 + Z_95**2 / n) * np.sqrt(share * (1 - share) / n + Z_95**2 / (4 * n**2))
    # Exact where rounding would leave 1e-18 or so.
    low = 0.0 if share == 0 else float(centre - half)
    high = 1.0 if share == 1 else float(centre + half)
    return Estimate(share, low, high, n)


def mean_estimate(values: PerPrompt) -> Estimate:
    """A mean over prompts with its 95 % percentile bootstrap interval; undefined of none."""
    if not len(values):
        return _undefined(0)
    return _bootstrap(len(values), lambda weights: weights @ values)


def mean_difference(after: PerPrompt, before: PerPrompt) -> Estimate:
    """Mean of after − before, both [n] on the same prompts, by paired bootstrap."""
    return mean_estimate(np.asarray(after, float) - np.asarray(before, float))


def ratio(numerator: PerPrompt, denominator: PerPrompt) -> Estimate:
    """Mean of one over mean of the other, both [n] on the same prompts, by paired bootstrap.

    Faithfulness is the ratio of the circuit's accuracy to the model's (Prakash et al., circuit
    evaluation).
    """
    return _bootstrap(len(numerator), _share(numerator, denominator))


def ratio_difference(after: Pair, before: Pair) -> Estimate:
    """`ratio(*after)` − `ratio(*before)`, all four [n] on the same prompts, by paired bootstrap."""
    later, earlier = _share(*after), _share(*before)
    return _bootstrap(len(after[0]), lambda weights: later(weights) - earlier(weights))


def recovery(patched: PerPrompt, target: PerPrompt, source: PerPrompt) -> Estimate:
    """(patched − target) / (source − target) of means, by paired bootstrap; all [n].

    Undefined where source and target do not differ by more than their interval.
    """
    gap = mean_difference(source, target)
    if not gap.is_clear:
        return _undefined(gap.n)
    before = np.asarray(target, float)
    # The ratio's denominator must be positive, also when the source is the worse model.
    sign = np.sign(gap.value)
    return ratio(sign * (patched - before), sign * (source - before))


def _share(numerator: PerPrompt, denominator: PerPrompt) -> Callable[[Floats], Floats]:
    def share(weights: Floats) -> Floats:
        below = weights @ np.asarray(denominator, float)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(below > 0, weights @ np.asarray(numerator, float) / below, np.nan)

    return share


def _bootstrap(n: int, statistic: Callable[[Floats], Floats]) -> Estimate:
    """A statistic of prompt weights [..., n] with its 95 % percentile bootstrap interval."""
    value = float(statistic(np.full(n, 1 / n)))
    drawn = statistic(_resamples(n))
    drawn = drawn[~np.isnan(drawn)]
    if np.isnan(value) or not len(drawn):
        return _undefined(n)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Estimate(value, float(low), float(high), n)


def _undefined(n: int) -> Estimate:
    return Estimate(float("nan"), float("nan"), float("nan"), n)


@lru_cache(maxsize=4)
def _resamples(n: int) -> Floats:
    """Prompt weights [n_resamples, n], the same on every call: equal data, equal intervals."""
    counts = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=_N_RESAMPLES)
    return np.asarray(counts / n)
