"""Where heads look: attention mass from the circuit's tokens to the tokens of each role."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from backend.core.heads import Head
from backend.engine.architectures import decoder
from backend.engine.finite import check_finite
from backend.engine.positions import input_ids
from backend.tasks.prompts import PromptSet
from backend.tasks.task import FIRST_TOKEN, OTHER_WORDS

_BATCH = 32


@dataclass(frozen=True, eq=False)
class AttentionMass:
    """Mean attention of each head, by position: [n_layers, n_heads, n_targets], sums to 1."""

    targets: tuple[str, ...]
    mass: Mapping[str, NDArray[np.float64]]
    n: int

    def strongest(self, position: str, head: Head) -> tuple[str, float]:
        """What a head attends to most at a token, and how much of its attention."""
        masses = self.mass[position][head.layer, head.index]
        best = int(masses.argmax())
        return self.targets[best], float(masses[best])


@torch.no_grad()
def attention_mass(model: nn.Module, prompts: PromptSet) -> AttentionMass:
    """Average each head's attention by the role of the token it goes to.

    The model must run eager attention, as `load_model` sees to.
    """
    n, ids = len(prompts), input_ids(model, prompts)
    home = ids.device
    sums: dict[str, Any] = dict.fromkeys(prompts.task.position_names, 0)
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
    mass = {position: (total / n).cpu().numpy() for position, total in sums.items()}
    return AttentionMass(prompts.task.targets, mass, n)


def _target_indicators(prompts: PromptSet, rows: slice) -> NDArray[np.float64]:
    """Which target each token belongs to, one-hot: [n, seq, n_targets]."""
    targets = prompts.task.targets
    of_role = {role.name: targets.index(role.target or OTHER_WORDS) for role in prompts.task.roles}
    others = targets.index(OTHER_WORDS)
    prompt_numbers = range(*rows.indices(len(prompts)))
    kinds = np.array(
        [[of_role.get(role or "", others) for role in prompts.roles_of(i)] for i in prompt_numbers]
    )
    kinds[:, 0] = targets.index(FIRST_TOKEN)
    return np.eye(len(targets))[kinds]
