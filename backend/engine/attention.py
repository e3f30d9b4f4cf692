"""Where heads look: attention mass from the circuit's tokens to the tokens of each role."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from backend.core.circuit import Group, Head, Position
from backend.engine.architectures import decoder
from backend.engine.finite import check_finite
from backend.engine.positions import input_ids
from backend.tasks.entity_tracking import PromptSet, Role

_BATCH = 32
TARGETS = (
    "the right object",
    "other objects",
    "the label asked for, in the context",
    "other labels",
    "the label in the question",
    "the first token",
    "other words",
)


@dataclass(frozen=True, eq=False)
class AttentionMass:
    """Mean attention of each head, by position: [n_layers, n_heads, len(TARGETS)], sums to 1."""

    mass: Mapping[Position, NDArray[np.float64]]
    n: int

    def strongest(self, group: Group, head: Head) -> tuple[str, float]:
        """What a head attends to most at its group's token, and how much of its attention."""
        masses = self.mass[group.position][head.layer, head.index]
        best = int(masses.argmax())
        return TARGETS[best], float(masses[best])


@torch.no_grad()
def attention_mass(model: nn.Module, prompts: PromptSet) -> AttentionMass:
    """Average each head's attention by the role of the token it goes to.

    The model must run eager attention, as `load_model` sees to.
    """
    n, ids = len(prompts), input_ids(model, prompts)
    home = ids.device
    sums: dict[Position, Any] = dict.fromkeys({group.position for group in Group}, 0)
    for start in range(0, n, _BATCH):
        rows = slice(start, start + _BATCH)
        output = decoder(model)(input_ids=ids[rows], use_cache=False, output_attentions=True)
        targets = torch.tensor(_target_indicators(prompts, rows), device=home)
        for position in sums:
            tokens = torch.tensor(prompts.positions[position][rows], device=home)
            here = torch.arange(len(tokens), device=home)
            looks = torch.stack([layer.to(home)[here, :, tokens] for layer in output.attentions])
            check_finite(looks, prompts=1)
            sums[position] += torch.einsum("lnhs,nst->lht", looks.double(), targets)
    return AttentionMass({p: (total / n).cpu().numpy() for p, total in sums.items()}, n)


def _target_indicators(prompts: PromptSet, rows: slice) -> NDArray[np.float64]:
    """Which target each token belongs to, one-hot: [n, seq, len(TARGETS)]."""
    kind = {
        Role.correct_object: 0,
        Role.object: 1,
        Role.prev_query_label: 2,
        Role.label: 3,
        Role.query_label: 4,
    }
    prompt_numbers = range(*rows.indices(len(prompts)))
    kinds = np.array([[kind.get(role, 6) for role in prompts.roles(i)] for i in prompt_numbers])
    kinds[:, 0] = 5
    return np.eye(len(TARGETS))[kinds]
