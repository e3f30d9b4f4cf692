"""Run some tokens of a prompt again, over the cached keys and values of the others.

After an intervention at one token, everything before it is as it was. So every method here runs
the model's own layers on few *rows* (tokens of a prompt) from the first layer that can change,
while the other tokens are a *context* of cached, already rotated keys and values.

Prompts are taken to be shorter than any sliding window of the model's attention.

Several variants of the same tokens (other circuits, other senders) go through in one run: a row
sees the context and the rows of its own variant, so the context is read once for all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from backend.hooks import at_tokens, decoder, unwrapped


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
def full_run(model: nn.Module, input_ids: Tensor) -> FullRun:
    """Run whole prompts `input_ids` [n, seq], keeping all that a replay needs."""
    hidden = decoder(model).embed_tokens(input_ids)
    tokens = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
    recorder = Recorder()
    inputs = layer_inputs(model, hidden, tokens, tokens[:, :0], 1)
    inputs["past_key_values"] = recorder
    residuals = [hidden]
    for block in decoder(model).layers:
        residuals.append(block(residuals[-1], **inputs))
    return FullRun(tuple(residuals), recorder.context(tokens))


@torch.no_grad()
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
    `start` is their number.
    """
    inputs = layer_inputs(model, hidden, tokens, context.tokens, variants)
    inputs["past_key_values"] = context
    layers = decoder(model).layers
    if start == len(layers):
        return hidden.unflatten(1, (variants, -1))[:, :, -1]
    *lower, top = layers[start:]
    for block in lower:
        hidden = block(hidden, **inputs)
    last = (hidden + attend(top, hidden, inputs)).unflatten(1, (variants, -1))[:, :, -1]
    return through_mlp(top, last)


def attend(block: Any, residual: Tensor, inputs: Mapping[str, Any]) -> Tensor:
    """What a layer's attention adds to residuals [n, rows, d_model], all its heads together."""
    attended: Tensor = block.self_attn(block.input_layernorm(residual), **inputs)[0]
    return attended


def through_mlp(block: Any, residual: Tensor) -> Tensor:
    """The second half of a layer: what its MLP makes of residuals [..., d_model]."""
    return residual + block.mlp(block.post_attention_layernorm(residual))


@torch.no_grad()
def logits_of(model: nn.Module, hidden: Tensor) -> Tensor:
    """The logits [..., vocab] read from residuals [..., d_model] that left the last layer."""
    logits: Tensor = unwrapped(model).get_output_embeddings()(decoder(model).norm(hidden))
    return logits


def layer_inputs(
    model: nn.Module, hidden: Tensor, tokens: Tensor, context_tokens: Tensor, variants: int
) -> dict[str, Any]:
    """What every layer is called with beside the residual stream and a cache."""
    rows = tokens.repeat(1, variants)
    return {
        # Always given: left to itself, eager attention without a mask would see the future.
        "attention_mask": _visibility(tokens, context_tokens, variants, hidden.dtype),
        "position_ids": rows,
        "position_embeddings": decoder(model).rotary_emb(hidden, position_ids=rows),
        "use_cache": True,
    }


def _visibility(tokens: Tensor, context: Tensor, variants: int, dtype: torch.dtype) -> Tensor:
    """What is added to attention scores: [n or 1, 1, rows, context + rows], 0 or very negative.

    A row sees earlier tokens of the context, and tokens of its own variant up to itself.
    """
    n = max(len(tokens), len(context))
    rows = tokens.repeat(1, variants)
    earlier = (context[:, None, :] < rows[:, :, None]).expand(n, -1, -1)
    variant = torch.arange(variants, device=tokens.device).repeat_interleave(tokens.shape[1])
    own = (variant[:, None] == variant) & (rows[:, None, :] <= rows[:, :, None])
    seen = torch.cat([earlier, own.expand(n, -1, -1)], 2)
    hidden = torch.full((), torch.finfo(dtype).min, dtype=dtype, device=tokens.device)
    return torch.where(seen, torch.zeros_like(hidden), hidden)[:, None]
