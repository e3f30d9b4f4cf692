"""The numbers where heads give what they give on an alternate prompt: which answer they bring."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from backend.core.estimates import figure
from backend.core.metrics import Metric
from backend.core.statistics import wilson
from backend.tasks.desiderata import Desideratum
from shell.circuit.numbers import Headline, row_of, show_figure, speak
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


def show_carried(
    session: Session, tested: Desideratum, everything_on: Intervention, now: Intervention
) -> None:
    """Shares of the base's own and of the expected answer, their probabilities, and the test."""
    (own, expected), (own_before, expected_before) = (
        _both(session, step) for step in (now, everything_on)
    )
    for metric, labels in _LABELS.items():
        left, right = st.columns(2, gap="small")
        _show(left, labels[0], _BASE, metric, own_before, own)
        _show(right, labels[1], _EXPECTED, metric, expected_before, expected)
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


def headlines(
    session: Session, metric: Metric, everything_on: Intervention, now: Intervention
) -> list[Headline]:
    """How often the base's own answer is given, and how often the expected one."""
    shown = Metric.probability if metric is Metric.probability else Metric.accuracy
    runs = zip(_LABELS[shown], _both(session, everything_on), _both(session, now), strict=True)
    found = []
    for label, before, after in runs:
        then, row = row_of(before, shown), row_of(after, shown)
        found.append(Headline(label, figure(shown, row), float(row.mean() - then.mean())))
    return found


def announce(session: Session, now: Intervention) -> None:
    """The outcome in one sentence for screen readers."""
    own, expected = _both(session, now)
    speak(
        f"Base’s answer: {own.correct.mean():.3f}. Expected answer: {expected.correct.mean():.3f}."
    )


def _both(session: Session, step: Intervention) -> tuple[Answers, Answers]:
    from backend.studies.session import answers, expected_answers

    return answers(session, step), expected_answers(session, step)


def _show(
    place: st.delta_generator.DeltaGenerator,
    label: str,
    answer: str,
    metric: Metric,
    before: Answers,
    after: Answers,
) -> None:
    then, now = row_of(before, metric), row_of(after, metric)
    change, told = float(now.mean() - then.mean()), _WHAT[metric].format(answer)
    with place, st.container(gap="xxsmall"):
        show_figure(label, figure(metric, now), change, told)
