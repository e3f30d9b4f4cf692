"""Path patching by its definition, for models that the engine cannot take apart.

Two runs of the whole prompts for every sender, as in `backend.engine.path_patching.scores`; one in
group A.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import torch
from torch import Tensor, nn

from backend.core.heads import Head
from backend.engine.architectures import Projection, last_logits, shape_of
from backend.engine.hooks import Edit, edited_head_outputs, edited_projections, record_head_outputs
from backend.engine.path_patching.run_pairs import RunPair
from backend.engine.path_patching.sender_runs import Senders
from backend.tasks.task import Group


def patched_plainly(
    pair: RunPair,
    group: Group,
    senders: Senders,
    receivers: Collection[Head],
    projection: Projection | None,
) -> Iterator[tuple[int, Tensor]]:
    """Each sending layer, and the last logits [n, n_senders, vocab] with their paths patched.

    projection: what the receivers receive; None if the logits do.
    """
    model, ids = pair.clean.model, pair.clean.input_ids
    clean = record_head_outputs(model, ids)
    position = pair.clean.positions.index(group.position)
    at = torch.arange(len(ids), device=ids.device), pair.clean.tokens[:, position]

    def patched(sender: Head) -> Tensor:
        def freeze(layer: int, _: Tensor) -> Tensor:
            if layer != sender.layer:
                return clean[layer]
            heads = clean[layer].clone()
            heads[(*at, sender.index)] = pair.counterfactual[layer, :, position, sender.index]
            return heads

        return _two_runs(model, ids, at, freeze, receivers, projection)

    for layer, heads in senders.items():
        yield layer, torch.stack([patched(Head(layer, index)) for index in heads], 1)


def jointly_patched_plainly(
    pair: RunPair,
    rows: Tensor,
    group: Group,
    heads: Tensor,
    receivers: Collection[Head],
    projection: Projection | None,
) -> Tensor:
    """Last logits [n, vocab] of some prompts, with the paths of all heads patched at once.

    rows [n]: which prompts; heads [n_layers, n, n_heads, d_head]: outputs at the group's token.
    """
    model, ids = pair.clean.model, pair.clean.input_ids[rows]
    clean = record_head_outputs(model, ids)
    position = pair.clean.positions.index(group.position)
    at = torch.arange(len(ids), device=ids.device), pair.clean.tokens[rows, position]

    def freeze(layer: int, _: Tensor) -> Tensor:
        given = clean[layer].clone()
        given[at] = heads[layer]
        return given

    return _two_runs(model, ids, at, freeze, receivers, projection)


def _two_runs(
    model: nn.Module,
    ids: Tensor,
    at: tuple[Tensor, Tensor],
    freeze: Edit,
    receivers: Collection[Head],
    projection: Projection | None,
) -> Tensor:
    """Last logits [n, vocab]: heads as `freeze` gives them, and what that gives the receivers."""
    shape, sent = shape_of(model), list[Tensor]()
    shared_by = 1 if projection == "q_proj" else shape.n_heads // shape.n_kv_heads

    def receive(layer: int, heads: Tensor) -> Tensor | None:
        receiving = {head.index // shared_by for head in receivers if head.layer == layer}
        for index in receiving:
            heads = heads.clone()
            heads[(*at, index)] = sent[layer][(*at, index)]
        return heads if receiving else None

    with edited_head_outputs(model, freeze):
        if projection is None:
            return last_logits(model, ids)
        with edited_projections(model, projection, lambda _, heads: sent.append(heads.clone())):
            last_logits(model, ids)
    with edited_projections(model, projection, receive):
        return last_logits(model, ids)
