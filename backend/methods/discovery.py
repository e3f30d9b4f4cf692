"""Find a circuit: path patching backwards from the logits, group by group.

A is what feeds the logits, B what feeds A's queries, C what feeds B's values, D what feeds C's
values. The strongest heads of a stage are the receivers of the next (Prakash et al., circuit
discovery).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from backend.core.circuit import Circuit, Group, Head, Site
from backend.core.progress import Progress, silent
from backend.engine.mean_ablation import AblatedRun, circuits_right
from backend.engine.path_patching.run_pairs import RunPairs
from backend.engine.path_patching.scores import scores_of
from backend.methods.results import Criteria, Discovery, Stage

StageProgress = Callable[[Group, int, int], None]
"""(stage, steps done, steps of this stage); may raise to cancel."""


def discover(
    pairs: RunPairs,
    criteria: Criteria,
    least_effect: float = 0.0,
    progress: StageProgress = lambda stage, done, total: None,
) -> Discovery:
    """Run the four stages; the heads that are kept of A, B and C are what the next one feeds.

    Only heads with a score below -`least_effect` can be receivers; where there is none, there is no
    next stage.
    """
    stages: dict[Group, Stage] = {}
    receivers: tuple[Head, ...] = ()
    for group in (Group.A, Group.B, Group.C, Group.D):
        stage = stages[group] = find_stage(pairs, group, receivers, partial(progress, group))
        kept = criteria.kept(group, stage)
        receivers = tuple(head for head in kept if stage.mean[head] < -least_effect)
        if not receivers:
            break
    return Discovery(stages, pairs.n_prompts)


def find_stage(
    pairs: RunPairs,
    group: Group,
    receivers: tuple[Head, ...],
    progress: Progress = silent,
) -> Stage:
    """One stage: every head as a sender to these receivers."""
    scores = scores_of(pairs, group, receivers, progress)
    return summarised(scores, receivers, pairs.clean_probability)


def summarised(
    scores: Tensor, receivers: tuple[Head, ...], clean_probability: float = float("nan")
) -> Stage:
    """A stage out of its scores [n, n_layers, n_heads]."""
    scores = scores.double()
    return Stage(
        scores.mean(0).numpy(),
        _error(scores),
        receivers,
        len(scores),
        clean_probability,
        _error(scores - _middle(scores)),
    )


def _middle(scores: Tensor) -> Tensor:
    """The scores of the head in the middle of each layer, by its mean: [n, n_layers, 1].

    Of an even number of heads the two in the middle, averaged: their mean is the median.
    """
    n_heads = scores.shape[-1]
    order = scores.mean(0).argsort(-1)[:, [(n_heads - 1) // 2, n_heads // 2]]
    return scores.gather(-1, order.expand(len(scores), -1, -1)).mean(-1, keepdim=True)


def _error(scores: Tensor) -> NDArray[np.float64]:
    return (scores.std(0) / len(scores) ** 0.5).numpy()


def circuit_accuracies(
    ablated_run: AblatedRun, circuits: Sequence[Collection[Site]], answer_ids: Tensor
) -> Tensor:
    """Share of right answers [n_circuits] of each circuit alone; `answer_ids` [n]."""
    return torch.cat([*circuits_right(ablated_run, circuits, answer_ids)]).double().mean(-1)


def prune(
    ablated_run: AblatedRun, circuit: Circuit, answer_ids: Tensor, least_accuracy: float
) -> Circuit:
    """Drop, one by one, the member whose loss costs least, while accuracy stays high enough.

    Of members that cost the same, the first in reading order goes. A circuit that is not accurate
    enough to begin with is returned as it is.
    """
    while circuit.members:
        smaller = [
            circuit.keep(member for member in circuit.members if member != dropped)
            for dropped in circuit.members
        ]
        accuracies = circuit_accuracies(ablated_run, [each.sites for each in smaller], answer_ids)
        best = int(accuracies.argmax())
        if accuracies[best] < least_accuracy:
            break
        circuit = smaller[best]
    return circuit
