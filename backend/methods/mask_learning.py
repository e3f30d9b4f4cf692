"""How a mask over heads is learnt that makes a model give the expected answers to pairs.

Adam on the loss −mean logit of the expected answer + λ Σ(1 − mask), with all weights as they are:
the mask alone is learnt. It starts at one, everything as it was, and is clamped to [0, 1] after
each step. Every few batches it is rounded and checked on other pairs (Prakash et al., circuit
functionality, and their code; Davies et al. 2023).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from backend.core.heads import Site
from backend.core.kept import Kept
from backend.core.runtime import at_work
from backend.engine import checkpoints
from backend.engine.architectures import dtype_of
from backend.engine.finite import check_finite
from backend.engine.masked_patching import masked_logits
from backend.engine.memory import memory_errors_explained
from backend.methods.evaluation import Evaluation, Right

_MEAN, _SQUARE, _LEAST = 0.9, 0.999, 1e-8
"""Adam's (Kingma and Ba 2015)."""
_FILE = "mask"

Check = Callable[[NDArray[np.bool_]], Right]
"""heads that give the alternate's values [n_heads] -> whether the answers are as expected [n]."""


@dataclass(frozen=True, eq=False)
class Learning:
    """A mask after some batches, and all that it takes to go on.

    mask, mean, square [n_heads]: the mask, and Adam's running means of its gradient and of the
    gradient's square; losses [n_batches]: before each step; checked [n_checks, n_heads]: the masks
    that were checked, and right [n_checks, n] what came out; the first check is that of nothing.
    """

    mask: Tensor
    mean: Tensor
    square: Tensor
    losses: Tensor
    checked: Tensor
    right: Tensor

    @property
    def best(self) -> Tensor:
        """The mask whose check had most answers as expected, and of several the one with fewest
        heads, the first of them: [n_heads]."""
        n_right, n_heads = self.right.sum(1).tolist(), chosen(self.checked).sum(-1).tolist()
        order = range(len(n_right))
        return self.checked[max(order, key=lambda place: (n_right[place], -n_heads[place]))]


def chosen(mask: Tensor) -> Tensor:
    """The heads of a rounded mask that give the alternate's values, in the shape of the mask."""
    return mask.round() == 0


def learn(
    training: Sequence[Callable[[], Evaluation]],
    sites: Sequence[Site],
    n_steps: int,
    every: int,
    rate: float,
    penalty: float,
    check: Check,
    told: Callable[[Learning], None],
    kept_in: Kept | None = None,
) -> Learning:
    """A mask over these sites, learnt from batches of pairs, again and again in the same order, and
    checked `every` few of them and at the end.

    `told` where it is before each step, and may raise to cancel. It goes on from what is in the
    folder, if there is one, where each check leaves it: what comes out is the same. Of processes
    that share the work one learns, as each step needs the one before. Raises UserError where the
    model's logits are not finite.
    """

    def learnt() -> Mapping[str, Tensor]:
        first = _beginning(training[0](), len(sites), check)
        now = _kept(kept_in, first, n_steps, every) or first
        while True:
            done = len(now.losses)
            if len(now.right) <= _n_checks(done, n_steps, every):
                now = _checked(now, check)
                checkpoints.keep_state(kept_in, _FILE, vars(now))
            told(now)
            if done == n_steps:
                return vars(now)
            loss, gradient = loss_of(training[done % len(training)](), sites, now.mask, penalty)
            now = _stepped(now, loss, gradient, rate)

    return Learning(**checkpoints.made_by_one(kept_in, f"{_FILE}-learnt", learnt))


def so_far(kept_in: Kept | None) -> Learning | None:
    """What is in the folder, to be looked at while it is learnt; None if there is nothing."""
    tensors: Mapping[str, Any] = checkpoints.state(kept_in, _FILE)
    try:
        return Learning(**tensors)
    except TypeError:
        return None


def _kept(kept_in: Kept | None, first: Learning, n_steps: int, every: int) -> Learning | None:
    """What is in the folder, if it can have come of this beginning."""
    found = so_far(kept_in)
    if found is None:
        return None
    pairs = zip(vars(found).values(), vars(first).values(), strict=True)
    n_done, n_checks = len(found.losses), _n_checks(len(found.losses), n_steps, every)
    fits = (
        all(one.dtype == other.dtype and one.dim() == other.dim() for one, other in pairs)
        and found.mask.shape == found.mean.shape == found.square.shape == first.mask.shape
        and found.checked.shape == (n_checks + 1, *first.mask.shape)
        and found.right.shape == (n_checks + 1, first.right.shape[1])
        and n_done <= n_steps
    )
    return found if fits else None


def _beginning(pairs: Evaluation, n_heads: int, check: Check) -> Learning:
    dtype = torch.promote_types(dtype_of(pairs.loaded.model), torch.float32)
    mask, nothing = torch.ones(n_heads, dtype=dtype), torch.zeros(n_heads, dtype=dtype)
    none = mask.new_zeros(0)
    right = torch.from_numpy(check(chosen(mask).numpy()))[None]
    return Learning(mask, nothing, nothing.clone(), none, mask.clone()[None], right)


def _n_checks(done: int, n_steps: int, every: int) -> int:
    """After so many batches, without the one before the first."""
    return done // every + (done == n_steps and done % every > 0)


def _checked(now: Learning, check: Check) -> Learning:
    right = torch.from_numpy(check(chosen(now.mask).numpy()))
    return replace(
        now,
        checked=torch.cat([now.checked, now.mask[None]]),
        right=torch.cat([now.right, right[None]]),
    )


def loss_of(
    pairs: Evaluation, sites: Sequence[Site], mask: Tensor, penalty: float
) -> tuple[float, Tensor]:
    """The loss of a mask on pairs, in logits, and its gradient [n_heads]."""
    loss, gradient = penalty * float((1 - mask).sum()), torch.full_like(mask, -penalty)
    model, n = pairs.loaded.model, len(pairs.prompts)
    with (
        at_work(pairs.loaded.runtime),
        memory_errors_explained(model, n),
        torch.enable_grad(),
    ):
        for batch in pairs.batches():
            free = mask.clone().requires_grad_()
            logits = check_finite(masked_logits(batch.clean, sites, free, batch.off_values))
            expected = torch.tensor(batch.prompts.answer_ids, device=logits.device)[:, None]
            own = -logits.gather(-1, expected).to(mask.dtype).sum() / n
            loss += own.item()
            gradient += torch.autograd.grad(own, free)[0]
    return loss, gradient


def _stepped(now: Learning, loss: float, gradient: Tensor, rate: float) -> Learning:
    """One step of Adam."""
    losses = torch.cat([now.losses, now.losses.new_tensor([loss])])
    mean = _MEAN * now.mean + (1 - _MEAN) * gradient
    square = _SQUARE * now.square + (1 - _SQUARE) * gradient**2
    size = (square / (1 - _SQUARE ** len(losses))).sqrt() + _LEAST
    mask = (now.mask - rate * mean / (1 - _MEAN ** len(losses)) / size).clamp(0, 1)
    return replace(now, mask=mask, mean=mean, square=square, losses=losses)
