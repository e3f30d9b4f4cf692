"""One mechanism: see or replace head outputs while a model runs.

A head output is a head's slice of the *input* of the attention output projection (`o_proj`),
before the projection mixes heads. Slicing the projection's output would be wrong: there, every
number is a sum over all heads.

Hooks live on the model, which threads share: a hook acts only in the thread that opened its block,
and goes when the block ends, whatever happens in it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from backend.circuit import ModelShape

Edit = Callable[[int, Tensor], Tensor | None]
"""(layer, heads [batch, seq, n_heads, d_head]) -> what to run on with; None keeps them."""

Projection = Literal["q_proj", "k_proj", "v_proj"]


def decoder(model: nn.Module) -> Any:
    """The stack of layers inside a causal language model, PEFT-wrapped or not."""
    return unwrapped(model).get_decoder()


def unwrapped(model: Any) -> Any:
    """The causal language model itself, out of its PEFT wrapper; its adapters stay active."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def shape_of(model: nn.Module) -> ModelShape:
    """Layers, query heads, key-value heads and head size, read off the modules themselves."""
    stack = decoder(model)
    attention = stack.layers[0].self_attn
    d_head = attention.head_dim
    return ModelShape(
        len(stack.layers),
        attention.o_proj.in_features // d_head,
        attention.k_proj.out_features // d_head,
        d_head,
    )


@contextmanager
def edited_head_outputs(model: nn.Module, edit: Edit) -> Iterator[None]:
    """Pass every layer's head outputs through `edit` while the block runs."""

    def register(module: nn.Module, edit_flat: Callable[[Tensor], Tensor | None]) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor] | None:
            edited = edit_flat(inputs[0])
            return None if edited is None else (edited,)

        return module.register_forward_pre_hook(hook)

    with _edited(model, "o_proj", edit, register):
        yield


@contextmanager
def edited_projections(model: nn.Module, name: Projection, edit: Edit) -> Iterator[None]:
    """Pass every layer's queries, keys or values, as they leave their projection, through `edit`.

    Queries and keys are not yet normed or rotated. Under grouped-query attention `k_proj` and
    `v_proj` have one head per key-value head, each shared by several query heads.
    """

    def register(module: nn.Module, edit_flat: Callable[[Tensor], Tensor | None]) -> Any:
        return module.register_forward_hook(lambda _, __, output: edit_flat(output))

    with _edited(model, name, edit, register):
        yield


@contextmanager
def _edited(
    model: nn.Module,
    name: str,
    edit: Edit,
    register: Callable[[nn.Module, Callable[[Tensor], Tensor | None]], Any],
) -> Iterator[None]:
    d_head = shape_of(model).d_head
    owner = threading.get_ident()
    handles = []

    def edit_of(layer: int) -> Callable[[Tensor], Tensor | None]:
        def edit_flat(flat: Tensor) -> Tensor | None:
            if threading.get_ident() != owner:
                return None
            edited = edit(layer, flat.unflatten(-1, (-1, d_head)))
            return None if edited is None else edited.flatten(-2)

        return edit_flat

    try:
        for layer, block in enumerate(decoder(model).layers):
            handles.append(register(getattr(block.self_attn, name), edit_of(layer)))
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def recorded_head_outputs(model: nn.Module, tokens: Tensor | None = None) -> Iterator[list[Tensor]]:
    """Collect every layer's head outputs while the block runs: [batch, seq, n_heads, d_head] each.

    With `tokens` [batch, p], only at those token indices of each prompt, as the axis of length p.
    """
    outputs: list[Tensor] = []

    def record(_: int, heads: Tensor) -> None:
        outputs.append(heads.clone() if tokens is None else at_tokens(heads, tokens))

    with edited_head_outputs(model, record):
        yield outputs


@torch.no_grad()
def record_head_outputs(
    model: nn.Module, input_ids: Tensor, tokens: Tensor | None = None
) -> Tensor:
    """Head outputs of a plain run: [n_layers, batch, seq or p, n_heads, d_head]."""
    with recorded_head_outputs(model, tokens) as outputs:
        decoder(model)(input_ids=input_ids, use_cache=False)
    return torch.stack(outputs)


def at_tokens(table: Tensor, tokens: Tensor) -> Tensor:
    """`table` [n, seq, ...] at each prompt's own `tokens` [n, p]: [n, p, ...]."""
    prompts = torch.arange(len(tokens), device=tokens.device)
    return table[prompts[:, None], tokens]
