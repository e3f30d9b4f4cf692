"""What is read off the logits at the last token (NumPy only)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.tasks import PromptSet

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Answers:
    """What a run answered on each prompt.

    correct [n]; probability [n] and rank [n] (1 = first) of the right answer; logit_difference
    [n], its logit less the mean logit of the other boxes' objects; probabilities [n, vocab].
    """

    correct: NDArray[np.bool_]
    probability: Floats
    rank: NDArray[np.int64]
    logit_difference: Floats
    probabilities: Floats

    def top(self, prompt: int, k: int = 5) -> NDArray[np.int64]:
        """Token ids of the `k` most probable answers to one prompt, best first."""
        return np.argsort(-self.probabilities[prompt], kind="stable")[:k]


def read_answers(logits: Floats, prompts: PromptSet) -> Answers:
    """Read the answers off the logits [n, vocab] at the last token."""
    rows = np.arange(len(prompts))
    right = logits[rows, prompts.answer_ids]
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = shifted / shifted.sum(axis=1, keepdims=True)
    boxes = np.take_along_axis(logits, prompts.object_ids, axis=1)
    others = (boxes.sum(axis=1) - right) / (prompts.n_boxes - 1)
    # Of two equal logits the lower token id is the answer, as for argmax.
    ahead = (logits > right[:, None]) | (
        (logits == right[:, None]) & (np.arange(logits.shape[1]) < prompts.answer_ids[:, None])
    )
    rank = 1 + ahead.sum(axis=1)
    return Answers(
        rank == 1,
        probabilities[rows, prompts.answer_ids],
        rank,
        right - others,
        probabilities.astype(np.float32),
    )
