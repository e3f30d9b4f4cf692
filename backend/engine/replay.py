"""Run some tokens of a prompt again, over the cached keys and values of the others.

After an intervention at one token, everything before it is as it was. So every method here runs
the model's own layers on few *rows* (tokens of a prompt) from the first layer that can change,
while the other tokens are a *context* of cached, already rotated keys and values.

Several variants of the same tokens (other circuits, other senders) go through in one run: a row
sees the context and the rows of its own variant, so the context is read once for all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from backend.engine.architectures import (
    embed,
    kind_of_rotation,
    layers,
    rotations,
    shape_of,
    window,
)
from backend.engine.hooks import at_tokens


@dataclass(frozen=True, eq=False)
class Context:
    """The tokens that are not run again, as attention sees them.

    keys, values: one [n, n_kv_heads, t, d_head] per layer, keys rotated; tokens [n or 1, t], where
    in the prompt each of them is.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    tokens: Tensor

    def update(
        self, keys: Tensor, values: Tensor, layer: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Stand in for a model's cache: a layer's context, followed by the rows' own."""
        all_keys = torch.cat([self.keys[layer], keys], 2)
        return all_keys, torch.cat([self.values[layer], values], 2)

    def of_prompts(self, prompts: Tensor | slice) -> Context:
        """The context of these prompts only, by row numbers or, without a copy, a slice of them."""
        tokens = self.tokens if len(self.tokens) == 1 else self.tokens[prompts]
        return Context(
            tuple(keys[prompts] for keys in self.keys),
            tuple(values[prompts] for values in self.values),
            tokens,
        )

    def before(self, token: int) -> Context:
        """The context cut off before a token; of a context that holds the whole prompt."""
        return Context(
            tuple(keys[:, :, :token] for keys in self.keys),
            tuple(values[:, :, :token] for values in self.values),
            self.tokens[:, :token],
        )

    def at(self, tokens: Tensor) -> Context:
        """The context at each prompt's own `tokens` [n, t]; of one that holds the whole prompt."""

        def pick(table: Tensor) -> Tensor:
            return at_tokens(table.transpose(1, 2), tokens).transpose(1, 2).contiguous()

        return Context(tuple(map(pick, self.keys)), tuple(map(pick, self.values)), tokens)


@dataclass(frozen=True, eq=False)
class FullRun:
    """Everything of a run on whole prompts that a replay can start from.

    residuals[l] [n, seq, d_model] enters layer l; residuals[n_layers] leaves the last one.
    """

    residuals: tuple[Tensor, ...]
    context: Context

    def of_prompts(self, prompts: Tensor) -> FullRun:
        """The run of these prompts only; `prompts` are row numbers."""
        residuals = tuple(residual[prompts] for residual in self.residuals)
        return FullRun(residuals, self.context.of_prompts(prompts))


class Recorder:
    """Stands in for a model's cache, and keeps what every layer writes to it."""

    def __init__(self) -> None:
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Keep a layer's keys and values, which are all it attends to."""
        self.keys.append(keys)
        self.values.append(values)
        return keys, values

    def context(self, tokens: Tensor) -> Context:
        """What was kept, of these `tokens` [n or 1, t]."""
        return Context(tuple(self.keys), tuple(self.values), tokens)


@torch.no_grad()
def full_run(model: nn.Module, input_ids: Tensor, tokens: Tensor | None = None) -> FullRun:
    """Run whole prompts `input_ids` [n, seq], keeping all that a replay needs.

    They stand at `tokens` [n, seq] if these are given, else one after the other.
    """
    if tokens is None:
        tokens = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
    recorder = Recorder()
    residuals = [embed(model, input_ids, tokens)]
    inputs = layer_inputs(model, residuals[0], tokens, tokens[:, :0])
    for layer, given in zip(layers(model), inputs, strict=True):
        residuals.append(layer.run(residuals[-1], given, recorder))
    return FullRun(tuple(residuals), recorder.context(tokens))


def replay(
    model: nn.Module,
    hidden: Tensor,
    tokens: Tensor,
    context: Context,
    start: int = 0,
    variants: int = 1,
) -> Tensor:
    """Run rows through the layers from `start` on, and read each variant's last row.

    hidden [n, variants * p, d_model] enters layer `start`, variants outermost; tokens [n or 1, p]
    says where in the prompt the rows of one variant are, in order; none may be in `context`.
    Returns [n, variants, d_model], as it leaves the last layer; there are no layers to run if
    `start` is their number. Gradients flow through it unless the caller wants none.
    """

    def last(rows: Tensor) -> Tensor:
        return rows.unflatten(1, (variants, -1))[:, :, -1]

    stack = layers(model)
    if start == len(stack):
        return last(hidden)
    inputs = layer_inputs(model, hidden, tokens, context.tokens, variants)
    for layer, given in zip(stack[start:-1], inputs[start:-1], strict=True):
        hidden = layer.run(hidden, given, context)
    return stack[-1].leave(last(hidden), last(stack[-1].attend(hidden, inputs[-1], context)))


def replay_layers(
    model: nn.Module,
    hidden: Tensor,
    tokens: Tensor,
    context: Context,
    start: int = 0,
    stop: int | None = None,
) -> Iterator[Tensor]:
    """Run the rows [n, p, d_model] of one variant, and give what leaves each layer up to `stop`."""
    inputs = layer_inputs(model, hidden, tokens, context.tokens)
    for layer, given in zip(layers(model)[start:stop], inputs[start:stop], strict=True):
        hidden = layer.run(hidden, given, context)
        yield hidden


def layer_inputs(
    model: nn.Module, hidden: Tensor, tokens: Tensor, context_tokens: Tensor, variants: int = 1
) -> list[dict[str, Any]]:
    """What each layer's attention is called with, beside residuals and a cache."""
    rows = tokens.repeat(1, variants)

    @cache
    def visibility(window: int | None) -> Tensor:
        return _visibility(tokens, context_tokens, variants, window, hidden.dtype)

    @cache
    def rotated(kind: str | None) -> Any:
        return rotations(model, hidden, rows, kind)

    def inputs(layer: int) -> dict[str, Any]:
        # The mask is always given: left to itself, eager attention would see the future.
        given = {"attention_mask": visibility(window(model, layer))}
        how = rotated(kind_of_rotation(model, layer))
        return given if how is None else given | {"position_embeddings": how}

    return [inputs(layer) for layer in range(shape_of(model).n_layers)]


def _visibility(
    tokens: Tensor, context: Tensor, variants: int, window: int | None, dtype: torch.dtype
) -> Tensor:
    """What is added to attention scores: [n or 1, 1, rows, context + rows], 0 or very negative.

    A row sees earlier tokens of the context, and tokens of its own variant up to itself, as far
    back as the window reaches.
    """
    n = max(len(tokens), len(context))
    rows = tokens.repeat(1, variants)
    variant = torch.arange(variants, device=tokens.device).repeat_interleave(tokens.shape[1])
    distance = torch.cat(
        [each.expand(n, -1, -1) for each in (_back(rows, context), _back(rows, rows))], 2
    )
    seen = (distance >= 0) & (distance < (window or distance.max() + 1))
    seen[:, :, context.shape[1] :] &= variant[:, None] == variant
    hidden = torch.full((), torch.finfo(dtype).min, dtype=dtype, device=tokens.device)
    return torch.where(seen, torch.zeros_like(hidden), hidden)[:, None]


def _back(rows: Tensor, others: Tensor) -> Tensor:
    """How many tokens each of the others is before each row."""
    return rows[:, :, None] - others[:, None, :]
