"""Accuracy: how well models do the task, and what they say instead of the right answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from backend.core.files import shown
from backend.core.progress import Plan, Progress, Report, Step, silent, step_of
from backend.core.statistics import Estimate, mean_estimate, mean_share, median_estimate, wilson
from backend.methods.asking import loaded, not_done
from backend.methods.method import Command, Figure, Finished, Method, Unfinished
from backend.methods.plans import scale_of
from backend.models import catalogue
from backend.tasks.chance import ForcedChoice, forced_choice
from backend.tasks.prompts import N_PROMPTS, Prompts

if TYPE_CHECKING:
    from backend.models.loading import LoadedModel

_N_INSTEAD = 5


@dataclass(frozen=True)
class AccuracyRequest:
    """How well models do the task."""

    models: tuple[str, ...]
    prompts: Prompts


class WrongAnswer(NamedTuple):
    """What a model says instead of the right answer, and on how many prompts."""

    word: str
    n: int


@dataclass(frozen=True)
class AccuracyReport:
    """How well a model does the task, and what it says instead of the right answer.

    competitor: share of prompts answered with one that it competes with; instead: the most frequent
    wrong answers. What a file of an older version lacks is None, and nothing.
    """

    accuracy: Estimate
    probability: Estimate
    rank: Estimate
    logit_difference: Estimate
    forced_choice: ForcedChoice | None = None
    competitor: Estimate | None = None
    instead: tuple[WrongAnswer, ...] = ()

    @property
    def choices(self) -> tuple[ForcedChoice | None]:
        """How the model does beside guessing."""
        return (self.forced_choice,)


def accuracy_report(
    model: LoadedModel, prompts: Prompts, progress: Progress = silent
) -> AccuracyReport:
    """Accuracy, mean probability and median rank of the right answer, mean logit difference."""
    from backend.methods.answering import whole_answers

    answers = whole_answers(model, prompts.sample(model.tokenizer), progress)
    said = answers.top_ids[:, 0]
    wrong = Counter(said[~answers.correct].tolist()).most_common(_N_INSTEAD)
    return AccuracyReport(
        wilson(answers.correct),
        mean_share(answers.probability),
        median_estimate(answers.rank),
        mean_estimate(answers.logit_difference),
        forced_choice(answers.forced, answers.choice_ids.shape[1]),
        wilson((said[:, None] == answers.choice_ids).any(1) & ~answers.correct),
        tuple(WrongAnswer(model.tokenizer.decode([token]).strip(), n) for token, n in wrong),
    )


def _plan(request: AccuracyRequest) -> Plan:
    return [
        [
            Step(
                f"Asking {catalogue.label(name)}",
                scale_of(name, request.prompts).runs(request.prompts.n),
            )
        ]
        for name in request.models
    ]


def _work(
    request: AccuracyRequest, done: Finished, report: Report, _: Unfinished
) -> Iterator[AccuracyReport]:
    plan = _plan(request)
    for place, name in not_done(request.models, done):
        model = loaded(name, report, plan, place)
        yield accuracy_report(model, request.prompts, step_of(report, plan, place, 0))


def _rows(request: AccuracyRequest, place: int, part: AccuracyReport) -> Iterator[Figure]:
    model = catalogue.label(request.models[place])
    yield Figure(model, "accuracy", part.accuracy)
    if part.forced_choice and part.competitor:
        yield Figure(model, "right answer above its competitors", part.forced_choice.share)
        yield Figure(model, request.prompts.task.words.competitor, part.competitor)
    yield Figure(model, "probability of the answer", part.probability)
    yield Figure(model, "median rank of the answer", part.rank)
    yield Figure(model, "logit difference", part.logit_difference)


def _remarks(request: AccuracyRequest, parts: Finished) -> Iterator[str]:
    for name, part in zip(request.models, parts, strict=False):
        if part.instead:
            words = ", ".join(f"“{shown(word)}” ({n})" for word, n in part.instead)
            yield f"{catalogue.label(name)} says instead: {words}"


METHOD = Method(
    "accuracy",
    "Accuracy",
    AccuracyRequest,
    lambda request: (AccuracyReport,) * len(request.models),
    _plan,
    _work,
    _rows,
    command=Command(
        "how well models do the task", "accuracy base chat", N_PROMPTS, remarks=_remarks
    ),
)
