"""What every request has in common: a frozen dataclass that determines its result (no torch).

It names its models in a field `models`, or in `model`, or in `source` and `target`; what they are
asked in `prompts`; and its circuit, unless it is about every head, in `circuit`. Where they can be
chosen, its metric, path patching's score, the ablation and where it knocks out are `metric`,
`score`, `ablation` and `tokens`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, Protocol, TypeVar

from backend.core.metrics import Ablation, Metric, Score, Tokens
from backend.tasks.circuit import Circuit
from backend.tasks.prompts import Prompts

N_REFERENCE = 300
"""Prompts over which knocked-out heads are averaged."""
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
TOKENS: Mapping[Tokens, str] = {
    Tokens.every: "knocked out at every token",
    Tokens.named: "knocked out at named tokens only",
}
"""In words, the paper's first."""
CHOICES: Mapping[str, Mapping[Any, str]] = {
    "metric": METRICS,
    "score": SCORES,
    "ablation": ABLATIONS,
    "tokens": TOKENS,
}
"""Fields of requests that are one of several."""
_ONE_MODEL = ("model", "source", "target")


class Request(Protocol):
    """What can be asked of models."""

    @property
    def prompts(self) -> Prompts:
        """What they are asked."""


SomeRequest = TypeVar("SomeRequest", bound=Request)


def models_of(request: Request) -> tuple[str, ...]:
    """Names of the models of a request, in its order."""
    several: tuple[str, ...] | None = getattr(request, "models", None)
    return several or tuple(getattr(request, name) for name in _model_fields(request))


def is_pair(request: Request) -> bool:
    """Whether one model of a request gives something to the other."""
    return "source" in _model_fields(request)


def circuit_of(request: Request) -> Circuit | None:
    """The circuit of a request, if it has one."""
    circuit: Circuit | None = getattr(request, "circuit", None)
    return circuit


def renamed(request: SomeRequest, models: Sequence[str], circuit: str) -> SomeRequest:
    """The same request of models and of a circuit with other names."""
    changes: dict[str, Any] = {}
    if of := circuit_of(request):
        changes["circuit"] = replace(of, name=circuit)
    if hasattr(request, "models"):
        changes["models"] = tuple(models)
    else:
        changes |= zip(_model_fields(request), models, strict=True)
    changed: Any = request
    return replace(changed, **changes)


def not_as_in_the_paper(request: Request) -> Iterator[str]:
    """The metric, score, ablation and its tokens, in words, where they are not the paper's."""
    for name, words in CHOICES.items():
        chosen = getattr(request, name, None)
        if chosen is not None and chosen is not next(iter(words)):
            yield words[chosen]


def score_name(score: Score) -> str:
    """What a table calls a score of path patching: the paper's is just that."""
    return "score" if score is Score.probability else SCORES[score]


def _model_fields(request: Any) -> list[str]:
    return [each.name for each in fields(request) if each.name in _ONE_MODEL]
