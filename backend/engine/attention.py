"""Where heads look: whole patterns, and attention mass from named tokens to those of each role.

The model must run eager attention, as `load_model` sees to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from backend.core.heads import Head
from backend.engine.activation_patching import CleanRun, prepare_clean
from backend.engine.architectures import decoder, device_of
from backend.engine.finite import check_finite
from backend.engine.hooks import seen_attention_weights
from backend.engine.positions import input_ids
from backend.engine.validation import can_take_apart
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
def attention_patterns(model: nn.Module, input_ids: Tensor) -> Tensor:
    """Attention weights of a run on `input_ids` [n, seq]: [n_layers, n, n_heads, seq, seq].

    Of each row (query token), over the tokens that it sees; heads that are edited meanwhile attend
    as what they read then makes them. Raises UserError where they are not finite.
    """
    found: list[Tensor] = []
    with seen_attention_weights(model, lambda _, weights: found.append(weights.clone())):
        decoder(model)(input_ids=input_ids, use_cache=False)
    return check_finite(torch.stack(found), prompts=1)


@torch.no_grad()
def attention_by_target(model: nn.Module, prompts: PromptSet, rows: slice) -> Mapping[str, Tensor]:
    """Some prompts' attention from each of the task's tokens, by the role of where it goes.

    By token, [n_layers, n, n_heads, n_targets], in float64; sums to 1 over the task's `targets`.
    """
    with _seen_by_target(model, prompts, rows) as looks:
        decoder(model)(input_ids=input_ids(model, prompts)[rows], use_cache=False)
    return dict(zip(prompts.task.position_names, torch.stack(looks, 1), strict=True))


def attention_mass(model: nn.Module, prompts: PromptSet) -> AttentionMass:
    """Average each head's attention by the role of the token it goes to."""
    sums: dict[str, NDArray[np.float64]] = {}
    for start in range(0, len(prompts), _BATCH):
        found = attention_by_target(model, prompts, slice(start, start + _BATCH))
        for position, by_target in found.items():
            sums[position] = sums.get(position, 0) + by_target.sum(1).cpu().numpy()
    means = {position: total / len(prompts) for position, total in sums.items()}
    return AttentionMass(prompts.task.targets, means, len(prompts))


def clean_with_attention(model: nn.Module, prompts: PromptSet) -> tuple[CleanRun, AttentionMass]:
    """The untouched run, and the attention mass in it."""
    if not can_take_apart(model):
        return prepare_clean(model, prompts), attention_mass(model, prompts)
    with _seen_by_target(model, prompts, slice(None), lambda look: look.mean(1)) as looks:
        clean = prepare_clean(model, prompts)
    by_position = torch.stack(looks, 1).cpu().numpy()
    mass = dict(zip(prompts.task.position_names, by_position, strict=True))
    return clean, AttentionMass(prompts.task.targets, mass, len(prompts))


@contextmanager
def _seen_by_target(
    model: nn.Module,
    prompts: PromptSet,
    rows: slice,
    keep: Callable[[Tensor], Tensor] = lambda look: look,
) -> Iterator[list[Tensor]]:
    """Collect, while some prompts run, every layer's attention from each of the task's tokens.

    What is kept is what `keep` makes of [n_positions, n, n_heads, n_targets], in float64.
    """
    home = device_of(model)
    targets = torch.tensor(_target_indicators(prompts, rows), device=home)
    tokens = torch.tensor(
        np.stack([prompts.positions[name][rows] for name in prompts.task.position_names]),
        device=home,
    )
    here = torch.arange(tokens.shape[1], device=home)
    looks: list[Tensor] = []

    def see(_: int, weights: Tensor) -> None:
        from_tokens = check_finite(weights[here, :, tokens], prompts=1)
        looks.append(keep(torch.einsum("pnhs,nst->pnht", from_tokens.double(), targets)))

    with seen_attention_weights(model, see):
        yield looks


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
