"""The numbers where heads give what they give on an alternate prompt: which answer they bring."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from backend.core.estimates import figure
from backend.core.metrics import Metric
from backend.core.statistics import wilson
from backend.tasks.desiderata import Desideratum
from shell.circuit.numbers import Measured, row_of
from shell.frame.words import unmarked

if TYPE_CHECKING:
    from backend.engine.answers import Answers
    from backend.studies.session import Session
    from backend.tasks.setting import Intervention

_WHAT = {
    Metric.accuracy: "Share of prompts answered with {}: of all tokens, it is the most probable "
    "next one. 95 % Wilson interval.",
    Metric.probability: "Probability of {}, mean over prompts. 95 % interval: Wilson’s, with the "
    "variance seen.",
}
_LABELS = {
    Metric.accuracy: ("Base’s answer", "Expected answer"),
    Metric.probability: ("P(base’s answer)", "P(expected answer)"),
}
_BASE, _EXPECTED = "the base prompt’s own answer", "the answer that the test expects"


def figures(
    session: Session, everything_on: Intervention, now: Intervention
) -> dict[Metric, list[Measured]]:
    """How often the base's own answer is given and how often the expected one, and their
    probabilities."""
    return {metric: _figures(session, metric, everything_on, now) for metric in _LABELS}


def headlines(
    session: Session, metric: Metric, everything_on: Intervention, now: Intervention
) -> list[Measured]:
    """The two of them that count."""
    shown = Metric.probability if metric is Metric.probability else Metric.accuracy
    return _figures(session, shown, everything_on, now)


def spoken(session: Session, now: Intervention) -> str:
    """The outcome in one sentence for screen readers."""
    own, expected = _both(session, now)
    return (
        f"Base’s answer: {own.correct.mean():.3f}. Expected answer: {expected.correct.mean():.3f}."
    )


def show_test(session: Session, tested: Desideratum) -> None:
    """What the test asks, and how often the untouched model gives the expected answer."""
    from backend.studies.session import alternate

    pairs = alternate(session, tested.name).pairs
    untouched = wilson(session.whole.top_ids[:, 0] == pairs.expected_ids)
    control = " A control: it should not come true." if tested.control else ""
    st.caption(
        f"**{unmarked(tested.label)}**: with nothing patched, the whole model gives the expected "
        f"answer to {untouched.value:.3f} of the prompts ({untouched.low:.3f} to "
        f"{untouched.high:.3f}).",
        help=f"{unmarked(tested.text)}{control}",
    )


def _figures(
    session: Session, metric: Metric, everything_on: Intervention, now: Intervention
) -> list[Measured]:
    answers = _BASE, _EXPECTED
    runs = _both(session, everything_on), _both(session, now)
    found = []
    for label, answer, before, after in zip(_LABELS[metric], answers, *runs, strict=True):
        then, row = row_of(before, metric), row_of(after, metric)
        change, about = float(row.mean() - then.mean()), _WHAT[metric].format(answer)
        found.append(Measured(label, figure(metric, row), change, about))
    return found


def _both(session: Session, step: Intervention) -> tuple[Answers, Answers]:
    from backend.studies.session import answers, expected_answers

    return answers(session, step), expected_answers(session, step)
