"""Rows of a metric as figures with intervals: one statistic for right and wrong, one for numbers.

Faithfulness is the plain quotient of the circuit's metric and the model's for every metric, as in
the paper (Prakash et al., circuit evaluation). The field also uses (circuit − nothing) / (model −
nothing), *nothing* being the model with every head knocked out; for accuracy both are nearly the
same, as nothing answers nearly nothing right.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from backend.core.metrics import Metric
from backend.core.statistics import (
    LEVEL,
    Estimate,
    mean_estimate,
    mean_ratio,
    mean_ratio_difference,
    mean_share,
    ratio,
    ratio_difference,
    recovery,
    share_difference,
    wilson,
)

Row = NDArray[Any]
"""A metric of n prompts: bools for accuracy, else float64."""


def figure(metric: Metric, row: Row) -> Estimate:
    """The mean over prompts [n]: a share, a mean of probabilities, or of logits."""
    match metric:
        case Metric.accuracy:
            return wilson(row)
        case Metric.probability:
            return mean_share(row)
        case Metric.logit_difference:
            return mean_estimate(row)


def change(metric: Metric, after: Row, before: Row, level: float = LEVEL) -> Estimate:
    """The mean after less that before, both [n] on the same prompts."""
    if metric is Metric.accuracy:
        return share_difference(after, before, level)
    return mean_estimate(after - before, level)


def quotient(metric: Metric, above: Row, below: Row, level: float = LEVEL) -> Estimate:
    """Mean over mean, both [n] on the same prompts; of circuit and model it is faithfulness.

    Undefined where the mean below is not clearly more than nothing.
    """
    return (ratio if metric is Metric.accuracy else mean_ratio)(above, below, level)


def share_of_gap(metric: Metric, patched: Row, target: Row, source: Row) -> Estimate:
    """(patched − target) / (source − target) of the means of [n] on the same prompts.

    Undefined where source and target do not differ clearly.
    """
    if metric is Metric.accuracy:
        return recovery(patched, target, source)
    # What is below must be positive, also when the source is the worse model.
    sign = 1.0 if source.mean() >= target.mean() else -1.0
    return mean_ratio(sign * (patched - target), sign * (source - target))


def quotient_change(
    metric: Metric, after: tuple[Row, Row], before: tuple[Row, Row], level: float = LEVEL
) -> Estimate:
    """`quotient` of the pair after less that of the pair before, all four [n]."""
    of = ratio_difference if metric is Metric.accuracy else mean_ratio_difference
    return of(after, before, level)
