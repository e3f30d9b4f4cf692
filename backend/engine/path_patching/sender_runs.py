"""Sender runs of path patching: one head gives its counterfactual's value, the others their own.

With all other heads frozen, the residual stream changes at one token only, through MLPs: no
attention is computed, and all heads of a layer are rows of one batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from backend.engine.architectures import layers
from backend.engine.path_patching.run_pairs import Scene

Senders = Mapping[int, Sequence[int]]
"""By layer, lowest first: which of its heads send."""


def sender_runs(
    scene: Scene, layer: int, heads: Sequence[int], top: int
) -> Iterator[tuple[int, Tensor]]:
    """Sender runs of some heads of a layer, up to layer `top`.

    Gives, for each layer above the senders', the residuals [n, n_senders, d_model] that enter it at
    the group's token; for `n_layers`, those that leave the last layer.
    """
    stack = layers(scene.model)
    senders = torch.tensor(heads, device=scene.clean.device)
    sent = scene.clean[layer][:, None].repeat(1, len(senders), 1, 1)
    each = torch.arange(len(senders), device=senders.device)
    sent[:, each, senders] = scene.counterfactual[layer][:, senders]
    residual = scene.run.residuals[layer][:, scene.token, None]
    for above in range(layer, top):
        given = sent if above == layer else scene.clean[above][:, None]
        residual = stack[above].leave(residual, stack[above].add_heads(given))
        yield above + 1, residual


def joint_sender_run(scene: Scene, heads: Tensor, top: int) -> Iterator[tuple[int, Tensor]]:
    """The run in which all head outputs at the group's token are given, up to layer `top`.

    heads [n_layers, n, n_heads, d_head]. Gives residuals as `sender_runs` does, with one sender.
    """
    residual = scene.run.residuals[0][:, scene.token, None]
    for number, layer in enumerate(layers(scene.model)[:top]):
        residual = layer.leave(residual, layer.add_heads(heads[number][:, None]))
        yield number + 1, residual


def sender_finals(scene: Scene, senders: Senders) -> Iterator[tuple[int, Tensor]]:
    """Each sending layer, and how its senders' runs end: last residuals [n, n_senders, d_model]."""
    for layer, heads in senders.items():
        *_, (_, final) = sender_runs(scene, layer, heads, len(scene.clean))
        yield layer, final
