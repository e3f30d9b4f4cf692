"""Find a circuit: path patching backwards from the logits, group by group.

The first group is what feeds the logits, the others feed the queries, keys or values of groups
found before them: the strongest heads of a stage are the receivers of later ones (Prakash et al.,
circuit discovery).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from backend.core.heads import Head
from backend.core.progress import Progress, between, silent
from backend.engine.path_patching.run_pairs import RunPairs
from backend.engine.path_patching.scores import scores_of
from backend.methods.stage import Stage
from backend.methods.stages import Criteria, Discovery, stages_in_order
from backend.tasks.task import Group


def discover(pairs: RunPairs, criteria: Criteria, progress: Progress = silent) -> Discovery:
    """Run every stage; the heads that are kept in a group are what those before it feed."""
    groups = pairs.task.groups

    def ask(group: Group, receivers: tuple[Head, ...]) -> Stage:
        place, n = groups.index(group), len(groups)
        return find_stage(pairs, group, receivers, between(progress, place / n, (place + 1) / n))

    stages = tuple(stages_in_order(pairs.task, criteria, ask))
    return Discovery(pairs.task, stages, pairs.n_prompts)


def find_stage(
    pairs: RunPairs,
    group: Group,
    receivers: tuple[Head, ...],
    progress: Progress = silent,
) -> Stage:
    """One stage: every head as a sender to these receivers."""
    scores = scores_of(pairs, group.key, receivers, progress)
    return summarised(group.key, scores, receivers, pairs.clean_probability)


def summarised(
    group: str, scores: Tensor, receivers: tuple[Head, ...], clean_probability: float = float("nan")
) -> Stage:
    """A stage of a group, by its key, out of its scores [n, n_layers, n_heads]."""
    scores = scores.double()
    return Stage(
        group,
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
