"""Logit lens: at which depth, and at which token, can the answer be read off the residual stream?

What enters each layer goes through the model's final norm and unembedding, at each named token and
at the last one (nostalgebraist, 2020). Read are the right answer and those that it competes with:
probability, and rank among all tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from backend.core.kept import Kept
from backend.core.progress import Plan, Progress, Report, Step, silent, step_of
from backend.core.runtime import at_work
from backend.core.statistics import Estimate, mean_share, median_estimate, wilson
from backend.methods.asking import loaded, not_done
from backend.methods.method import Command, Figure, Finished, Method, Unfinished
from backend.methods.plans import scale_of
from backend.models import catalogue
from backend.tasks.chance import ForcedChoice, forced_choice
from backend.tasks.prompts import N_PROMPTS, Prompts
from backend.tasks.task import Task

if TYPE_CHECKING:
    from backend.models.loading import LoadedModel

LAST = "last token"


@dataclass(frozen=True)
class LogitLensRequest:
    """How deep in each model the answer can be read."""

    models: tuple[str, ...]
    prompts: Prompts


@dataclass(frozen=True)
class LensLayer:
    """What would be answered if this layer were the first that does not run.

    first: share of prompts on which the right answer is first among all tokens; forced: on which it
    is ahead of its competitors; probability and rank (median; 1 is first) of the right answer, and
    of its competitors, the mean of which is taken on each prompt.
    """

    first: Estimate
    forced: Estimate
    probability: Estimate
    competitor: Estimate
    rank: Estimate
    competitor_rank: Estimate


@dataclass(frozen=True)
class LogitLens:
    """What each layer of a model reads, by token: one more than layers, the first the embedding."""

    tokens: Mapping[str, tuple[LensLayer, ...]]
    n_tokens: int
    forced_choice: ForcedChoice | None = None

    @property
    def choices(self) -> tuple[ForcedChoice | None]:
        """How the model does beside guessing."""
        return (self.forced_choice,)


def first_clear(read: tuple[LensLayer, ...]) -> int | None:
    """The layer from which on the answer is first on more than half of the prompts, clearly.

    Counted in layers that have run; None if it never is.
    """
    below = [place for place, layer in enumerate(read) if layer.first.low <= 0.5]
    depth = max(below, default=-1) + 1
    return depth if depth < len(read) else None


def token_names(task: Task) -> tuple[str, ...]:
    """The tokens of a task that are read, in the order of the prompt."""
    is_last_named = any(position.tail == 1 for position in task.positions)
    return task.position_names if is_last_named else (*task.position_names, LAST)


def token_words(task: Task, name: str) -> str:
    """“at the query’s label”."""
    return "at the last token" if name == LAST else task.position(name).words


def logit_lens(
    model: LoadedModel, prompts: Prompts, progress: Progress = silent, kept_in: Kept | None = None
) -> LogitLens:
    """What each layer of a model reads on these prompts.

    Finished batches are kept in a folder, if there is one, and taken from there. Raises UserError
    for a model that cannot be taken apart.
    """
    from backend.engine.logit_lens import lens_reading

    drawn, names = prompts.sample(model.tokenizer), token_names(prompts.task)
    last = np.full(len(drawn), drawn.input_ids.shape[1] - 1)
    tokens = np.stack([last if name == LAST else drawn.positions[name] for name in names], 1)
    with at_work(model.runtime):
        found = lens_reading(model.model, drawn, tokens, progress, kept_in)

    def layer(*at: int) -> LensLayer:
        probability, rank, competitor, competitor_rank, forced = (
            table[:, *at].numpy() for table in vars(found).values()
        )
        return LensLayer(
            wilson(rank == 1),
            wilson(forced == 1),
            mean_share(probability),
            mean_share(competitor),
            median_estimate(rank),
            median_estimate(competitor_rank),
        )

    places = {name: place for place, name in enumerate(names)}
    at_last = next((each.name for each in prompts.task.positions if each.tail == 1), LAST)
    return LogitLens(
        {
            name: tuple(layer(place, depth) for depth in range(found.rank.shape[2]))
            for name, place in places.items()
        },
        len(model.model.get_input_embeddings().weight),  # type: ignore[operator]
        forced_choice(found.forced[:, places[at_last], -1].numpy() == 1, drawn.n_choices),
    )


def _plan(request: LogitLensRequest) -> Plan:
    return [
        [
            Step(
                f"Reading every layer of {catalogue.label(name)}",
                scale_of(name, request.prompts).runs(request.prompts.n),
            )
        ]
        for name in request.models
    ]


def _work(
    request: LogitLensRequest, done: Finished, report: Report, unfinished: Unfinished
) -> Iterator[LogitLens]:
    plan = _plan(request)
    for place, name in not_done(request.models, done):
        model = loaded(name, report, plan, place)
        told = step_of(report, plan, place, 0)
        yield logit_lens(model, request.prompts, told, unfinished(place))


def _rows(request: LogitLensRequest, place: int, part: LogitLens) -> Iterator[Figure]:
    model = catalogue.label(request.models[place])
    for name, layers in reversed([*part.tokens.items()]):
        at = token_words(request.prompts.task, name)
        for depth, read in enumerate(layers):
            item = f"{model}, {at}, {after(depth)}"
            yield Figure(item, "answer first", read.first)
            yield Figure(item, "answer above its competitors", read.forced)
            yield Figure(item, "probability of the answer", read.probability)
            yield Figure(item, "probability of a competitor", read.competitor)
            yield Figure(item, "median rank of the answer", read.rank)
            yield Figure(item, "median rank of a competitor", read.competitor_rank)


def after(depth: int) -> str:
    """“the embedding”, “after L0”."""
    return f"after L{depth - 1}" if depth else "the embedding"


def _remarks(request: LogitLensRequest, parts: Finished) -> Iterator[str]:
    for name, part in zip(request.models, parts, strict=False):
        for token, layers in part.tokens.items():
            depth = first_clear(layers)
            found = "nowhere" if depth is None else after(depth)
            at = token_words(request.prompts.task, token)
            yield (
                f"{catalogue.label(name)}, {at}: the answer is first on more than half of the "
                f"prompts from here on: {found}"
            )


METHOD = Method(
    "logit-lens",
    "Logit lens",
    LogitLensRequest,
    lambda request: (LogitLens,) * len(request.models),
    _plan,
    _work,
    _rows,
    command=Command(
        "at which layer and at which token the answer can be read",
        "logit-lens base arithmetic-full",
        N_PROMPTS,
        remarks=_remarks,
    ),
)
