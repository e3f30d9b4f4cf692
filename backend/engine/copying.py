"""Copying: what the output-value circuit of a head makes of a word.

As if the head attended to one token only: what stands there after the first layer goes through the
head's values and output projection, and what comes out alone through the final norm and the
unembedding (Wang et al., 2023, section 3.1 and appendix A). Heads of the first layer cannot read
that; for them it is the embedding. As theirs, values keep the norm that their layer reads through
and their bias; the bias of the output projection is no head's, and left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from backend.core.errors import UserError
from backend.core.progress import Progress, silent
from backend.engine.answers import ranks
from backend.engine.architectures import Layer, embed, final_norm, layers, shape_of, unembed
from backend.engine.memory import memory_errors_explained, prompt_batches
from backend.engine.positions import input_ids
from backend.engine.replay import Recorder, layer_inputs
from backend.engine.validation import check_can_take_apart
from backend.tasks.prompts import Ints, PromptSet

MOST_WORDS = 100


@dataclass(frozen=True, eq=False)
class Words:
    """Answers as they stand in prompts, each once: token_ids, prompts, tokens, [n_words] each."""

    token_ids: Ints
    prompts: Ints
    tokens: Ints


@dataclass(frozen=True, eq=False)
class CopyingRanks:
    """Where each word stands among all tokens, 1 is first, in what each head makes of it.

    copied, opposed [n_layers, n_heads, n_words]: by its output, and by the negative of that;
    token_ids [n_words]; n_tokens, in the vocabulary.
    """

    copied: Ints
    opposed: Ints
    token_ids: Ints
    n_tokens: int


def words_in(prompts: PromptSet, most: int = MOST_WORDS) -> Words:
    """The first `most` words that are answers or compete with them, where they first stand.

    Raises UserError where no prompt has its answers in it.
    """
    found: dict[int, tuple[int, int]] = {}
    for row, (ids, choices) in enumerate(zip(prompts.input_ids, prompts.choice_ids, strict=True)):
        for word in choices.tolist():
            there = np.flatnonzero(ids == word)
            if word not in found and len(there):
                found[word] = row, int(there[0])
    if not found:
        raise UserError(
            f"{prompts.task.title}: no answer stands in its prompt, so there is nothing to copy. "
            "Choose another task."
        )
    first = [*found.items()][:most]
    rows, tokens = (np.array([place[i] for _, place in first], np.int64) for i in (0, 1))
    return Words(np.array([word for word, _ in first], np.int64), rows, tokens)


@torch.no_grad()
def copying_ranks(
    model: nn.Module, prompts: PromptSet, words: Words, progress: Progress = silent
) -> CopyingRanks:
    """What every head makes of every word; `progress` counts layers, reading the words as one.

    Raises UserError for a model that cannot be taken apart.
    """
    check_can_take_apart(model, input_ids(model, prompts), "A head’s output-value circuit")
    n_layers = shape_of(model).n_layers
    progress(0, n_layers + 1)
    embedded, after_first = _read_words(model, prompts, words)
    ids = torch.tensor(words.token_ids, device=embedded.device)
    found = []
    for number, layer in enumerate(layers(model)):
        progress(number + 1, n_layers + 1)
        found.append(_of_layer(model, layer, after_first if number else embedded, ids))
    progress(1, 1)
    copied, opposed = torch.stack(found, 1).cpu().numpy()
    n_tokens = len(model.get_input_embeddings().weight)  # type: ignore[operator]
    return CopyingRanks(copied, opposed, words.token_ids, n_tokens)


def _read_words(model: nn.Module, prompts: PromptSet, words: Words) -> tuple[Tensor, Tensor]:
    """What enters the first layer at each word, and what leaves it: [n_words, d_model] each."""
    ids = input_ids(model, prompts)
    at = torch.tensor(words.tokens, device=ids.device)
    rows = torch.tensor(words.prompts, device=ids.device)
    tokens = torch.arange(ids.shape[1], device=ids.device)[None]
    found: list[tuple[Tensor, Tensor]] = []
    batches = prompt_batches(model, len(rows), ids.shape[1])
    with memory_errors_explained(model, batches[0].stop):
        for some in batches:
            entering = embed(model, ids[rows[some]], tokens)
            given = layer_inputs(model, entering, tokens, tokens[:, :0])[0]
            leaving = layers(model)[0].run(entering, given, Recorder())
            here = torch.arange(len(entering), device=ids.device), at[some]
            found.append((entering[here], leaving[here]))
    embedded, after_first = (torch.cat(each) for each in zip(*found, strict=True))
    return embedded, after_first


def _of_layer(model: nn.Module, layer: Layer, residual: Tensor, ids: Tensor) -> Tensor:
    """Ranks of words `ids` [n] by what each head makes of them, and by the negative of that.

    residual [n, d_model] is what stands at them. Returns [2, n_heads, n].
    """
    shape = layer.shape
    values = layer.project("v_proj", residual[:, None])
    values = values.repeat_interleave(shape.n_heads // shape.n_kv_heads, -2)
    nothing = layer.add_heads(torch.zeros_like(values))
    found = []
    for head in range(shape.n_heads):
        alone = torch.zeros_like(values)
        alone[..., head, :] = values[..., head, :]
        written = layer.add_heads(alone) - nothing
        if layer.norm_after is not None:
            written = layer.norm_after(written)
        both = [_ranks_alone(model, each[:, 0], ids) for each in (written, -written)]
        found.append(torch.stack(both))
    return torch.stack(found, 1)


def _ranks_alone(model: nn.Module, written: Tensor, ids: Tensor) -> Tensor:
    """Of words `ids` [n], if `written` [n, d_model] were all that leaves the last layer: [n]."""
    return ranks(unembed(model, final_norm(model)(written)), ids[:, None])[:, 0]
