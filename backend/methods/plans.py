"""The steps of every study and what they cost, known before it begins (no torch)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import comb

from backend.core.errors import UserError
from backend.core.heads import Site
from backend.core.progress import Plan, Step
from backend.engine.costs import Scale
from backend.methods.requests import (
    N_RANDOM,
    N_REFERENCE,
    AccuracyRequest,
    CmapRequest,
    ComparisonRequest,
    CompletenessRequest,
    EdgesRequest,
    FaithfulnessRequest,
    MinimalityRequest,
    Request,
    SetRequest,
    StageRequest,
    models_of,
)
from backend.models import catalogue, registry
from backend.models.model_config import blueprint
from backend.tasks.circuit import Circuit
from backend.tasks.prompts import Prompts
from backend.tasks.task import Group

_UNKNOWN_LAYERS, _UNKNOWN_HEADS = 24, 16
_ASKED_FOR_EACH_RIGHT = 2
"""Prompts that are asked until one is answered right; not known before. They go by the set."""


def plan_of(request: Request) -> Plan:
    """The steps of every part of a request's result, in the order in which they are taken."""
    n = request.prompts.n
    names = dict.fromkeys(models_of(request))
    scales = {name: scale_of(name, request.prompts) for name in names}
    match request:
        case AccuracyRequest(models):
            return [[_asked(name, scales[name], n)] for name in models]
        case FaithfulnessRequest(models):
            return [examined(name, scales[name], n, 1) for name in models]
        case ComparisonRequest(models, circuit):
            groups = [circuit.sites_of([key]) for key in circuit.task.keys]
            k = 1 + len(groups) + N_RANDOM
            return [examined(name, scales[name], n, k, groups) for name in models]
        case CmapRequest(source, target):
            return _transplants(request, scales[source], scales[target])
        case SetRequest(source, target, sites):
            cost = _both(scales[source], scales[target], n) + scales[target].patches(n, [sites])
            return [[Step("Transplanting your set", cost)]]
        case StageRequest(model, _, key, receivers):
            group = request.prompts.task.group(key)
            stage = stage_step(scales[model], n, group, {head.layer for head in receivers})
            return [[chosen_step(scales[model], n), stage]]
        case MinimalityRequest(model, circuit):
            k = circuits_of_minimality(circuit)
            return [examined(model, scales[model], n, k)]
        case CompletenessRequest(model, circuit, _, n_sets):
            groups = [circuit.sites_of([key]) for key in circuit.task.keys]
            sets = [*groups, *[circuit.sites] * n_sets]
            return [examined(model, scales[model], n, len(sets), sets)]
        case EdgesRequest(model, circuit):
            edges = Step("Patching one edge after the other", n * _edges(scales[model], circuit))
            return [[chosen_step(scales[model], n), edges]]


def scale_of(model: str, prompts: Prompts) -> Scale:
    """The scale of a model, as far as its files tell before it is loaded."""
    length, positions = prompts.task.length(*prompts.options), prompts.task.positions
    try:
        known = blueprint(registry.entry(model))
    except UserError:
        known = None
    if known is None:
        return Scale(_UNKNOWN_LAYERS, _UNKNOWN_HEADS, length, positions)
    return Scale(known.shape.n_layers, known.shape.n_heads, length, positions)


def _asked(name: str, scale: Scale, n: int) -> Step:
    return Step(f"Asking {catalogue.label(name)}", scale.runs(n))


def chosen_step(scale: Scale, n: int) -> Step:
    """What path patching on `n` prompts begins with."""
    asked = scale.runs(n) * _ASKED_FOR_EACH_RIGHT
    return Step("Choosing prompts that the model answers right", asked)


def stage_step(scale: Scale, n: int, group: Group, receiving: Collection[int]) -> Step:
    """One stage of discovery on `n` prompts, with receivers in these layers."""
    cost = 2 * scale.runs(n) + n * sum(scale.senders(group, receiving).values())
    return Step(f"Stage {group.key}, {group.name}", cost)


def examined(
    model: str, scale: Scale, n: int, k: int, sets: Sequence[Collection[Site]] = ()
) -> list[Step]:
    """A model on `n` prompts: `k` circuits alone, and the whole of it without each of the sets."""
    alone = scale.runs(n) + scale.circuits(n, k)
    without = scale.runs(n) + scale.patches(n, sets)
    return [
        Step(f"Averaging head outputs of {catalogue.label(model)}", scale.runs(N_REFERENCE)),
        Step(f"Measuring {catalogue.label(model)}", alone + without),
    ]


def circuits_of_minimality(circuit: Circuit) -> int:
    """Circuits it asks for: whole, less each head or pair of a group, two more for each head."""
    sizes = [len(circuit.heads(key)) for key in circuit.task.keys]
    return 1 + sum(size + comb(size, 2) for size in sizes) + 2 * sum(sizes)


def _transplants(request: CmapRequest, source: Scale, target: Scale) -> Plan:
    n, circuit = request.prompts.n, request.circuit
    usual = [*(circuit.sites_of([key]) for key in circuit.task.keys), circuit.sites]
    sets = [sites for _, sites in request.sets] or usual
    first = _both(source, target, n) + target.patches(n, sets)
    return [
        [Step("Transplanting sets of heads", first)],
        *(
            [Step(f"Transplanting single heads, {at.words}", target.every_head(n, at.name))]
            for at in request.prompts.task.positions
        ),
    ]


def _both(source: Scale, target: Scale, n: int) -> float:
    """The source twice, for its answers and its heads, and the target."""
    return 2 * source.runs(n) + target.runs(n)


def _edges(scale: Scale, circuit: Circuit) -> float:
    """Of every edge, on one prompt: runs of whole layers of senders to one receiver at a time."""
    cost = 2 * scale.runs(1)
    for group in circuit.task.groups:
        sending = {head.layer for head in circuit.heads(group.key)}
        into = {head for key in group.into for head in circuit.heads(key)}
        for receiver in into or (None,):
            by_layer = scale.senders(group, {receiver.layer} if receiver else ())
            cost += sum(by_layer.get(layer, 0.0) for layer in sending)
    return cost
