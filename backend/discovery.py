"""Find a circuit: path patching backwards from the logits, group by group.

A is what feeds the logits, B what feeds A's queries, C what feeds B's values, D what feeds C's
values. The strongest heads of a stage are the receivers of the next (Prakash et al., circuit
discovery).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from backend.circuit import Circuit, Group, Head, Site
from backend.faithfulness import Backdrop, circuits_right
from backend.path_patching import Progress, scores_of
from backend.results import Discovery, Stage
from backend.run_pairs import RunPairs

StageProgress = Callable[[Group, int, int], None]
"""(stage, steps done, steps of this stage); may raise to cancel."""


def discover(
    pairs: RunPairs,
    n_receivers: Mapping[Group, int],
    least_effect: float = 0.0,
    progress: StageProgress = lambda stage, done, total: None,
    centred: bool = False,
) -> Discovery:
    """Run the four stages; `n_receivers` says how many heads of A, B and C the next one feeds.

    Only heads with a score below -`least_effect` can be receivers; a stage that has none scores
    zero throughout.
    """
    stages: dict[Group, Stage] = {}
    receivers: tuple[Head, ...] = ()
    for group in (Group.A, Group.B, Group.C, Group.D):
        stages[group] = find_stage(pairs, group, receivers, partial(progress, group))
        receivers = stages[group].strongest(n_receivers.get(group, 0), least_effect, centred)
    return Discovery(stages, pairs.n_prompts)


def find_stage(
    pairs: RunPairs,
    group: Group,
    receivers: tuple[Head, ...],
    progress: Progress = lambda done, total: None,
) -> Stage:
    """One stage: every head as a sender to these receivers."""
    return summarised(scores_of(pairs, group, receivers, progress), receivers)


def summarised(scores: Tensor, receivers: tuple[Head, ...]) -> Stage:
    """A stage out of its scores [n, n_layers, n_heads]."""
    scores = scores.double()
    error = scores.std(0) / len(scores) ** 0.5
    return Stage(scores.mean(0).numpy(), error.numpy(), receivers)


def circuit_accuracies(
    backdrop: Backdrop, circuits: Sequence[Collection[Site]], answer_ids: Tensor
) -> Tensor:
    """Share of right answers [n_circuits] of each circuit alone; `answer_ids` [n]."""
    return torch.cat([*circuits_right(backdrop, circuits, answer_ids)]).double().mean(-1)


def prune(
    backdrop: Backdrop, circuit: Circuit, answer_ids: Tensor, least_accuracy: float
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
        accuracies = circuit_accuracies(backdrop, [each.sites for each in smaller], answer_ids)
        best = int(accuracies.argmax())
        if accuracies[best] < least_accuracy:
            break
        circuit = smaller[best]
    return circuit
