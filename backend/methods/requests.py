"""What can be asked of models, as values: a request determines its result (no torch).

Each names its models, its prompts and, unless it is about every head, its circuit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from backend.core.circuit import Circuit, Group, Head, Position, Site
from backend.core.components import Component
from backend.tasks.entity_tracking import check_size
from backend.tasks.setting import Setting

N_REFERENCE = 300
"""Prompts over which knocked-out heads are averaged."""
N_RANDOM = 10
"""Random circuits beside each circuit."""
TOKENS = (Position.prev_query_label, Position.query_label, Position.last)
"""The tokens at which circuits work, in reading order."""
TOKEN_WORDS = {
    "prev_query_label": "at the previous label",
    "query_label": "at the query’s label",
    "last": "at the last token",
}
"""What these tokens are called, by the names of their positions."""

NamedSets = tuple[tuple[str, frozenset[Site]], ...]
"""Sets of sites by name."""


@dataclass(frozen=True)
class Heads:
    """A circuit as a value that can be a key."""

    name: str
    members: frozenset[tuple[Group, Head]]

    @property
    def circuit(self) -> Circuit:
        """The same as a circuit."""
        return Circuit({}, self.name).keep(self.members)


@dataclass(frozen=True)
class Prompts:
    """Which prompts every model is asked; raises UserError for those that there cannot be."""

    n: int
    boxes: int
    seed: int

    def __post_init__(self) -> None:
        check_size(self.n, self.boxes, self.seed)

    def __str__(self) -> str:
        return f"{self.n} prompts, seed {self.seed}, {self.boxes} boxes"


@dataclass(frozen=True)
class AccuracyRequest:
    """How well models do the task."""

    models: tuple[str, ...]
    prompts: Prompts


@dataclass(frozen=True)
class FaithfulnessRequest:
    """How much of each model a circuit does alone."""

    models: tuple[str, ...]
    heads: Heads
    prompts: Prompts


@dataclass(frozen=True)
class ComparisonRequest:
    """One circuit in many models."""

    models: tuple[str, ...]
    heads: Heads
    prompts: Prompts


@dataclass(frozen=True)
class CmapRequest:
    """Sets of heads, and every head, out of one model into another.

    sets: by name; without any, the circuit's groups, none and all of them.
    """

    source: str
    target: str
    heads: Heads
    part: Component
    prompts: Prompts
    sets: NamedSets = ()


@dataclass(frozen=True)
class SetRequest:
    """One set of heads out of one model into another."""

    source: str
    target: str
    sites: frozenset[Site]
    part: Component
    prompts: Prompts


@dataclass(frozen=True)
class StageRequest:
    """One stage of discovery: every head as a sender to these receivers."""

    model: str
    prompts: Prompts
    group: Group
    receivers: tuple[Head, ...]


@dataclass(frozen=True)
class MinimalityRequest:
    """What every head adds to a circuit, with this share of its group removed."""

    model: str
    heads: Heads
    prompts: Prompts
    removed: float = 0.3


@dataclass(frozen=True)
class CompletenessRequest:
    """Whether circuit and model lose heads alike: groups, and so many random sets."""

    model: str
    heads: Heads
    prompts: Prompts
    sets: int = 20


@dataclass(frozen=True)
class EdgesRequest:
    """How much flows from each head of a circuit to each of the next group."""

    model: str
    heads: Heads
    prompts: Prompts


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


def prompts_of(setting: Setting) -> Prompts:
    """The prompts of a setting."""
    return Prompts(setting.n, setting.boxes, setting.seed)


def heads_of(circuit: Circuit) -> Heads:
    """The circuit as a request has it."""
    return Heads(circuit.name, frozenset(circuit.members))


def method_name(request: Request) -> str:
    """What the method that answers a request is called in the store."""
    return _NAMES[type(request)]


def settings_of(request: Request) -> str:
    """What determines a result besides models, circuit and prompts, in words; empty if nothing."""
    match request:
        case CmapRequest(part=part, sets=sets):
            names = f", {', '.join(name for name, _ in sets)}" if sets else ""
            return f"{part.value}{names}"
        case SetRequest(part=part, sites=sites):
            return f"{part.value} of {len(sites)} heads"
        case StageRequest(group=group, receivers=receivers):
            into = f", into {', '.join(map(str, receivers))}" if receivers else ""
            return f"stage {group.name}{into}"
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


def circuit_of(request: Request) -> Heads | None:
    """The circuit of a request, if it has one."""
    heads: Heads | None = getattr(request, "heads", None)
    return heads


def renamed(request: SomeRequest, models: Sequence[str], circuit: str) -> SomeRequest:
    """The same request of models and of a circuit with other names."""
    changes: dict[str, Any] = {}
    if heads := circuit_of(request):
        changes["heads"] = replace(heads, name=circuit)
    if isinstance(request, CmapRequest | SetRequest):
        changes["source"], changes["target"] = models
    elif isinstance(request, AccuracyRequest | FaithfulnessRequest | ComparisonRequest):
        changes["models"] = tuple(models)
    else:
        (changes["model"],) = models
    return replace(request, **changes)
