"""One mechanism: see or replace what heads work with while a model runs.

A head output is a head's slice of the *input* of the attention output projection,
before the projection mixes heads. Slicing the projection's output would be wrong: there, every
number is a sum over all heads. Projections and attention masks are what attention works with,
attention weights what it makes of them. Masks and weights are there when the model runs eager
attention, as `load_model` sees to.

Hooks live on the model, which threads share: a hook acts only in the thread that opened its block,
and goes when the block ends, whatever happens in it. What is seen and given is on the device where
the model takes its token ids, also of a model that is spread over several.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from backend.core.errors import UserError
from backend.engine.architectures import Layer, Projection, decoder, device_of, layers, shape_of

Edit = Callable[[int, Tensor], Tensor | None]
"""(layer, heads [batch, seq, n_heads, d_head]) -> what to run on with; None keeps them."""


@contextmanager
def edited_head_outputs(model: nn.Module, edit: Edit) -> Iterator[None]:
    """Pass every layer's head outputs through `edit` while the block runs."""
    d_head = shape_of(model).d_head

    def place(layer: Layer, edit_here: Callable[[Tensor], Tensor | None]) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor] | None:
            edited = edit_here(inputs[0].unflatten(-1, (-1, d_head)))
            return None if edited is None else (edited.flatten(-2).contiguous(),)

        return layer.out.register_forward_pre_hook(hook)

    with _edited(model, edit, place):
        yield


@contextmanager
def edited_projections(model: nn.Module, name: Projection, edit: Edit) -> Iterator[None]:
    """Pass every layer's queries, keys or values, as they leave their projection, through `edit`.

    Queries and keys are not yet normed or rotated. Under grouped-query attention keys and values
    have one head per key-value head, each shared by several query heads.
    """

    def place(layer: Layer, edit_here: Callable[[Tensor], Tensor | None]) -> Any:
        module, view = layer.projection(name)

        def hook(_: nn.Module, __: Any, output: Tensor) -> Tensor | None:
            edited = edit_here(view(output))
            if edited is None:
                return None
            output = output.clone()
            view(output).copy_(edited)
            return output

        return module.register_forward_hook(hook)

    with _edited(model, edit, place):
        yield


@contextmanager
def edited_attention_masks(model: nn.Module, edit: Edit) -> Iterator[None]:
    """Pass what every layer adds to its attention scores, before the softmax, through `edit`.

    It is [n or 1, n_heads or 1, rows, tokens]: 0 where a row sees a token, and where it does not,
    the least number of its dtype. Raises UserError for a layer that adds nothing.
    """

    def place(layer: Layer, edit_here: Callable[[Tensor], Tensor | None]) -> Any:
        def hook(_: nn.Module, inputs: Any, named: dict[str, Any]) -> Any:
            mask = named.get("attention_mask")
            if mask is None or not mask.is_floating_point():
                raise UserError(
                    "Attention of this model cannot be cut: it does not run in the plain way. "
                    "Load it with this tool, or choose another model."
                )
            edited = edit_here(mask)
            return None if edited is None else (inputs, named | {"attention_mask": edited})

        return layer.attention.register_forward_pre_hook(hook, with_kwargs=True)

    with _edited(model, edit, place):
        yield


@contextmanager
def seen_attention_weights(model: nn.Module, see: Callable[[int, Tensor], None]) -> Iterator[None]:
    """Show every layer's attention weights [n, n_heads, rows, tokens] to `see`; rows sum to 1.

    Raises UserError for a layer that does not tell them.
    """

    def place(layer: Layer, see_here: Callable[[Tensor], Tensor | None]) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            if not isinstance(output, tuple) or output[1] is None:
                raise UserError(
                    "Attention of this model cannot be seen: it does not run in the plain way. "
                    "Load it with this tool, or choose another model."
                )
            see_here(output[1])

        return layer.attention.register_forward_hook(hook)

    with _edited(model, see, place):
        yield


@contextmanager
def _edited(
    model: nn.Module,
    edit: Edit,
    place: Callable[[Layer, Callable[[Tensor], Tensor | None]], Any],
) -> Iterator[None]:
    owner, home = threading.get_ident(), device_of(model)
    handles = []

    def edit_of(number: int) -> Callable[[Tensor], Tensor | None]:
        def edit_here(heads: Tensor) -> Tensor | None:
            if threading.get_ident() != owner:
                return None
            edited = edit(number, heads.to(home))
            return None if edited is None else edited.to(heads.device)

        return edit_here

    try:
        for number, layer in enumerate(layers(model)):
            handles.append(place(layer, edit_of(number)))
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
