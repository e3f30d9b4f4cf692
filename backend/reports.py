"""Figures about one model, from prompts to numbers, as plain values for JSON, tables and pages."""

from __future__ import annotations

import numpy as np
import torch

from backend.anatomy import last_logits
from backend.answers import Answers, read_answers
from backend.circuit import Circuit
from backend.errors import UserError
from backend.loading import LoadedModel
from backend.memory import memory_errors_explained, prompt_batches
from backend.path_patching import Progress
from backend.results import AccuracyReport, FaithfulnessReport
from backend.runtime import at_work
from backend.statistics import mean_estimate, mean_share, median_estimate, ratio, wilson
from backend.subject import Subject, silent
from backend.tasks import PromptSet, sample_prompts, select
from backend.vital import input_ids


@torch.no_grad()
def whole_answers(loaded: LoadedModel, prompts: PromptSet) -> Answers:
    """The answers of the untouched model."""
    ids = input_ids(loaded.model, prompts)
    batches = prompt_batches(loaded.model, *ids.shape)
    with at_work(loaded.runtime), memory_errors_explained(loaded.model, batches[0].stop):
        return read_answers((last_logits(loaded.model, ids[rows]) for rows in batches), prompts)


def accuracy_report(loaded: LoadedModel, n: int, boxes: int, seed: int) -> AccuracyReport:
    """Accuracy, mean probability and median rank of the right answer, mean logit difference."""
    answers = whole_answers(loaded, sample_prompts(loaded.tokenizer, n, boxes, seed))
    return AccuracyReport(
        wilson(answers.correct),
        mean_share(answers.probability),
        median_estimate(answers.rank),
        mean_estimate(answers.logit_difference),
    )


def faithfulness_report(
    subject: Subject, circuit: Circuit, progress: Progress = silent
) -> FaithfulnessReport:
    """Accuracy of the circuit alone over that of the model, on the same prompts.

    Raises UserError when the circuit has heads that the model does not have.
    """
    circuit.check(subject.loaded.shape, subject.loaded.name)
    (alone,) = subject.alone([circuit.sites], progress)
    return FaithfulnessReport(
        wilson(subject.whole), wilson(alone), ratio(alone, subject.whole), subject.n_reference
    )


def correctly_answered(
    loaded: LoadedModel, n: int, boxes: int, seed: int, progress: Progress = silent
) -> PromptSet:
    """The first `n` prompts of a seed that the model answers right, out of ten times as many.

    `n` of them are asked at a time, until enough are right. Raises UserError when there are fewer.
    """
    prompts = sample_prompts(loaded.tokenizer, 10 * n, boxes, seed)
    correct, place = np.zeros(len(prompts), dtype=bool), np.arange(len(prompts))
    for start in range(0, len(prompts), n):
        asked = (start <= place) & (place < start + n)
        correct[asked] = whole_answers(loaded, select(prompts, asked)).correct
        n_right = int(correct.sum())
        progress(min(n_right, n), n)
        if n_right >= n:
            return select(prompts, correct & (correct.cumsum() <= n))
    raise UserError(
        f"{loaded.name} answers only {n_right} of {len(prompts)} prompts right, and path patching "
        f"needs {n} of them. Ask for fewer prompts or fewer boxes, or choose a model that does the "
        "task."
    )
