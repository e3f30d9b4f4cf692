"""Models as methods take them: loaded, asked and averaged, told as the first steps of a part.

Importing this module imports no torch; its functions do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

from backend.core.errors import UserError
from backend.core.metrics import Ablation
from backend.core.progress import Plan, Progress, Report, cost_of, step_of
from backend.core.runtime import at_work
from backend.methods.method import Finished
from backend.methods.requests import Request
from backend.models import catalogue, loaded_models

if TYPE_CHECKING:
    from torch import Tensor

    from backend.engine.path_patching.run_pairs import RunPairs
    from backend.methods.evaluation import Evaluation
    from backend.methods.stage import Stage
    from backend.models.loading import LoadedModel


class KnockingOut(Request, Protocol):
    """A request that knocks heads out."""

    @property
    def ablation(self) -> Ablation:
        """How."""


def not_done(models: Sequence[str], done: Finished) -> Iterator[tuple[int, str]]:
    """The models that are not done, with their places, where each is a part."""
    return islice(enumerate(models), len(done), None)


def loaded(name: str, report: Report, plan: Plan, part: int) -> LoadedModel:
    """The model; files that have changed are another model: what was kept of it goes."""
    before = cost_of(plan[:part]) / cost_of(plan)

    def told(what: str, share: float) -> None:
        report(f"Loading {catalogue.label(name)}: {what.lower()}, {round(share, 1):.0%}", before)

    report(f"Loading {catalogue.label(name)}", before)
    return loaded_models.load(name, told=told)


def scored_stage(
    request: Any, report: Report, plan: Plan, scores: Callable[[RunPairs, Progress], Tensor]
) -> Stage:
    """A stage of what a request asks for, out of the `scores` [n, n_layers, n_heads] of its pairs.

    request: a model, prompts, a group, receivers and a score. Raises UserError when the model
    answers too few prompts right.
    """
    model = loaded(request.model, report, plan, 0)
    from backend.methods.discovery import summarised
    from backend.methods.pairs import run_pairs

    pairs, choice = run_pairs(request.model, request.prompts, report, plan)
    with at_work(model.runtime):
        found = scores(pairs, step_of(report, plan, 0, 1))
        stage = summarised(request.group, found, request.receivers, pairs.clean_probability)
    return replace(stage, forced_choice=choice, score=request.score)


def asked(name: str, request: KnockingOut, report: Report, plan: Plan, part: int) -> Evaluation:
    """The model with its prompts."""
    loaded(name, report, plan, part)
    from backend.methods.evaluation import evaluation

    return evaluation(name, request.prompts, request.ablation)


def averaged(name: str, request: KnockingOut, report: Report, plan: Plan, part: int) -> Evaluation:
    """The model with its prompts, its heads averaged: the first step of a part."""
    examined = asked(name, request, report, plan, part)
    examined.average(step_of(report, plan, part, 0))
    return examined


def same_prompts(evaluations: Sequence[Evaluation]) -> None:
    """Raise UserError unless all evaluations are asked the same prompts, word for word."""
    for evaluation in evaluations[1:]:
        if evaluation.prompts.texts != evaluations[0].prompts.texts:
            raise UserError(
                f"The tokenizers of {evaluations[0].loaded.name} and {evaluation.loaded.name} "
                "write different words as one token, so the models cannot be asked the same "
                "prompts. Choose models that share a tokenizer."
            )
