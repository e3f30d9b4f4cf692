"""A norm as the affine map that it is once its scale is held.

Norms divide by the size of what they are given, so what they do to a sum is not the sum of what
they do to its parts. With that one number held at what it was on a run, it is. Both kinds are
measured by calling the model's own module: RMSNorm, with whatever it adds to its weight, and
LayerNorm, which takes the mean off first and has a bias.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_NO_MEAN = 1e-3
"""Of its gain, what a norm may leave of numbers that are all alike when it takes off their mean."""


@dataclass(frozen=True, eq=False)
class FrozenNorm:
    """x -> gain * (x - its mean, if centred) + bias, in float64.

    gain [n, d_model], the scale of each row in it; bias [d_model].
    """

    gain: Tensor
    is_centred: bool
    bias: Tensor

    def pulled_back(self, direction: Tensor) -> Tensor:
        """The direction before the norm that reads what `direction` [n, d_model] reads after it."""
        before = self.gain * direction
        return before - before.mean(-1, keepdim=True) if self.is_centred else before


@torch.no_grad()
def frozen_norm(norm: Any, at: Tensor) -> FrozenNorm:
    """The norm with the scales that it has on the rows `at` [n, d_model]."""
    probe = _without_mean(at)
    nothing, alike, tilted = (
        norm(row[None])[0].double() for row in (0 * probe, torch.ones_like(probe), probe)
    )
    gain, bias = (tilted - nothing) / probe.double(), nothing
    is_centred = bool((alike - nothing).abs().max() < _NO_MEAN * gain.abs().max())
    read = at.double()
    if is_centred:
        read = read - read.mean(-1, keepdim=True)
    read, normed = gain * read, norm(at).double() - bias
    # Gain is known but for a factor, that of the probe, and so is found with the scale.
    scale = (normed * read).sum(-1, keepdim=True) / (read * read).sum(-1, keepdim=True)
    return FrozenNorm(scale * gain, is_centred, bias)


def _without_mean(like: Tensor) -> Tensor:
    """Numbers [d_model] none of which is zero, and whose mean is."""
    probe = torch.ones_like(like[0])
    probe[1::2] = -1
    if len(probe) % 2:
        probe[-3:] = probe.new_tensor([1, 1, -2])
    return probe
