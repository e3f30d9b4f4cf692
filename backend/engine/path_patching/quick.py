"""Path patching in little time, and approximate: runs of few tokens, and gradients for the rest.

Of each prompt only few tokens run again when receivers receive
(`backend.engine.path_patching.few_tokens`). What goes through the others is added to first order:
attribution patching through all tokens, less attribution patching through these few. So what a
head does through the few tokens is exact, however it bends; taken to be linear is only what goes
through the others, too. Where all tokens from the group's on are among the few, or the logits
receive, scores are exactly those of path patching.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from backend.core.heads import Head
from backend.core.kept import Kept
from backend.core.metrics import Score
from backend.core.progress import Progress, consecutive, silent
from backend.engine import checkpoints
from backend.engine.path_patching.attribution_patching import attributions_of
from backend.engine.path_patching.run_pairs import RunPairs
from backend.engine.path_patching.scores import n_sending_layers, scores_of


@torch.no_grad()
def quick_scores_of(
    pairs: RunPairs,
    group: str,
    receivers: Collection[Head] = (),
    n_tokens: int = 4,
    progress: Progress = silent,
    kept_in: Kept | None = None,
    score: Score = Score.probability,
) -> Tensor:
    """About what `scores_of` gives, of at most `n_tokens` of a prompt: [n, n_layers, n_heads].

    Raises UserError for a model that can only be run whole, or does not tell its attention.
    """
    given, of = (pairs, group, receivers), pairs.task.group(group)
    if pairs.scale.reruns_all(of, n_tokens) or not n_sending_layers(pairs, of, receivers):
        return scores_of(*given, progress, kept_in=kept_in, score=score)
    layers = {head.layer for head in receivers}
    runs = sum(pairs.scale.senders(of, layers, n_tokens).values())
    gradients = [pairs.scale.gradients(1, of, layers, 0, few) for few in (None, n_tokens)]
    told = consecutive(progress, [runs, *gradients])

    def folder(name: str) -> Kept | None:
        return checkpoints.inside(kept_in, name)

    few = scores_of(*given, told[0], kept_in=folder("runs"), score=score, n_tokens=n_tokens)
    through_all = attributions_of(*given, told[1], folder("through all"), score)
    through_few = attributions_of(*given, told[2], folder("through few"), score, n_tokens=n_tokens)
    return few + (through_all - through_few)
