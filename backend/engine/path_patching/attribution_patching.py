"""Attribution patching: path patching to first order, all heads in one backward pass.

Path patching (`backend.engine.path_patching.scores`) runs every head by itself. Here F(z) is the
same score as a function of all head outputs z at the group's token together:

1. the *sender run*: head outputs at that token are z, those at all others frozen to their clean
   values, MLPs and norms are recomputed;
2. the *receivers' run*: the receivers' queries, keys or values at that token are the sender run's,
   everything else is computed. Where a group writes into the logits, the sender run is all.

F is 0 at the clean outputs, and path patching of a head is F with its output z_h alone replaced by
its counterfactual's z_h'. Its attribution is (z_h' - z_h) . dF/dz_h at the clean outputs (Nanda,
2023; Syed et al., 2023). The derivative is exact, of the same paths, frozen heads, recomputed MLPs
and receivers. Approximated is one thing only: F is taken to be linear between a head's clean and
its counterfactual output. What that misses are attention that saturates, MLPs that bend, and
probabilities that cannot fall below zero: an attribution may be below -1, a score may not.

With `steps`, gradients are averaged over so many points, the middles of equal parts of the straight
line on which all head outputs go from clean to counterfactual together (integrated gradients, as
in Hanna et al., 2024, who move all inputs together). With many steps, attributions of all heads add
up to F with all of them replaced; what a head does while others stay clean is told apart from that
no better than before.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from backend.core.heads import Head
from backend.core.kept import Kept
from backend.core.metrics import Score
from backend.core.progress import Progress, silent
from backend.engine import checkpoints
from backend.engine.architectures import Projection, dtype_of, shape_of
from backend.engine.finite import check_finite
from backend.engine.memory import gradient_batches, memory_errors_explained
from backend.engine.path_patching.few_tokens import few_tokens
from backend.engine.path_patching.plain_patching import jointly_patched_plainly
from backend.engine.path_patching.receivers_runs import joint_receivers_run
from backend.engine.path_patching.run_pairs import RunPair, RunPairs, Scene, part_of, scenes
from backend.engine.path_patching.scores import (
    RECEIVED,
    change_from,
    n_sending_layers,
    scored,
    scored_logits_of,
)
from backend.engine.path_patching.sender_runs import joint_sender_run
from backend.tasks.prompts import PromptSet
from backend.tasks.task import Group

_Run = Callable[[Tensor], Tensor]
"""Head outputs at the group's token [n_layers, n, n_heads, d_head] -> what is scored [n, 1, m]."""


def attribution_scores(
    model: nn.Module,
    prompts: PromptSet,
    counterfactual: PromptSet,
    group: str,
    receivers: Collection[Head] = (),
    score: Score = Score.probability,
    steps: int = 0,
) -> Tensor:
    """The attribution of every head as a sender to the receivers: [n, n_layers, n_heads].

    In the units of `path_patching_scores`, which it estimates, and exactly zero where that is.
    Without `steps` the gradient is that at the clean outputs, else it is integrated.
    """
    pairs = RunPairs(model, prompts, counterfactual)
    return attributions_of(pairs, group, receivers, score=score, steps=steps)


@torch.no_grad()
def attributions_of(
    pairs: RunPairs,
    group: str,
    receivers: Collection[Head] = (),
    progress: Progress = silent,
    kept_in: Kept | None = None,
    score: Score = Score.probability,
    steps: int = 0,
    n_tokens: int | None = None,
) -> Tensor:
    """`attribution_scores`, when several stages share the same runs.

    Those of finished batches of prompts are kept in a folder, if there is one, and taken from
    there. With `n_tokens`, only through so many tokens of each prompt
    (`backend.engine.path_patching.few_tokens`). Raises UserError where they are not finite.
    """
    shape, sending = shape_of(pairs.model), pairs.task.group(group)
    dtype = torch.promote_types(dtype_of(pairs.model), torch.float32)
    folder = checkpoints.inside(kept_in, score.name)
    if not n_sending_layers(pairs, sending, receivers):
        return torch.zeros(pairs.n_prompts, *shape[:2], dtype=dtype)
    layers = {head.layer for head in receivers}
    gradients = pairs.scale.gradients(1, sending, layers, steps)

    def of_batch(batch: slice) -> Tensor:
        progress(batch.start, pairs.n_prompts)
        size, first = batch.stop - batch.start, pairs.cost_of(batch)

        def told(done: float) -> None:
            share = (first + gradients * done / size) / (first + gradients)
            progress(batch.start + size * share, pairs.n_prompts)

        return _of_pair(pairs.of(batch), sending, receivers, dtype, told, score, steps, n_tokens)

    blocks = [
        checkpoints.Block(
            checkpoints.name_of(batch),
            (batch.stop - batch.start, *shape[:2]),
            dtype,
            partial(of_batch, batch),
        )
        for batch in pairs.batches
    ]
    with memory_errors_explained(pairs.model, pairs.batches[0].stop):
        return torch.cat(checkpoints.tensors(folder, blocks))


def _of_pair(
    pair: RunPair,
    group: Group,
    receivers: Collection[Head],
    dtype: torch.dtype,
    told: Callable[[float], None],
    score: Score,
    steps: int,
    n_tokens: int | None,
) -> Tensor:
    """The attributions of a batch's prompts: [n, n_layers, n_heads]; `told` how many are done."""
    found = torch.zeros(len(pair.answers), *shape_of(pair.clean.model)[:2], dtype=dtype)
    points = [(step + 0.5) / steps for step in range(steps)] if steps else [0.0]
    position, done = pair.clean.positions.index(group.position), 0.0
    for rows, run in _runs(pair, group, receivers, score, n_tokens):
        change = change_from(pair, rows, score)
        clean, other = (each[:, rows, position] for each in (pair.heads, pair.counterfactual))
        gradient = torch.zeros_like(clean, dtype=dtype)
        for point in points:
            gradient += _gradient(run, torch.lerp(clean, other, point), change)
            done += len(rows) / len(points)
            told(done)
        attributed = ((other - clean).to(dtype) * gradient / len(points)).sum(-1)
        found[rows.cpu()] = check_finite(attributed, prompts=1).transpose(0, 1).cpu()
    return found


@torch.enable_grad()
def _gradient(run: _Run, heads: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Of the score in all head outputs, at `heads` [n_layers, n, n_heads, d_head]: alike."""
    at = heads.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(change(run(at)).sum(), at)
    return gradient


def _runs(
    pair: RunPair,
    group: Group,
    receivers: Collection[Head],
    score: Score,
    n_tokens: int | None,
) -> Iterator[tuple[Tensor, _Run]]:
    """Row numbers of some prompts that fit into memory, and their logits given head outputs."""
    model, projection = pair.clean.model, RECEIVED.get(group.component)
    length = pair.clean.input_ids.shape[1]
    everyone = torch.arange(len(pair.answers), device=pair.answers.device)
    if pair.clean.run is None:
        for some in gradient_batches(model, len(everyone), length):
            yield (
                everyone[some],
                _plain_run(pair, everyone[some], group, receivers, projection, score),
            )
        return
    for rows, scene in scenes(pair, pair.clean.run, group):
        for some in gradient_batches(model, len(rows), length):
            few = everyone[some]
            part = scene if len(few) == len(rows) else part_of(scene, few)
            yield (
                rows[some],
                _scene_run(part, pair, rows[some], receivers, projection, score, n_tokens),
            )


def _plain_run(
    pair: RunPair,
    rows: Tensor,
    group: Group,
    receivers: Collection[Head],
    projection: Projection | None,
    score: Score,
) -> _Run:
    def run(heads: Tensor) -> Tensor:
        logits = jointly_patched_plainly(pair, rows, group, heads, receivers, projection)
        return scored(logits[:, None], pair, rows, score)

    return run


def _scene_run(
    scene: Scene,
    pair: RunPair,
    rows: Tensor,
    receivers: Collection[Head],
    projection: Projection | None,
    score: Score,
    n_tokens: int | None,
) -> _Run:
    few = few_tokens(scene, receivers, projection, n_tokens) if projection and n_tokens else None

    def run(heads: Tensor) -> Tensor:
        if projection is None:
            *_, (_, final) = joint_sender_run(scene, heads, len(heads))
        else:
            final = joint_receivers_run(scene, heads, receivers, projection, few)
        return scored_logits_of(scene.model, final, pair, rows, score)

    return run
