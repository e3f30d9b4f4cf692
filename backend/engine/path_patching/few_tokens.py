"""Which tokens run again in a receivers' run where only few may.

What receivers receive at the group's token reaches the last token directly, or through others: one
that attends to the group's token after it has changed, and that the last token attends to in a
layer above. A token weighs as much as the strongest such way through it in the clean run: attention
of a head from it to the group's token, times attention of a head from the last token to it. Those
that weigh most run again, beside the group's and the last; all others keep their clean keys and
values. Left out are ways through more than two tokens, changed attention to tokens that get none in
the clean run, and whatever goes through the tokens that are left out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import torch
from torch import Tensor

from backend.core.heads import Head
from backend.engine.architectures import Projection, layers, shape_of
from backend.engine.hooks import seen_attention_weights
from backend.engine.path_patching.run_pairs import Scene
from backend.engine.replay import layer_inputs


def few_tokens(
    scene: Scene, receivers: Collection[Head], projection: Projection, n_tokens: int
) -> Tensor | None:
    """The group's token, the last, and those between that weigh most: [n, n_tokens], in order.

    n_tokens is two or more. None where there are no more than these from the group's token on.
    Raises UserError for a model that does not tell its attention.
    """
    length = scene.run.residuals[0].shape[1]
    if length - scene.token <= n_tokens:
        return None
    weights = _weights(scene, receivers, projection)
    weights[:, [0, -1]] = torch.inf
    strongest = weights.argsort(dim=1, descending=True, stable=True)[:, :n_tokens]
    return scene.token + strongest.sort(1).values


def _weights(scene: Scene, receivers: Collection[Head], projection: Projection) -> Tensor:
    """What each token weighs, from the group's on: [n, n_rows]."""
    first = min(head.layer for head in receivers)
    readers = _readers(scene, receivers, projection, first)
    found = torch.zeros_like(scene.run.residuals[0][:, scene.token :, 0])
    changed = torch.zeros_like(found)
    for layer, attention in _attention(scene, first):
        found = torch.maximum(found, changed * attention[:, :, -1, scene.token :].amax(1))
        to_group = attention[..., scene.token]
        if layer > first:
            changed = torch.maximum(changed, to_group.amax(1))
        elif readers:
            changed = to_group[:, readers].amax(1)
    return found


def _readers(
    scene: Scene, receivers: Collection[Head], projection: Projection, layer: int
) -> list[int]:
    """The heads of a layer that read what its receivers receive from any token: no queries."""
    if projection == "q_proj":
        return []
    shape = shape_of(scene.model)
    shared_by = shape.n_heads // shape.n_kv_heads
    received = {head.index // shared_by for head in receivers if head.layer == layer}
    return [index for index in range(shape.n_heads) if index // shared_by in received]


def _attention(scene: Scene, first: int) -> Iterator[tuple[int, Tensor]]:
    """Each layer from `first` on, and its clean attention [n, n_heads, n_rows, seq].

    The rows are those from the group's token on.
    """
    model, run = scene.model, scene.run
    context = run.context.before(scene.token)
    tokens = torch.arange(scene.token, run.residuals[0].shape[1], device=scene.clean.device)[None]
    inputs = layer_inputs(model, run.residuals[0][:, scene.token :], tokens, context.tokens)
    seen: list[Tensor] = []
    with seen_attention_weights(model, lambda _, weights: seen.append(weights)):
        for number, layer in enumerate(layers(model)[first:], first):
            layer.attend(run.residuals[number][:, scene.token :], inputs[number], context)
            yield number, seen.pop()
