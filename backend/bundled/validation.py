"""What is measured while training: accuracy on the task, whole and knocked out, and sub-skills."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from backend.bundled.documents import OBJECTS_IN_BOXES, Query, entity_documents
from backend.bundled.vocabulary import make_tokenizer
from backend.engine.answers import answered, right
from backend.engine.architectures import last_logits, shape_of
from backend.engine.mean_ablation import circuit_logits, prepare_ablated_run
from backend.engine.positions import all_sites, input_ids, mean_head_outputs
from backend.tasks.entity_tracking import ENTITY_TRACKING, reference_prompts, sample_prompts
from backend.tasks.prompts import PromptSet

VALIDATION_SEED = 1_000_003
"""Far from the seeds that users choose, so that what they see was never used to stop training."""


@dataclass(frozen=True, eq=False)
class Validation:
    """Prompts of the task that training may look at, and reference prompts to average over."""

    prompts: PromptSet
    reference: PromptSet

    @classmethod
    def sample(cls, n: int = 1000) -> Validation:
        """`n` prompts with 7 boxes."""
        tokenizer = make_tokenizer()
        return cls(
            sample_prompts(tokenizer, n, seed=VALIDATION_SEED),
            reference_prompts(tokenizer, n // 2, seed=VALIDATION_SEED),
        )

    @torch.no_grad()
    def accuracy(self, model: nn.Module) -> float:
        """Of the whole model."""
        return self._share_right(last_logits(model, input_ids(model, self.prompts)))

    def knocked_out_accuracy(self, model: nn.Module) -> float:
        """With every head knocked out but those at the circuit's tokens."""
        means = mean_head_outputs(model, self.reference)
        ablated_run = prepare_ablated_run(model, self.prompts, means)
        sites = all_sites(shape_of(model), ENTITY_TRACKING.position_names)
        return self._share_right(circuit_logits(ablated_run, sites))

    def _share_right(self, logits: Tensor) -> float:
        return float(right(logits, torch.tensor(self.prompts.answer_ids)).double().mean())


@torch.no_grad()
def skill(model: nn.Module, query: Query, n_boxes: int = 3, n: int = 400) -> float:
    """Share of right answers to one kind of query about objects in boxes."""
    rng = np.random.default_rng(VALIDATION_SEED)
    documents = entity_documents(OBJECTS_IN_BOXES, query, n_boxes, n, rng)
    column = int(np.flatnonzero(documents.is_answer)[0])
    ids = torch.from_numpy(documents.input_ids)
    answers = answered(last_logits(model, ids[:, :column]))
    return float((answers == ids[:, column]).float().mean())
