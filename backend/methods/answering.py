"""What a whole model answers, and the prompts that it answers right."""

from __future__ import annotations

import numpy as np
import torch

from backend.core.errors import UserError
from backend.core.progress import Progress, silent
from backend.core.runtime import at_work
from backend.engine.answers import Answers, read_answers
from backend.engine.architectures import last_logits
from backend.engine.memory import memory_errors_explained, prompt_batches
from backend.engine.positions import input_ids
from backend.models.loading import LoadedModel
from backend.tasks.chance import ForcedChoice, against_chance, forced_choice
from backend.tasks.prompts import Prompts, PromptSet, select


@torch.no_grad()
def whole_answers(loaded: LoadedModel, prompts: PromptSet, progress: Progress = silent) -> Answers:
    """The answers of the untouched model; `progress` counts prompts."""
    ids = input_ids(loaded.model, prompts)
    batches = prompt_batches(loaded.model, *ids.shape)

    def of_batch(rows: slice) -> torch.Tensor:
        progress(rows.start, len(prompts))
        return last_logits(loaded.model, ids[rows])

    with at_work(loaded.runtime), memory_errors_explained(loaded.model, batches[0].stop):
        answers = read_answers(map(of_batch, batches), prompts)
    progress(len(prompts), len(prompts))
    return answers


def correctly_answered(
    loaded: LoadedModel, prompts: Prompts, progress: Progress = silent
) -> PromptSet:
    """The first of these prompts that the model answers right, out of ten times as many.

    As many as are wanted are asked at a time, until enough are right. Raises UserError when there
    are fewer.
    """
    return chosen(loaded, prompts, progress)[0]


def chosen(
    loaded: LoadedModel, prompts: Prompts, progress: Progress = silent
) -> tuple[PromptSet, ForcedChoice]:
    """`correctly_answered`, and how the model does on as many prompts, right or wrong."""
    n, drawn = prompts.n, prompts.sample(loaded.tokenizer, 10 * prompts.n)
    correct, place = np.zeros(len(drawn), dtype=bool), np.arange(len(drawn))
    for start in range(0, len(drawn), n):
        asked = (start <= place) & (place < start + n)
        answers = whole_answers(loaded, select(drawn, asked))
        correct[asked] = answers.correct
        if start == 0:
            choice = forced_choice(answers.forced, answers.choice_ids.shape[1])
        n_right = int(correct.sum())
        progress(min(n_right, n), n)
        if n_right >= n:
            return select(drawn, correct & (correct.cumsum() <= n)), choice
    raise UserError(
        f"{loaded.name} answers only {n_right} of {len(drawn)} prompts right, and path patching "
        f"needs {n} of them; on the first {n}, {against_chance(choice)}. Ask for fewer or "
        "easier prompts, or choose a model that does the task."
    )
