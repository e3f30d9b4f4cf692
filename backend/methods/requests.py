"""What can be asked of models, as values: a request determines its result (no torch).

Each names its models, its prompts and, unless it is about every head, its circuit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from backend.core.components import Component
from backend.core.heads import Head, Site
from backend.core.metrics import Ablation, Metric, Score
from backend.tasks.circuit import Circuit
from backend.tasks.prompts import Prompts

N_REFERENCE = 300
"""Prompts over which knocked-out heads are averaged."""
N_RANDOM = 10
"""Random circuits beside each circuit."""
METRICS: Mapping[Metric, str] = {
    Metric.accuracy: "accuracy",
    Metric.probability: "probability of the right answer",
    Metric.logit_difference: "logit difference",
}
SCORES: Mapping[Score, str] = {
    Score.probability: "relative change of probability",
    Score.logit_difference: "change of logit difference",
}
ABLATIONS: Mapping[Ablation, str] = {
    Ablation.mean: "mean ablation",
    Ablation.zero: "zero ablation",
    Ablation.resample: "resample ablation",
}
"""In words, the paper's first."""
NamedSets = tuple[tuple[str, frozenset[Site]], ...]
"""Sets of sites by name."""


@dataclass(frozen=True)
class AccuracyRequest:
    """How well models do the task."""

    models: tuple[str, ...]
    prompts: Prompts


@dataclass(frozen=True)
class FaithfulnessRequest:
    """How much of each model a circuit does alone."""

    models: tuple[str, ...]
    circuit: Circuit
    prompts: Prompts
    metric: Metric = Metric.accuracy
    ablation: Ablation = Ablation.mean


@dataclass(frozen=True)
class ComparisonRequest:
    """One circuit in many models."""

    models: tuple[str, ...]
    circuit: Circuit
    prompts: Prompts
    metric: Metric = Metric.accuracy
    ablation: Ablation = Ablation.mean


@dataclass(frozen=True)
class CmapRequest:
    """Sets of heads, and every head, out of one model into another.

    sets: by name; without any, the circuit's groups, none and all of them.
    """

    source: str
    target: str
    circuit: Circuit
    part: Component
    prompts: Prompts
    sets: NamedSets = ()
    metric: Metric = Metric.accuracy


@dataclass(frozen=True)
class SetRequest:
    """One set of heads out of one model into another."""

    source: str
    target: str
    sites: frozenset[Site]
    part: Component
    prompts: Prompts
    metric: Metric = Metric.accuracy


@dataclass(frozen=True)
class StageRequest:
    """One stage of discovery: every head as a sender of this group to these receivers."""

    model: str
    prompts: Prompts
    group: str
    receivers: tuple[Head, ...]
    score: Score = Score.probability

    def __post_init__(self) -> None:
        Circuit.of(self.prompts.task, {self.group: self.receivers})  # raises for an unknown group


@dataclass(frozen=True)
class MinimalityRequest:
    """What every head adds to a circuit, with this share of its group removed."""

    model: str
    circuit: Circuit
    prompts: Prompts
    removed: float = 0.3
    ablation: Ablation = Ablation.mean


@dataclass(frozen=True)
class CompletenessRequest:
    """Whether circuit and model lose heads alike: groups, and so many random sets."""

    model: str
    circuit: Circuit
    prompts: Prompts
    sets: int = 20
    ablation: Ablation = Ablation.mean


@dataclass(frozen=True)
class EdgesRequest:
    """How much flows from each head of a circuit to each of the next group."""

    model: str
    circuit: Circuit
    prompts: Prompts
    score: Score = Score.probability


Request = (
    AccuracyRequest | FaithfulnessRequest | ComparisonRequest | CmapRequest | SetRequest
    | StageRequest | MinimalityRequest | CompletenessRequest | EdgesRequest
)  # fmt: skip
_NAMES: dict[type, str] = {
    AccuracyRequest: "accuracy",
    FaithfulnessRequest: "faithfulness",
    ComparisonRequest: "compare",
    CmapRequest: "cmap",
    SetRequest: "cmap-set",
    StageRequest: "stage",
    MinimalityRequest: "minimality",
    CompletenessRequest: "completeness",
    EdgesRequest: "edges",
}
SomeRequest = TypeVar("SomeRequest", bound=Request)


def method_name(request: Request) -> str:
    """What the method that answers a request is called in the store."""
    return _NAMES[type(request)]


def settings_of(request: Request) -> str:
    """What determines a result besides models, circuit and prompts, in words; empty if nothing.

    A metric, score or ablation is left out where it is the paper's.
    """
    return ", ".join(filter(None, (_own_settings(request), *_not_as_in_the_paper(request))))


def _not_as_in_the_paper(request: Request) -> Iterator[str]:
    for name, words in (("metric", METRICS), ("score", SCORES), ("ablation", ABLATIONS)):
        chosen = getattr(request, name, None)
        if chosen is not None and chosen is not next(iter(words)):
            yield words[chosen]


def _own_settings(request: Request) -> str:
    match request:
        case CmapRequest(part=part, sets=sets):
            names = f", {', '.join(name for name, _ in sets)}" if sets else ""
            return f"{part.value}{names}"
        case SetRequest(part=part, sites=sites):
            return f"{part.value} of {len(sites)} heads"
        case StageRequest(group=group, receivers=receivers):
            into = f", into {', '.join(map(str, receivers))}" if receivers else ""
            return f"stage {group}{into}"
        case MinimalityRequest(removed=removed):
            return f"{removed:.0%} of a group removed"
        case CompletenessRequest(sets=n_sets):
            return f"{n_sets} random sets"
    return ""


def models_of(request: Request) -> tuple[str, ...]:
    """Names of the models of a request, in its order."""
    if isinstance(request, CmapRequest | SetRequest):
        return request.source, request.target
    if isinstance(request, AccuracyRequest | FaithfulnessRequest | ComparisonRequest):
        return request.models
    return (request.model,)


def circuit_of(request: Request) -> Circuit | None:
    """The circuit of a request, if it has one."""
    circuit: Circuit | None = getattr(request, "circuit", None)
    return circuit


def renamed(request: SomeRequest, models: Sequence[str], circuit: str) -> SomeRequest:
    """The same request of models and of a circuit with other names."""
    changes: dict[str, Any] = {}
    if of := circuit_of(request):
        changes["circuit"] = replace(of, name=circuit)
    if isinstance(request, CmapRequest | SetRequest):
        changes["source"], changes["target"] = models
    elif isinstance(request, AccuracyRequest | FaithfulnessRequest | ComparisonRequest):
        changes["models"] = tuple(models)
    else:
        (changes["model"],) = models
    return replace(request, **changes)
