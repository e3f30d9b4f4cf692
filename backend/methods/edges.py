"""Edges: how much of the answer flows from each single head to each single head that it feeds.

Path patching as in discovery, with one receiver at a time: the queries, keys or values of a head in
a group that the sender's group writes into, or the logits. A head can only send to layers above its
own. Under grouped-query attention keys and values belong to a key-value head that query heads
share: receivers that share one have the same weights (Prakash et al., circuit discovery).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import compress
from typing import TYPE_CHECKING

from backend.core.heads import Head
from backend.core.kept import Kept
from backend.core.metrics import Score
from backend.core.progress import Plan, Progress, Report, Step, between, silent, step_of
from backend.core.runtime import at_work
from backend.core.statistics import Estimate, clear_among, mean_estimate
from backend.engine.costs import Scale
from backend.methods.asking import loaded
from backend.methods.method import Command, Figure, Finished, Method, Unfinished
from backend.methods.plans import chosen_step, scale_of
from backend.methods.requests import score_name
from backend.models import catalogue
from backend.tasks.circuit import Circuit
from backend.tasks.prompts import N_PATCHED, Prompts
from backend.tasks.task import Group

if TYPE_CHECKING:
    from backend.engine.path_patching.run_pairs import RunPairs


@dataclass(frozen=True)
class EdgesRequest:
    """How much flows from each head of a circuit to each of the next group."""

    model: str
    circuit: Circuit
    prompts: Prompts
    score: Score = Score.probability


@dataclass(frozen=True)
class Edge:
    """How much of the answer flows from one head to one of the next group.

    receiver: None for the logits; weight: the mean score, negative where the path matters.
    """

    group: str
    sender: Head
    receiver: Head | None
    weight: Estimate


@dataclass(frozen=True)
class Edges:
    """The weight of every edge of a circuit that a model can have, by one score."""

    model: str
    circuit: str
    edges: tuple[Edge, ...]
    score: Score = Score.probability

    @property
    def clear(self) -> tuple[Edge, ...]:
        """The edges whose weights are clear among all that were measured."""
        chosen = clear_among([edge.weight for edge in self.edges])
        return tuple(compress(self.edges, chosen))


def edges(
    pairs: RunPairs,
    circuit: Circuit,
    model: str,
    progress: Progress = silent,
    kept_in: Kept | None = None,
    score: Score = Score.probability,
) -> Edges:
    """The weight of every edge of the circuit, a mean score; to the logits, one edge a head.

    Scores of finished batches of prompts, receiver by receiver, are kept in a folder, if there is
    one, and taken from there.
    """
    from backend.engine import checkpoints

    runs = [
        (group, receiver, senders)
        for group in circuit.task.reading_order
        for receiver in receivers_of(circuit, group)
        if (senders := _senders(circuit, group, receiver))
    ]
    costs = [_cost(pairs, group, receiver, senders) for group, receiver, senders in runs]
    found: list[Edge] = []
    for number, (group, receiver, senders) in enumerate(runs):
        start, end = (sum(costs[:until]) / sum(costs) for until in (number, number + 1))
        step = between(progress, start, end)
        folder = checkpoints.inside(kept_in, f"{group.key}-{receiver or 'logits'}")
        found += _into(pairs, group, receiver, senders, step, folder, score)
    return Edges(model, circuit.name, tuple(found), score)


def receivers_of(circuit: Circuit, group: Group) -> list[Head] | list[None]:
    """The heads that a group writes into, each once; None for the logits."""
    if group.component == "logits":
        return [None]
    return sorted({head for key in group.into for head in circuit.heads(key)})


def _senders(circuit: Circuit, group: Group, receiver: Head | None) -> list[Head]:
    heads = circuit.heads(group.key)
    return [head for head in heads if receiver is None or head.layer < receiver.layer]


def _cost(pairs: RunPairs, group: Group, receiver: Head | None, senders: list[Head]) -> float:
    by_layer = pairs.scale.senders(group, {receiver.layer} if receiver else ())
    return sum(by_layer[head.layer] for head in senders) / pairs.scale.n_heads


def _into(
    pairs: RunPairs,
    group: Group,
    receiver: Head | None,
    senders: list[Head],
    progress: Progress,
    kept_in: Kept | None,
    score: Score,
) -> Iterator[Edge]:
    from backend.engine.path_patching.scores import scores_of

    receivers = [] if receiver is None else [receiver]
    found = scores_of(pairs, group.key, receivers, progress, senders, kept_in, score)
    scores = found.double().numpy()
    for head in senders:
        weight = mean_estimate(scores[:, head.layer, head.index])
        yield Edge(group.key, head, receiver, weight)


def _plan(request: EdgesRequest) -> Plan:
    scale, n = scale_of(request.model, request.prompts), request.prompts.n
    cost = n * _cost_of_all(scale, request.circuit)
    return [[chosen_step(scale, n), Step("Patching one edge after the other", cost)]]


def _cost_of_all(scale: Scale, circuit: Circuit) -> float:
    """Of every edge, on one prompt: runs of the senders to one receiver at a time."""
    cost = 2 * scale.runs(1)
    for group in circuit.task.groups:
        sending = [head.layer for head in circuit.heads(group.key)]
        into = {head for key in group.into for head in circuit.heads(key)}
        for receiver in into or (None,):
            by_layer = scale.senders(group, {receiver.layer} if receiver else ())
            cost += sum(by_layer.get(layer, 0.0) for layer in sending) / scale.n_heads
    return cost


def _work(
    request: EdgesRequest, _: Finished, report: Report, unfinished: Unfinished
) -> Iterator[Edges]:
    plan, circuit = _plan(request), request.circuit
    model = loaded(request.model, report, plan, 0)
    from backend.methods.pairs import run_pairs

    circuit.check(model.shape, catalogue.label(request.model))
    pairs, _choice = run_pairs(request.model, request.prompts, report, plan)
    told = step_of(report, plan, 0, 1)
    with at_work(model.runtime):
        found = edges(pairs, circuit, request.model, told, unfinished(0), request.score)
    yield found


def _rows(request: EdgesRequest, _: int, part: Edges) -> Iterator[Figure]:
    for edge in sorted(part.edges, key=lambda edge: -abs(edge.weight.value)):
        name = f"{edge.group} {edge.sender} → {edge.receiver or 'logits'}"
        yield Figure(name, score_name(part.score), edge.weight)


def _named(part: Edges, models: Mapping[str, str], circuit: str) -> Edges:
    return replace(part, model=models[part.model], circuit=circuit)


METHOD = Method(
    "edges",
    "Edges",
    EdgesRequest,
    lambda _: (Edges,),
    _plan,
    _work,
    _rows,
    named=_named,
    command=Command(
        "how much flows from each head to each head of the next group, by path patching",
        "edges base --circuit base --prompts 100",
        N_PATCHED,
    ),
)
