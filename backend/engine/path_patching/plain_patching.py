"""Path patching by its definition, for models that the engine cannot take apart.

Two runs of the whole prompts for every sender, as in `backend.engine.path_patching.scores`; one in
group A.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import torch
from torch import Tensor

from backend.core.heads import Head
from backend.engine.architectures import Projection, last_logits, shape_of
from backend.engine.hooks import edited_head_outputs, edited_projections, record_head_outputs
from backend.engine.path_patching.run_pairs import RunPair
from backend.tasks.task import Group


def patched_plainly(
    pair: RunPair,
    group: Group,
    layers: Collection[int],
    receivers: Collection[Head],
    projection: Projection | None,
) -> Iterator[tuple[int, Tensor]]:
    """Each layer, and the last logits [n, n_heads, vocab] with its heads' paths patched.

    projection: what the receivers receive; None if the logits do.
    """
    model, ids = pair.clean.model, pair.clean.input_ids
    clean, shape = record_head_outputs(model, ids), shape_of(model)
    position = pair.clean.positions.index(group.position)
    at = torch.arange(len(ids), device=ids.device), pair.clean.tokens[:, position]
    shared_by = 1 if projection == "q_proj" else shape.n_heads // shape.n_kv_heads

    def patched(sender: Head) -> Tensor:
        sent: list[Tensor] = []

        def freeze(layer: int, _: Tensor) -> Tensor:
            if layer != sender.layer:
                return clean[layer]
            heads = clean[layer].clone()
            heads[(*at, sender.index)] = pair.counterfactual[layer, :, position, sender.index]
            return heads

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

    for layer in layers:
        yield layer, torch.stack([patched(Head(layer, i)) for i in range(shape.n_heads)], 1)
