"""The tokens at which a task's circuits work, as tensors: where they are, and head outputs there.

The paper's authors call them vital. Tensors of head outputs at these tokens are
[n_layers, n, n_positions, n_heads, d_head] throughout, the tokens in the order of
`Task.positions`: the order in which they stand in the prompt.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from backend.core.errors import UserError
from backend.core.heads import Head, ModelShape, Site
from backend.core.progress import Progress, silent
from backend.engine.architectures import config_of, device_of, dtype_of, shape_of
from backend.engine.finite import check_finite
from backend.engine.hooks import record_head_outputs
from backend.engine.memory import prompt_batches
from backend.tasks.prompts import Ints, PromptSet


def all_sites(shape: ModelShape, positions: Sequence[str]) -> frozenset[Site]:
    """Every head at every one of these tokens."""
    return frozenset(
        Site(Head(layer, index), position)
        for layer in range(shape.n_layers)
        for index in range(shape.n_heads)
        for position in positions
    )


def site_mask(shape: ModelShape, sites: Collection[Site], positions: Sequence[str]) -> Tensor:
    """True at the given sites: [n_layers, n_positions, n_heads].

    Raises ValueError for a site at any other token than these.
    """
    mask = torch.zeros(shape.n_layers, len(positions), shape.n_heads, dtype=torch.bool)
    for (layer, index), position in sites:
        mask[layer, positions.index(position), index] = True
    return mask


def input_ids(model: nn.Module, prompts: PromptSet) -> Tensor:
    """The prompts' token ids [n, seq] on the model's device.

    Raises UserError when they are longer than the model can read, or have words that it has not.
    """
    length = prompts.input_ids.shape[1]
    most = getattr(config_of(model), "max_position_embeddings", None) or length
    if length > most:
        smaller = [f"fewer {option.name}" for option in prompts.task.options]
        raise UserError(
            f"Prompts have {length} tokens, and the model reads at most {most}. Choose "
            f"{' or '.join([*smaller, 'a model that reads more'])}."
        )
    n_words = model.get_input_embeddings().weight.shape[0]  # type: ignore[operator]
    if prompts.input_ids.max() >= n_words:
        raise UserError(
            f"The tokenizer gives words that the model, of {n_words} words, has not. Put the "
            "tokenizer there that belongs to the model."
        )
    return torch.tensor(prompts.input_ids, device=device_of(model))


def position_tokens(model: nn.Module, prompts: PromptSet) -> Tensor:
    """Index of each of the task's tokens in each prompt, on its device: [n, n_positions]."""
    return torch.tensor(_tokens(prompts), device=device_of(model))


def position_head_outputs(model: nn.Module, prompts: PromptSet) -> Tensor:
    """Head outputs of a plain run at the task's tokens.

    [n_layers, n, n_positions, n_heads, d_head].

    Of a counterfactual or of another model of the same shape (CMAP), they are what sites are
    patched with.
    """
    ids, tokens = input_ids(model, prompts), position_tokens(model, prompts)
    batches = prompt_batches(model, *ids.shape)
    recorded = [record_head_outputs(model, ids[rows], tokens[rows]) for rows in batches]
    return check_finite(torch.cat(recorded, 1), prompts=1)


@torch.no_grad()
def mean_head_outputs(
    model: nn.Module, reference: PromptSet, progress: Progress = silent
) -> Tensor:
    """Head outputs averaged over reference prompts, per token: [n_layers, seq, n_heads, d_head].

    A head is knocked out by giving it this value (Prakash et al., circuit evaluation). `progress`
    counts prompts.
    """
    ids = input_ids(model, reference)
    batches = prompt_batches(model, *ids.shape)
    total: Tensor | float = 0.0
    for rows in batches:
        progress(rows.start, len(reference))
        outputs = check_finite(record_head_outputs(model, ids[rows]), prompts=1)
        # Small numbers are not added up in their own dtype.
        total += outputs.sum(1, dtype=torch.promote_types(outputs.dtype, torch.float32))
    progress(1, 1)
    return torch.as_tensor(total / len(reference)).to(dtype_of(model))


def zero_head_outputs(model: nn.Module, prompts: PromptSet) -> Tensor:
    """Zeros in the place of `mean_head_outputs`: [n_layers, seq, n_heads, d_head]."""
    shape, length = shape_of(model), prompts.input_ids.shape[1]
    zero = torch.zeros((), dtype=dtype_of(model), device=device_of(model))
    return zero.expand(shape.n_layers, length, shape.n_heads, shape.d_head)


def position_means(means: Tensor, prompts: PromptSet) -> Tensor:
    """`means` [n_layers, seq, ...] at each prompt's tokens: [n_layers, n, n_positions, ...]."""
    return means[:, torch.tensor(_tokens(prompts), device=means.device)]


def _tokens(prompts: PromptSet) -> Ints:
    return np.stack([prompts.positions[name] for name in prompts.task.position_names], 1)
