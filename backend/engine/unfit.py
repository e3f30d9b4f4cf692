"""What no method can work on: layers that differ, or attention whose parts cannot be told apart.

Every method names heads by layer and index, and reads or gives their outputs, queries, keys or
values; also of a model that is run whole. So this is found out when a model is loaded.
"""

from __future__ import annotations

import torch
from torch import nn

from backend.core.errors import is_out_of_memory
from backend.engine.architectures import Projection, device_of, last_logits, shape_of
from backend.engine.hooks import edited_head_outputs, edited_projections

_PROJECTED: tuple[tuple[str, Projection], ...] = (
    ("queries", "q_proj"),
    ("keys", "k_proj"),
    ("values", "v_proj"),
)


def unfit(model: nn.Module) -> str | None:
    """Why heads of this model cannot be worked on; None if they can."""
    try:
        shape = shape_of(model)
    except (AttributeError, IndexError, TypeError, ZeroDivisionError):
        return "its attention cannot be found"
    for what, projection in (("head outputs", None), *_PROJECTED):
        n_heads = shape.n_kv_heads if projection in ("k_proj", "v_proj") else shape.n_heads
        try:
            found = _n_heads(model, projection)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            return f"the {what} of its heads cannot be told apart"
        if found != [n_heads] * shape.n_layers:
            return (
                f"the {what} of its heads are not {n_heads} times {shape.d_head} numbers in each "
                f"of its {shape.n_layers} layers"
            )
    return None


@torch.no_grad()
def _n_heads(model: nn.Module, projection: Projection | None) -> list[int]:
    """How many heads the layers have, as they run: what is projected, or else head outputs."""
    found: list[int] = []

    def count(_: int, heads: torch.Tensor) -> None:
        found.append(heads.shape[-2])

    counting = (
        edited_projections(model, projection, count)
        if projection
        else edited_head_outputs(model, count)
    )
    with counting:
        last_logits(model, torch.zeros(1, 2, dtype=torch.long, device=device_of(model)))
    return found
