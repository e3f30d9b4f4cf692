"""The logit lens: what the residual stream would answer if each layer were the last.

What enters a layer goes through the final norm and the unembedding (nostalgebraist, 2020): at which
depth, and at which token, can the answer be read?
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import partial

import torch
from torch import Tensor, nn

from backend.core.kept import Kept
from backend.core.progress import Progress, silent
from backend.engine import checkpoints
from backend.engine.answers import log_probability, ranks
from backend.engine.architectures import logits_of, shape_of
from backend.engine.hooks import at_tokens
from backend.engine.memory import memory_errors_explained, prompt_batches
from backend.engine.positions import input_ids
from backend.engine.replay import full_run
from backend.engine.validation import check_can_take_apart
from backend.tasks.prompts import Ints, PromptSet


@dataclass(frozen=True, eq=False)
class LensReading:
    """What each layer reads at some tokens, [n, n_tokens, n_layers + 1] each, in float64.

    The first is the embedding, the last the model's own answer. probability and rank (1 = first) of
    the right answer; competitor and competitor_rank, the means of those of its competitors; forced,
    whether it is ahead of all of them.
    """

    probability: Tensor
    rank: Tensor
    competitor: Tensor
    competitor_rank: Tensor
    forced: Tensor


@torch.no_grad()
def lens_reading(
    model: nn.Module,
    prompts: PromptSet,
    tokens: Ints,
    progress: Progress = silent,
    kept_in: Kept | None = None,
) -> LensReading:
    """Read every layer at each prompt's `tokens` [n, n_tokens]; `progress` counts prompts.

    Finished batches are kept in a folder, if there is one, and taken from there. Raises UserError
    for a model that cannot be taken apart.
    """
    ids = input_ids(model, prompts)
    check_can_take_apart(model, ids, "The logit lens")
    answer_ids, choice_ids, at = (
        torch.tensor(each, device=ids.device)
        for each in (prompts.answer_ids, prompts.choice_ids, tokens)
    )
    batches = prompt_batches(model, *ids.shape)
    shape = tokens.shape[1], shape_of(model).n_layers + 1, len(fields(LensReading))

    def of_batch(rows: slice) -> Tensor:
        progress(rows.start, len(prompts))
        residuals = full_run(model, ids[rows]).residuals
        read = [
            _read(logits_of(model, at_tokens(each, at[rows])), answer_ids[rows], choice_ids[rows])
            for each in residuals
        ]
        return torch.stack(read, 2).cpu()

    with memory_errors_explained(model, batches[0].stop):
        found = checkpoints.tensors(
            kept_in,
            [
                checkpoints.Block(
                    checkpoints.name_of(rows),
                    (rows.stop - rows.start, *shape),
                    torch.float64,
                    partial(of_batch, rows),
                )
                for rows in batches
            ],
        )
    progress(len(prompts), len(prompts))
    return LensReading(*torch.cat(found).unbind(-1))


def _read(logits: Tensor, answer_ids: Tensor, choice_ids: Tensor) -> Tensor:
    """The fields of `LensReading` of logits [n, n_tokens, vocab]: [n, n_tokens, n_fields]."""
    n_tokens, n_others = logits.shape[1], choice_ids.shape[1] - 1
    places = torch.stack(
        [ranks(logits[:, token], choice_ids) for token in range(n_tokens)], 1
    ).double()
    chances = torch.stack([log_probability(logits, each) for each in choice_ids.T], -1).exp()
    is_answer = (choice_ids == answer_ids[:, None])[:, None]
    rank, probability = ((each * is_answer).sum(-1) for each in (places, chances))
    return torch.stack(
        [
            probability,
            rank,
            (chances.sum(-1) - probability) / n_others,
            (places.sum(-1) - rank) / n_others,
            (places.amin(-1) == rank).double(),
        ],
        -1,
    )
