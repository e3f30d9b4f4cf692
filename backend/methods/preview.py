"""What a stage of discovery is estimated to be, and which heads to measure exactly to check that.

A preview is never a circuit: it says which heads to measure exactly first
(`backend.methods.chosen_senders`), and `backend.methods.agreement` how far it can be trusted.
Importing this module imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from backend.core.heads import Head
from backend.core.statistics import student
from backend.methods.method import Figure
from backend.methods.requests import score_name
from backend.methods.stage import Stage
from backend.tasks.chance import ForcedChoice


@dataclass(frozen=True, eq=False)
class Preview:
    """What a stage's scores are estimated to be: preview, not exact.

    estimated: the stage with estimates, means over prompts, in the place of scores; steps: over how
    many points gradients are integrated, if it is by gradients.
    """

    estimated: Stage
    steps: int = 0

    @property
    def ranked(self) -> tuple[Head, ...]:
        """The heads that can reach a receiver, the most negative estimate first."""
        mean, receivers = self.estimated.mean, self.estimated.receivers
        top = max((head.layer for head in receivers), default=len(mean))  # of none, the logits
        order = mean[:top].flatten().argsort(kind="stable").tolist()
        return tuple(Head(*divmod(place, mean.shape[1])) for place in order)

    def top(self, k: int) -> tuple[Head, ...]:
        """The `k` heads that it ranks highest."""
        return self.ranked[:k]

    def to_check(self, k: int, seed: int) -> tuple[Head, ...]:
        """The `k` heads that it ranks highest, and as many random others: what to measure."""
        others = self.ranked[k:]
        drawn = np.random.default_rng(seed).permutation(len(others))[:k]
        return (*self.top(k), *sorted(others[place] for place in drawn.tolist()))

    @property
    def choices(self) -> tuple[ForcedChoice | None]:
        """How the model does beside guessing."""
        return self.estimated.choices


def estimates(preview: Preview) -> Iterator[Figure]:
    """Every head's estimate, the strongest first, called what it is."""
    stage = preview.estimated
    what = f"{score_name(stage.score)}, preview, not exact"
    for place in abs(stage.mean).argsort(axis=None)[::-1].tolist():
        head = Head(*divmod(place, stage.mean.shape[1]))
        found = student(float(stage.mean[head]), float(stage.standard_error[head]), stage.n)
        yield Figure(str(head), what, found)
