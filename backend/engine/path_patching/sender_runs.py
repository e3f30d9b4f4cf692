"""Sender runs of path patching: one head gives its counterfactual's value, the others their own.

With all other heads frozen, the residual stream changes at one token only, through MLPs: no
attention is computed, and all heads of a layer are rows of one batch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import torch
from torch import Tensor

from backend.engine.architectures import layers
from backend.engine.path_patching.run_pairs import Scene


def sender_runs(scene: Scene, layer: int, top: int) -> Iterator[tuple[int, Tensor]]:
    """Sender runs of all heads of a layer, up to layer `top`.

    Gives, for each layer above the senders', the residuals [n, n_heads, d_model] that enter it at
    the group's token; for `n_layers`, those that leave the last layer.
    """
    stack = layers(scene.model)
    senders = torch.arange(scene.clean.shape[2], device=scene.clean.device)
    sent = scene.clean[layer][:, None].repeat(1, len(senders), 1, 1)
    sent[:, senders, senders] = scene.counterfactual[layer]
    residual = scene.run.residuals[layer][:, scene.token, None]
    for above in range(layer, top):
        heads = sent if above == layer else scene.clean[above][:, None]
        residual = stack[above].leave(residual, stack[above].add_heads(heads))
        yield above + 1, residual


def sender_finals(scene: Scene, sending: Collection[int]) -> Iterator[tuple[int, Tensor]]:
    """Each sending layer, and how its heads' runs end: last residuals [n, n_heads, d_model]."""
    for layer in sending:
        *_, (_, final) = sender_runs(scene, layer, len(scene.clean))
        yield layer, final
