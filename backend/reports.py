"""Figures about one model, from prompts to numbers, as plain values for JSON, tables and pages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import torch

from backend.anatomy import last_logits
from backend.circuit import Circuit, Group
from backend.compare import examine
from backend.discovery import StageProgress, discover
from backend.edges import edges
from backend.errors import UserError
from backend.loading import LoadedModel
from backend.measures import Answers, Estimate, mean_estimate, ratio, read_answers, wilson
from backend.memory import memory_errors_explained, prompt_batches
from backend.path_patching import Progress
from backend.results import Edges
from backend.run_pairs import RunPairs
from backend.subject import silent
from backend.tasks import (
    PromptSet,
    counterfactual_prompts,
    sample_prompts,
    select,
)
from backend.vital import input_ids


@dataclass(frozen=True)
class AccuracyReport:
    """How well a model does the task."""

    accuracy: Estimate
    probability: Estimate
    rank: Estimate
    logit_difference: Estimate


@dataclass(frozen=True)
class FaithfulnessReport:
    """How much of a model its circuit does alone (Prakash et al., circuit evaluation)."""

    model: Estimate
    circuit: Estimate
    faithfulness: Estimate
    n_reference: int


@torch.no_grad()
def whole_answers(loaded: LoadedModel, prompts: PromptSet) -> Answers:
    """The answers of the untouched model."""
    ids = input_ids(loaded.model, prompts)
    batches = prompt_batches(loaded.model, *ids.shape)
    with memory_errors_explained(loaded.model, batches[0].stop):
        logits = [last_logits(loaded.model, ids[rows]) for rows in batches]
    return read_answers(torch.cat(logits).cpu().numpy(), prompts)


def accuracy_report(loaded: LoadedModel, n: int, boxes: int, seed: int) -> AccuracyReport:
    """Accuracy, probability and rank of the right answer, logit difference to the other boxes."""
    answers = whole_answers(loaded, sample_prompts(loaded.tokenizer, n, boxes, seed))
    return AccuracyReport(
        wilson(answers.correct),
        mean_estimate(answers.probability),
        mean_estimate(answers.rank),
        mean_estimate(answers.logit_difference),
    )


def faithfulness_report(
    loaded: LoadedModel, circuit: Circuit, n: int, boxes: int, seed: int
) -> FaithfulnessReport:
    """Accuracy of the circuit alone over that of the model, on the same prompts.

    Raises UserError when the circuit has heads that the model does not have.
    """
    circuit.check(loaded.shape, loaded.name)
    subject = examine(loaded, n, boxes, seed)
    (alone,) = subject.alone([circuit.sites])
    return FaithfulnessReport(
        wilson(subject.whole), wilson(alone), ratio(alone, subject.whole), subject.n_reference
    )


def discovery_report(
    loaded: LoadedModel,
    sizes: Mapping[Group, int],
    n: int,
    boxes: int,
    seed: int,
    progress: StageProgress = lambda stage, done, total: None,
    centred: bool = False,
) -> Circuit:
    """Find a circuit with path patching on prompts that the model answers right.

    The heads kept in a group are the receivers of the next stage (Prakash et al., circuit
    discovery). Raises UserError when the model answers too few prompts right.
    """
    pairs = _run_pairs(loaded, n, boxes, seed)
    found = discover(pairs, sizes, progress=progress, centred=centred)
    about = {
        "model": loaded.name,
        "method": "path patching on correctly answered prompts",
        "seed": seed,
        "boxes": boxes,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return found.circuit(sizes, loaded.name, about, centred)


def edges_report(
    loaded: LoadedModel,
    circuit: Circuit,
    n: int,
    boxes: int,
    seed: int,
    progress: Progress = silent,
) -> Edges:
    """Weigh the circuit's edges by path patching on prompts that the model answers right.

    Raises UserError when the circuit has heads that the model does not have, and when the model
    answers too few prompts right.
    """
    circuit.check(loaded.shape, loaded.name)
    return edges(_run_pairs(loaded, n, boxes, seed), circuit, loaded.name, progress)


def _run_pairs(loaded: LoadedModel, n: int, boxes: int, seed: int) -> RunPairs:
    prompts = correctly_answered(loaded, n, boxes, seed)
    return RunPairs(loaded.model, prompts, counterfactual_prompts(loaded.tokenizer, prompts))


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
