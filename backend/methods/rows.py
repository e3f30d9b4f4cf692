"""Any result as rows of figures: for tables, for files of other programs, and to compare two."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from backend.core.heads import Head
from backend.core.metrics import Metric, Score
from backend.core.statistics import Estimate, student
from backend.methods.requests import METRICS, SCORES, Request, models_of
from backend.methods.results import (
    AccuracyReport,
    Cmap,
    ComparedModel,
    Completeness,
    Edges,
    FaithfulnessReport,
    HeadMap,
    Minimality,
    Transplanted,
)
from backend.methods.stages import Stage
from backend.models import catalogue
from backend.tasks.chance import ForcedChoice


class Figure(NamedTuple):
    """One figure: of what, which, and how much."""

    item: str
    what: str
    estimate: Estimate


def figures(request: Request, parts: Sequence[Any]) -> list[Figure]:
    """Every figure of a result, the main ones first."""
    models = [*map(catalogue.label, models_of(request)), *[""] * len(parts)]
    return [
        Figure(*row)
        for model, part in zip(models, parts, strict=False)
        for row in _rows(part, model, request)
    ]


def choices_of(models: Sequence[str], parts: Sequence[Any]) -> dict[str, ForcedChoice]:
    """What the parts of a result say of each of its models beside guessing, as far as they do."""
    found: dict[str, ForcedChoice | None] = {}
    for model, part in zip([*models, *[""] * len(parts)], parts, strict=False):
        match part:
            case AccuracyReport() | FaithfulnessReport():
                found[model] = part.forced_choice
            case ComparedModel():
                found[model] = part.figures.forced_choice
            case Cmap():
                found |= zip(models, (part.source_choice, part.target_choice), strict=True)
            case Stage() if model:
                found[model] = part.forced_choice
    return {model: choice for model, choice in found.items() if choice}


def _rows(part: Any, model: str, request: Request) -> Iterator[tuple[str, str, Estimate]]:
    prompts, metric = request.prompts, METRICS[getattr(request, "metric", Metric.accuracy)]
    match part:
        case AccuracyReport(accuracy, probability, rank, logit_difference):
            yield model, "accuracy", accuracy
            if part.forced_choice and part.competitor:
                yield model, "right answer above its competitors", part.forced_choice.share
                yield model, prompts.task.words.competitor, part.competitor
            yield model, "probability of the answer", probability
            yield model, "median rank of the answer", rank
            yield model, "logit difference", logit_difference
        case FaithfulnessReport(whole, circuit, faithfulness, _):
            yield model, "full model", whole
            yield model, "circuit", circuit
            yield model, "faithfulness", faithfulness
        case ComparedModel(row, differences, _):
            yield model, "full model", row.model
            yield model, "circuit", row.circuit
            yield model, "random circuits", row.random.mean
            yield model, "faithfulness", row.faithfulness
            for group, left in row.groups.items():
                yield model, f"circuit without {group}", left.circuit
                yield model, f"full model without {group}", left.model
            for pair in differences:
                names = " → ".join(map(catalogue.label, (pair.first, pair.second)))
                yield names, "full model", pair.model
                yield names, "circuit", pair.circuit
                yield names, "faithfulness", pair.faithfulness
        case Cmap():
            yield "source", metric, part.source_accuracy
            yield "target", metric, part.target_accuracy
            yield "source − target", metric, part.gap
            for name, outcome in part.sets.items():
                yield from _outcome(name, outcome, metric)
        case HeadMap():
            for token, layers in part.heads.items():
                words = prompts.task.position(token).words
                for layer, heads in enumerate(layers):
                    for index, outcome in enumerate(heads):
                        yield from _outcome(f"{Head(layer, index)} {words}", outcome, metric)
        case Transplanted():
            yield from _outcome("the set", part, metric)
        case Stage(_, mean, standard_error):
            for place in abs(mean).argsort(axis=None)[::-1].tolist():
                head = Head(*divmod(place, mean.shape[1]))
                yield (
                    str(head),
                    _score(part.score),
                    student(float(mean[head]), float(standard_error[head]), prompts.n),
                )
        case Minimality():
            yield "circuit", "accuracy", part.accuracy
            for each in part.heads:
                yield f"{each.group} {each.head}", "adds", each.gain
        case Completeness():
            yield "random sets", "mean |circuit − full model|", part.mean_incompleteness
            for removal in (*part.groups, *part.random):
                yield f"without {removal.name}", "circuit", removal.circuit
                yield f"without {removal.name}", "full model", removal.model
                yield f"without {removal.name}", "circuit − full model", removal.difference
        case Edges():
            for edge in sorted(part.edges, key=lambda edge: -abs(edge.weight.value)):
                name = f"{edge.group} {edge.sender} → {edge.receiver or 'logits'}"
                yield name, _score(part.score), edge.weight


def _score(score: Score) -> str:
    return "score" if score is Score.probability else SCORES[score]


def _outcome(item: str, outcome: Transplanted, metric: str) -> Iterator[tuple[str, str, Estimate]]:
    yield item, metric, outcome.accuracy
    yield item, "change", outcome.change
    yield item, "recovery", outcome.recovery
