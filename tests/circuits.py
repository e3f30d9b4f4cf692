"""A random model whose right answers are its own, and a circuit to remove heads from."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import torch

from backend.core.heads import Head, Site
from backend.engine.answers import right
from backend.engine.architectures import shape_of
from backend.engine.mean_ablation import AblatedRun, circuits_measured
from backend.methods.evaluation import Evaluation
from backend.models.loading import LoadedModel
from backend.tasks.circuit import Circuit
from backend.tasks.entity_tracking import ENTITY_TRACKING, reference_prompts, sample_prompts
from tests import oracles, tiny

TOKENIZER = tiny.word_tokenizer()
CIRCUIT = Circuit.of(
    ENTITY_TRACKING,
    {
        "A": (Head(2, 1), Head(3, 0), Head(3, 2), Head(3, 3)),
        "B": (Head(1, 0), Head(2, 1), Head(2, 3)),
        "C": (Head(0, 3), Head(1, 1), Head(1, 2)),
        "D": (Head(0, 0), Head(0, 2)),
    },
    "random",
)
"""L2.1 is in A and in B."""


class Examined:
    """An evaluation in float64, whose right answers are those that the model gives."""

    def __init__(self, kind: str) -> None:
        self.model = tiny.in_float64(tiny.MAKERS[kind]())
        prompts = sample_prompts(TOKENIZER, 30, n_boxes=3)
        self.reference = reference_prompts(TOKENIZER, 12, n_boxes=3)
        answers = oracles.run(self.model, prompts)[0].argmax(-1).numpy()
        self.prompts = replace(prompts, answer_ids=answers)
        loaded = LoadedModel(kind, self.model, TOKENIZER, shape_of(self.model))
        self.evaluation = Evaluation(loaded, self.prompts, self.reference)

    def accuracy(self, runner: Any, sites: Any) -> float:
        """With a runner of `oracles`, of a circuit alone or of the model without sites."""
        logits = runner(self.model, self.prompts, self.reference, sites)
        right = logits.argmax(-1) == torch.tensor(self.prompts.answer_ids)
        return float(right.double().mean())


def accuracies_alone(
    ablated_run: AblatedRun, circuits: Sequence[Collection[Site]], answers: torch.Tensor
) -> list[float]:
    """Share of prompts [n] that each of the circuits alone answers right."""
    rows = circuits_measured(ablated_run, circuits, lambda logits: right(logits, answers))
    shares: list[float] = torch.cat([*rows]).double().mean(-1).tolist()
    return shares
