"""Receivers' runs of path patching: what they receive comes from sender runs, all else follows.

A run starts at the first receiver above the sender and at the group's token, over cached keys and
values of the tokens before it. In the first layer that receives values, attention is as it was: a
head's output moves by its attention to the group's token times the change of the value there.
Queries and keys change attention itself: they are replaced as they leave their projection, before
they are normed and rotated, and the layer attends anew from the group's token on.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import groupby
from math import ceil
from typing import Any

import torch
from torch import Tensor

from backend.core.heads import Head
from backend.engine.architectures import Projection, layers, shape_of, widths
from backend.engine.hooks import Edit, at_tokens, edited_projections, recorded_head_outputs
from backend.engine.path_patching.run_pairs import Scene
from backend.engine.path_patching.sender_runs import Senders, joint_sender_run, sender_runs
from backend.engine.replay import Context, layer_inputs, replay

Received = Mapping[int, tuple[list[int], Tensor]]
"""By layer: which projected heads receive, and what [n, n_senders, n_receivers, d_head]."""

_Entrance = Callable[[Received, Tensor], Tensor]
"""(received, senders) -> the rows [n, n_senders * n_rows, d_model] with which a rerun starts."""

_ROWS_AT_ONCE = 192
"""Senders times tokens in one receivers' run: matrices large enough, attention not yet wasteful."""
_ROWS_OF_ALL_ON_GPU = 16384
"""Of all prompts together. Few prompts share a token, and a GPU waits while small runs are asked
for: on an H200, four times as many rows take a random SmolLM2 0.7 of the time, and a random
Llama-7B 0.8 with TF32. More than that would take memory that prompts were not divided for."""
_NUMBERS_AT_ONCE = 6 << 20
"""Of an MLP's inside, of all prompts: about what a processor still finds in its cache."""


def receivers_runs(
    scene: Scene,
    senders: Senders,
    receivers: Collection[Head],
    projection: Projection,
    chosen: Tensor | None = None,
) -> Iterator[tuple[int, Tensor]]:
    """Each sending layer, and how its senders' runs end: last residuals [n, n_senders, d_model].

    Each sending layer is below some receiver. With `chosen` [n, p], only these tokens of each
    prompt run again, in order, from the group's to the last; all others keep their clean keys and
    values.
    """

    def first_receiver(layer: int) -> int:
        return min(head.layer for head in receivers if head.layer > layer)

    tokens, context = _rerun_tokens(scene) if chosen is None else _only(scene, chosen)
    rows_at_once = _rows_at_once(scene)
    for first, below in groupby(senders, first_receiver):
        if projection == "v_proj":
            start, enter = first + 1, _moved_by_values(scene, first, tokens, context)
        else:
            start, enter = first, _as_they_were(scene, first, tokens)
        for layer in below:
            heads, top = senders[layer], max(head.layer for head in receivers)
            runs = sender_runs(scene, layer, heads, top)
            received = _received(scene, runs, receivers, projection)
            n_chunks = ceil(len(heads) * tokens.shape[1] / rows_at_once)
            finals = []
            for some in torch.arange(len(heads)).chunk(n_chunks):
                rows = enter(received, some)
                with edited_projections(scene.model, projection, _arrive(received, some)):
                    finals.append(replay(scene.model, rows, tokens, context, start, len(some)))
            yield layer, torch.cat(finals, 1)


def joint_receivers_run(
    scene: Scene,
    heads: Tensor,
    receivers: Collection[Head],
    projection: Projection,
    chosen: Tensor | None = None,
) -> Tensor:
    """How the run ends whose receivers receive from `joint_sender_run`: [n, 1, d_model].

    heads [n_layers, n, n_heads, d_head]; some receiver is above the first layer; `chosen` as in
    `receivers_runs`.
    """
    tokens, context = _rerun_tokens(scene) if chosen is None else _only(scene, chosen)
    runs = joint_sender_run(scene, heads, max(head.layer for head in receivers))
    received, alone = _received(scene, runs, receivers, projection), torch.arange(1)
    start = min(received)
    rows = _as_they_were(scene, start, tokens)(received, alone)
    with edited_projections(scene.model, projection, _arrive(received, alone)):
        return replay(scene.model, rows, tokens, context, start)


def _rerun_tokens(scene: Scene) -> tuple[Tensor, Context]:
    """The tokens from the group's on, and what they see of those before."""
    length = scene.run.residuals[0].shape[1]
    tokens = torch.arange(scene.token, length, device=scene.clean.device)[None]
    return tokens, scene.run.context.before(scene.token)


def _only(scene: Scene, chosen: Tensor) -> tuple[Tensor, Context]:
    """These tokens [n, p], and what they see of all others."""
    n, length = scene.run.residuals[0].shape[:2]
    is_other = torch.ones(n, length, dtype=torch.bool, device=chosen.device)
    is_other.scatter_(1, chosen, False)
    others = is_other.nonzero()[:, 1].view(n, -1)
    return chosen, scene.run.context.at(others)


def _rows_at_once(scene: Scene) -> int:
    """Of each prompt, in one receivers' run."""
    if scene.clean.device.type != "cpu":
        n = scene.clean.shape[1]
        return max(_ROWS_AT_ONCE, min(4 * _ROWS_AT_ONCE, _ROWS_OF_ALL_ON_GPU // n))
    numbers = scene.clean.shape[1] * max(widths(scene.model))
    return max(1, min(_ROWS_AT_ONCE, _NUMBERS_AT_ONCE // numbers))


def _rows(scene: Scene, layer: int, tokens: Tensor) -> Tensor:
    """What entered a layer at these tokens: [n, p, d_model]."""
    residual = scene.run.residuals[layer]
    return at_tokens(residual, tokens.expand(len(residual), -1))


def _as_they_were(scene: Scene, layer: int, tokens: Tensor) -> _Entrance:
    """Rows that enter a layer."""
    residual = _rows(scene, layer, tokens)
    return lambda _, senders: residual.repeat(1, len(senders), 1)


def _moved_by_values(scene: Scene, layer: int, tokens: Tensor, context: Context) -> _Entrance:
    """Rows that leave a layer in which values were received, and nothing else had changed."""
    model, shape = scene.model, shape_of(scene.model)
    here = layers(model)[layer]
    residual = _rows(scene, layer, tokens)
    values = scene.run.context.values[layer][:, :, scene.token]
    inputs = layer_inputs(model, residual, tokens, context.tokens)[layer]
    with recorded_head_outputs(model) as recorded:
        here.attend(residual, inputs, context)
    heads = recorded[0][:, None]
    attention = _attention_to_first(scene, layer, residual, inputs, context)[:, None]
    shared_by = shape.n_heads // shape.n_kv_heads

    def leave(received: Received, senders: Tensor) -> Tensor:
        indices, arriving = received[layer]
        readers = [i * shared_by + reader for i in indices for reader in range(shared_by)]
        change = arriving[:, senders] - values[:, None, indices]
        moved = heads.repeat(1, len(senders), 1, 1, 1)
        moved[..., readers, :] += (
            attention[..., readers, None] * change.repeat_interleave(shared_by, 2)[:, :, None]
        )
        entering = residual.repeat(1, len(senders), 1)
        return here.leave(entering, here.add_heads(moved.flatten(1, 2)))

    return leave


def _attention_to_first(
    scene: Scene, layer: int, residual: Tensor, inputs: dict[str, Any], context: Context
) -> Tensor:
    """How much each head attends from every row to the first one: [n, n_rows, n_heads].

    Read off the model's own attention: what heads give if that token alone has a value, all ones.
    """

    def only_first(_: int, values: Tensor) -> Tensor:
        ones = torch.zeros_like(values)
        ones[:, 0] = 1
        return ones

    nothing = tuple(values.new_zeros(()).expand_as(values) for values in context.values)
    with (
        edited_projections(scene.model, "v_proj", only_first),
        recorded_head_outputs(scene.model) as recorded,
    ):
        layers(scene.model)[layer].attend(residual, inputs, replace(context, values=nothing))
    return recorded[0][..., 0]


def _received(
    scene: Scene,
    runs: Iterable[tuple[int, Tensor]],
    receivers: Collection[Head],
    projection: Projection,
) -> Received:
    """What sender runs [n, n_senders, d_model], layer by layer, give the receivers."""
    shape = shape_of(scene.model)
    shared_by = 1 if projection == "q_proj" else shape.n_heads // shape.n_kv_heads
    received = {}
    for above, residual in runs:
        indices = sorted({head.index // shared_by for head in receivers if head.layer == above})
        if indices:
            projected = layers(scene.model)[above].project(projection, residual)
            received[above] = indices, projected[:, :, indices]
    return received


def _arrive(received: Mapping[int, tuple[list[int], Tensor]], senders: Tensor) -> Edit:
    """Give the receivers what these senders sent, at the first row of each sender's variant."""

    def edit(layer: int, heads: Tensor) -> Tensor | None:
        if layer not in received:
            return None
        indices, arriving = received[layer]
        heads = heads.clone()
        heads.unflatten(1, (len(senders), -1))[:, :, 0, indices] = arriving[:, senders]
        return heads

    return edit
