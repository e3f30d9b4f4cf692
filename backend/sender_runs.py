"""Sender runs of path patching: one head gives its counterfactual's value, the others their own.

With all other heads frozen, the residual stream changes at one token only, through MLPs: no
attention is computed, and all heads of a layer are rows of one batch.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from backend.hooks import decoder
from backend.replay import through_mlp
from backend.run_pairs import Scene


def sender_runs(scene: Scene, layer: int, top: int) -> Iterator[tuple[int, Tensor]]:
    """Sender runs of all heads of a layer, up to layer `top`.

    Gives, for each layer above the senders', the residuals [n, n_heads, d_model] that enter it at
    the group's token; for `n_layers`, those that leave the last layer.
    """
    blocks = decoder(scene.model).layers
    senders = torch.arange(scene.clean.shape[2], device=scene.clean.device)
    sent = scene.clean[layer][:, None].repeat(1, len(senders), 1, 1)
    sent[:, senders, senders] = scene.counterfactual[layer]
    residual = scene.run.residuals[layer][:, scene.token, None]
    for above in range(layer, top):
        block = blocks[above]
        heads = sent if above == layer else scene.clean[above][:, None]
        residual = through_mlp(block, residual + block.self_attn.o_proj(heads.flatten(-2)))
        yield above + 1, residual
