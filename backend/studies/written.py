"""A prompt in a user's own words in a model: its answers, also with heads that give other values.

Importing this module imports torch: pages reach it from a background job.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from backend.core.errors import UserError
from backend.core.heads import Site
from backend.core.progress import Report
from backend.core.runtime import at_work
from backend.engine.activation_patching import CleanRun, clean_logits, patched_logits
from backend.engine.answers import Answers, read_answers
from backend.engine.architectures import device_of, last_logits
from backend.engine.attention import AttentionMass, attention_patterns, clean_with_attention
from backend.engine.finite import check_finite
from backend.engine.positions import (
    input_ids,
    position_head_outputs,
    position_means,
    zero_head_outputs,
)
from backend.methods.reference_means import reference_means
from backend.methods.requests import N_REFERENCE
from backend.models.loaded_models import load, until_unload
from backend.models.loading import LoadedModel
from backend.tasks.prompts import Prompts, PromptSet
from backend.tasks.setting import Mode
from backend.tasks.task import Task
from backend.tasks.vocabulary import tokenized
from backend.tasks.written import Written, encode, written_as

N_CONTINUATIONS = 8


@dataclass(frozen=True, eq=False)
class WrittenRun:
    """A model on one written prompt: prompts [1], its clean run and answers, and attention."""

    loaded: LoadedModel
    prompts: PromptSet
    clean: CleanRun
    whole: Answers
    attention: AttentionMass


def prepare(model: str, prompts: Prompts, report: Report) -> None:
    """Load a model and average what its heads give on the reference prompts; both are kept."""
    loaded = load(model)
    what = f"Averaging head outputs over {N_REFERENCE} reference prompts"
    reference = prompts.reference(loaded.tokenizer, N_REFERENCE)
    reference_means(loaded, reference, lambda done, total: report(what, 0.2 + 0.8 * done / total))


@until_unload(maxsize=64)
def example(model: str, prompts: Prompts, number: int) -> Written:
    """The prompt of that number, going round, of those that a model is asked."""
    tokenizer = load(model).tokenizer
    drawn = prompts.sample(tokenizer)
    return written_as(drawn, number % len(drawn), tokenizer)


@until_unload(maxsize=64)
def continuations(model: str, text: str) -> tuple[tuple[str, float], ...]:
    """The likeliest next tokens after a text and their probabilities, the likeliest first."""
    loaded = load(model)
    ids = torch.tensor([tokenized(loaded.tokenizer, [text])[0][0]], device=device_of(loaded.model))
    with at_work(loaded.runtime), torch.no_grad():
        logits = check_finite(last_logits(loaded.model, ids))[0].double()
    found = logits.softmax(-1).topk(N_CONTINUATIONS)
    words = [loaded.tokenizer.decode([token]) for token in found.indices.tolist()]
    return tuple(zip(words, found.values.tolist(), strict=True))


@until_unload(maxsize=16)
def run(model: str, task: Task, written: Written) -> WrittenRun:
    """A model on a written prompt as it is; raises UserError for one that cannot be asked."""
    loaded = load(model)
    one = encode(loaded.tokenizer, task, written)
    with at_work(loaded.runtime):
        clean, attention = clean_with_attention(loaded.model, one)
        whole = read_answers([clean_logits(clean)], one)
    return WrittenRun(loaded, one, clean, whole, attention)


@until_unload(maxsize=64)
def answers(
    model: str,
    prompts: Prompts,
    written: Written,
    off: frozenset[Site],
    mode: Mode,
    second: Written | None = None,
) -> Answers:
    """The answers when heads give other values: means, zeros, or what they give on a second prompt.

    The second prompt's values are those at its own tokens of the same names. Raises UserError for a
    prompt that cannot be asked.
    """
    now = run(model, prompts.task, written)
    with at_work(now.loaded.runtime):
        values = _values(now, prompts, mode, second)
        return read_answers([patched_logits(now.clean, off, values)], now.prompts)


@until_unload(maxsize=8)
def attention(model: str, task: Task, written: Written) -> NDArray[np.float32]:
    """Attention of every head on a written prompt: [n_layers, n_heads, seq, seq]."""
    now = run(model, task, written)
    with at_work(now.loaded.runtime):
        weights = attention_patterns(now.loaded.model, input_ids(now.loaded.model, now.prompts))
    found: NDArray[np.float32] = weights[:, 0].float().cpu().numpy()
    return found


def is_mean_of_token(now: WrittenRun, prompts: Prompts) -> bool:
    """Whether a head's mean is that at the same token: the reference prompts are as long."""
    reference = prompts.reference(now.loaded.tokenizer, 1)
    return reference.input_ids.shape[1] == now.prompts.input_ids.shape[1]


def _values(now: WrittenRun, prompts: Prompts, mode: Mode, second: Written | None) -> Tensor:
    """What replaces a head: [n_layers, 1, n_positions, n_heads, d_head]."""
    loaded = now.loaded
    if mode is Mode.counterfactual:
        if second is None:
            raise UserError("There is no second prompt. Write one.")
        other = encode(loaded.tokenizer, prompts.task, second)
        return position_head_outputs(loaded.model, other)
    if mode is Mode.zero:
        return position_means(zero_head_outputs(loaded.model, now.prompts), now.prompts)
    reference = prompts.reference(loaded.tokenizer, N_REFERENCE)
    means = reference_means(loaded, reference)
    if is_mean_of_token(now, prompts):
        return position_means(means, now.prompts)
    return position_means(means, reference).mean(1, keepdim=True)
