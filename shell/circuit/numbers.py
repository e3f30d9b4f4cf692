"""The numbers beside the picture: each with its interval, its n and its change."""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan
from typing import TYPE_CHECKING, Literal

import streamlit as st

from backend.core.estimates import Row, figure
from backend.core.metrics import Metric
from backend.core.statistics import Estimate
from backend.tasks.chance import (
    ForcedChoice,
    against_chance,
    faithfulness,
    forced_choice,
    why_undefined,
)
from backend.tasks.setting import Mode, Reading
from backend.tasks.task import Words
from circuitviz.figures import Figure
from circuitviz.picture import MINUS
from shell.frame.words import MEASURES

if TYPE_CHECKING:
    from backend.engine.answers import Answers

_RATIO_HELP = {
    Reading.circuit: "{} of the circuit as it stands, divided by that of the whole model (the "
    "paper, circuit evaluation). 1 means that the circuit alone does all that the model does. {}",
    Reading.model: "{} of the model without the switched-off heads, divided by that of the whole "
    "model. {}",
}
_PARTS = {Reading.circuit: "Circuit", Reading.model: "Model minus heads"}
_KEPT = {
    Metric.accuracy: "Accuracy kept",
    Metric.probability: "P(right) kept",
    Metric.logit_difference: "Difference kept",
}
_ABLATIONS = {Mode.zero: "zero ablation", Mode.counterfactual: "resample ablation"}
_OTHER_MEASURES = {
    Metric.probability: "P(right answer)",
    Metric.logit_difference: "logit difference",
}
_WHAT = {
    Metric.accuracy: "Share of prompts answered right: the most probable next token, among all "
    "tokens, is {answer}. 95 % Wilson interval.",
    Metric.probability: "Probability of {answer}, mean over prompts. It moves before the accuracy "
    "does. 95 % interval: Wilson’s, with the variance seen.",
    Metric.logit_difference: "Logit of {answer} less the mean logit of {competitors}, mean over "
    "prompts, in logits. 95 % interval: Student’s.",
}
_RATIO_INTERVALS = {
    Metric.accuracy: "95 % score interval of a ratio on the same prompts (Nam and Blackwelder).",
    Metric.probability: "95 % interval of a ratio of means on the same prompts (Fieller).",
    Metric.logit_difference: "95 % interval of a ratio of means on the same prompts (Fieller).",
}


@dataclass(frozen=True)
class Measured:
    """A figure, and its change since every head was on if that can move it.

    about: how it is measured; why_undefined: where its value is NaN.
    """

    label: str
    estimate: Estimate
    change: float | None = None
    about: str = ""
    is_share: bool = True
    why_undefined: str = ""


def headlines(
    reading: Reading, metric: Metric, words: Words, whole: Answers, before: Answers, after: Answers
) -> list[Measured]:
    """The whole model, what runs now, and the quotient of both, undefined where that is NaN.

    `before` is with every head on, `after` as it is now.
    """
    choice, is_share = _choice(whole), metric is not Metric.logit_difference
    of_whole, then, now = (row_of(each, metric) for each in (whole, before, after))
    kept, kept_before = (faithfulness(row, of_whole, choice, metric) for row in (now, then))
    what = _what(metric, words)
    guessing = f"Beside guessing: {against_chance(choice)}.{_instead(whole, words)}"
    return [
        Measured(
            "Whole model",
            figure(metric, of_whole),
            about=f"Of the untouched model. {what} {guessing}",
            is_share=is_share,
        ),
        Measured(
            _PARTS[reading],
            figure(metric, now),
            float(now.mean() - then.mean()),
            f"When {_WHAT_RUNS[reading]}. {what}",
            is_share,
        ),
        Measured(
            _share(reading, metric),
            kept,
            kept.value - kept_before.value,
            _RATIO_HELP[reading].format(MEASURES[metric], _RATIO_INTERVALS[metric]),
            why_undefined=_why_undefined(metric, of_whole, choice),
        ),
    ]


def beside(metric: Metric, words: Words, before: Answers, after: Answers) -> Measured:
    """What is shown beside a metric: the probability of the right answer, or the accuracy."""
    other = Metric.accuracy if metric is Metric.probability else Metric.probability
    now, then = row_of(after, other), row_of(before, other)
    change = float(now.mean() - then.mean())
    return Measured(MEASURES[other], figure(other, now), change, _what(other, words))


def read_out(measured: Measured) -> Figure:
    """A figure as it stands on the page."""
    estimate, change = measured.estimate, measured.change
    if isnan(estimate.value):
        return Figure(measured.label, "–", "", "", measured.why_undefined, measured.about)
    told = ": too few to say how much" if measured.is_share and estimate.is_vague else ""
    return Figure(
        measured.label,
        signed(f"{estimate.value:.3f}"),
        "untouched" if change is None else signed(f"{change:+.3f} since all on"),
        way_of(change),
        signed(f"95 %: {estimate.low:.3f} to {estimate.high:.3f}, n = {estimate.n}{told}"),
        measured.about,
    )


def signed(number: str) -> str:
    """With a minus sign in place of hyphens."""
    return number.replace("-", MINUS)


def way_of(change: float | None) -> Literal["up", "down", ""]:
    """Which way a figure has moved, if it has as far as it is shown."""
    if change is None or isnan(change) or abs(change) < 0.0005:
        return ""
    return "up" if change > 0 else "down"


def row_of(answers: Answers, metric: Metric) -> Row:
    """A metric of answers: [n]."""
    match metric:
        case Metric.accuracy:
            return answers.correct
        case Metric.probability:
            return answers.probability
        case Metric.logit_difference:
            return answers.logit_difference


def _share(reading: Reading, metric: Metric) -> str:
    return "Faithfulness" if reading is Reading.circuit else _KEPT[metric]


def _what(metric: Metric, words: Words) -> str:
    return _WHAT[metric].format(answer=words.answer, competitors=words.competitors)


def _why_undefined(metric: Metric, whole: Row, choice: ForcedChoice) -> str:
    if metric is Metric.accuracy or not choice.is_above_chance:
        return why_undefined(choice, int(whole.sum()))
    return "That of the whole model is not clearly above zero: there is nothing to divide by."


def show_chance(whole: Answers) -> None:
    """That the whole model does no better than guessing, if so."""
    choice = _choice(whole)
    if not choice.is_above_chance:
        st.caption(f"Not above chance: {against_chance(choice)}.")


def _choice(whole: Answers) -> ForcedChoice:
    return forced_choice(whole.forced, whole.choice_ids.shape[1])


def _instead(whole: Answers, words: Words) -> str:
    """What is answered where it is not the right answer."""
    wrong = ~whole.correct
    if not wrong.any():
        return ""
    other = int((whole.top_ids[:, :1] == whole.choice_ids)[wrong].any(1).sum())
    return (
        f" Of {wrong.sum()} wrong answers, {other} are {words.competitor}, "
        f"{wrong.sum() - other} another word."
    )


_WHAT_RUNS = {
    Reading.circuit: "only the heads that are on compute, and every other head of the model is "
    "knocked out at every token",
    Reading.model: "everything runs as usual, except for the heads that are switched off",
}


def not_as_in_the_paper(mode: Mode, metric: Metric) -> str:
    """What of the numbers is not the paper's default: empty where all is."""
    others = " and ".join(filter(None, (_ABLATIONS.get(mode), _OTHER_MEASURES.get(metric))))
    return f"{others[0].upper()}{others[1:]}: not as in the paper." if others else ""


def spoken(reading: Reading, metric: Metric, whole: Answers, after: Answers) -> str:
    """The outcome in one sentence for screen readers."""
    part, share = _PARTS[reading], _share(reading, metric)
    now = row_of(after, metric)
    kept = faithfulness(now, row_of(whole, metric), _choice(whole), metric).value
    said = "undefined" if isnan(kept) else f"{kept:.3f}"
    return f"{part}: {MEASURES[metric].lower()} {now.mean():.3f}. {share} {said}."
