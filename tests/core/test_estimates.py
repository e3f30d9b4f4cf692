"""Each metric's rows get the statistic that fits them."""

from __future__ import annotations

import numpy as np
import pytest

from backend.core import statistics
from backend.core.estimates import change, figure, quotient, quotient_change
from backend.core.metrics import Metric

RNG = np.random.default_rng(0)
ROWS = {
    Metric.accuracy: RNG.random((2, 40)) < [[0.9], [0.7]],
    Metric.probability: RNG.beta((9, 5), (1, 3), (40, 2)).T,
    Metric.logit_difference: RNG.normal((4, 3), 1, (40, 2)).T,
}


@pytest.mark.parametrize("metric", Metric)
def test_figures_lie_between_their_limits_and_are_what_they_are_called(metric: Metric) -> None:
    whole, circuit = ROWS[metric]
    wanted = {
        figure(metric, whole): whole.mean(),
        change(metric, circuit, whole): circuit.mean() - whole.mean(),
        quotient(metric, circuit, whole): circuit.mean() / whole.mean(),
        quotient_change(metric, (circuit, whole), (whole, whole)): circuit.mean() / whole.mean()
        - 1,
    }
    for found, value in wanted.items():
        assert found.value == pytest.approx(value)
        assert found.low < found.value < found.high
        assert found.n == 40
    assert change(metric, circuit, whole, 0.99).low < change(metric, circuit, whole).low
    assert quotient(metric, circuit, whole, 0.99).low < quotient(metric, circuit, whole).low


def test_right_and_wrong_keep_the_score_intervals_and_shares_stay_within_their_bounds() -> None:
    whole, circuit = ROWS[Metric.accuracy]
    assert figure(Metric.accuracy, whole) == statistics.wilson(whole)
    assert quotient(Metric.accuracy, circuit, whole) == statistics.ratio(circuit, whole)
    sure = np.append(np.ones(19), 0.9)
    assert figure(Metric.probability, sure).high <= 1 < figure(Metric.logit_difference, sure).high
