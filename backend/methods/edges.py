"""Edges: how much of the answer flows from each single head to each single head that it feeds.

Path patching as in discovery, with one receiver at a time: the queries, keys or values of a head in
a group that the sender's group writes into, or the logits. A head can only send to layers above its
own. Under grouped-query attention keys and values belong to a key-value head that query heads
share: receivers that share one have the same weights (Prakash et al., circuit discovery).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from backend.core.heads import Head
from backend.core.metrics import Score
from backend.core.progress import Progress, between, silent
from backend.core.statistics import mean_estimate
from backend.engine import checkpoints
from backend.engine.path_patching.run_pairs import RunPairs
from backend.engine.path_patching.scores import scores_of
from backend.methods.results import Edge, Edges
from backend.tasks.circuit import Circuit
from backend.tasks.task import Group


def edges(
    pairs: RunPairs,
    circuit: Circuit,
    model: str,
    progress: Progress = silent,
    kept_in: Path | None = None,
    score: Score = Score.probability,
) -> Edges:
    """The weight of every edge of the circuit, a mean score; to the logits, one edge a head.

    Scores of finished batches of prompts, receiver by receiver, are kept in a folder, if there is
    one, and taken from there.
    """
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
    return sum(by_layer[layer] for layer in {head.layer for head in senders})


def _into(
    pairs: RunPairs,
    group: Group,
    receiver: Head | None,
    senders: list[Head],
    progress: Progress,
    kept_in: Path | None,
    score: Score,
) -> Iterator[Edge]:
    receivers = [] if receiver is None else [receiver]
    found = scores_of(pairs, group.key, receivers, progress, senders, kept_in, score)
    scores = found.double().numpy()
    for head in senders:
        weight = mean_estimate(scores[:, head.layer, head.index])
        yield Edge(group.key, head, receiver, weight)
