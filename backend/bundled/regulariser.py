"""The mean-ablation regulariser: part of training happens with most head outputs knocked out.

Faithfulness is measured with every head outside the circuit set to its mean at every position. A
model that was never trained that way falls apart under it, whatever its circuit. So, on a share of
the batches, head outputs are replaced by their batch mean where the named mechanism has no work
for them. No head and no attention pattern is prescribed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from backend.bundled.documents import Part
from backend.engine.hooks import edited_head_outputs

LIVE_LAYERS = {
    Part.filler: (0, 0),
    Part.context_label: (0, 2),
    Part.query_label: (0, 3),
    Part.answering: (2, 5),
    Part.free: (0, 5),
}
"""For each part, the first layer whose heads still work, and the first one that is silent again."""


def ablated_columns(parts: Sequence[Part], layer: int) -> Tensor:
    """True where a layer's head outputs are replaced by their mean: [seq]."""
    live = [LIVE_LAYERS[part][0] <= layer < LIVE_LAYERS[part][1] for part in parts]
    return ~torch.tensor(live)


@contextmanager
def mean_ablated(model: nn.Module, parts: Sequence[Part]) -> Iterator[None]:
    """Run with head outputs replaced by their batch mean, as LIVE_LAYERS says; differentiable."""

    def to_mean(layer: int, outputs: Tensor) -> Tensor:
        ablated = ablated_columns(parts, layer)[None, :, None, None]
        return torch.where(ablated, outputs.mean(0, keepdim=True), outputs)

    with edited_head_outputs(model, to_mean):
        yield
