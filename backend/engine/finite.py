"""Numbers that are not finite never become a figure: they are found here, and told."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from backend.core.errors import UserError
from backend.engine.architectures import device_of, last_logits
from backend.tasks.entity_tracking import MIN_BOXES, sample_prompts

_N_TOKENS = 8


def check_finite(numbers: Tensor, prompts: int = 0, who: str = "The model") -> Tensor:
    """The numbers as they are, if all are finite; `prompts` is the dimension that counts prompts.

    Raises UserError that says on how many prompts they are not, and what to try.
    """
    within = [dim for dim in range(numbers.dim()) if dim != prompts % numbers.dim()]
    # Both let a NaN through, and take a tenth of the time of looking at each number.
    finite = numbers.amax(within).isfinite() & numbers.amin(within).isfinite()
    if not finite.all():
        raise UserError(_explained(who, int((~finite).sum()), len(finite), numbers.dtype))
    return numbers


@torch.no_grad()
def check_gives_finite(name: str, model: nn.Module, tokenizer: Any) -> None:
    """Raise UserError, naming the model, unless its logits are finite on a short prompt.

    It is a prompt of the task, or the first tokens if the tokenizer cannot write one.
    """
    try:
        ids = torch.tensor(sample_prompts(tokenizer, 1, n_boxes=MIN_BOXES).input_ids)
    except UserError:  # told by whoever needs such prompts
        ids = torch.arange(_N_TOKENS)[None]
    check_finite(last_logits(model, ids.to(device_of(model))), who=f"“{name}”")


def _explained(who: str, n_bad: int, n: int, dtype: torch.dtype) -> str:
    found = (
        f"{who} gives numbers that are not finite (NaN or infinity) on {n_bad} of {n} "
        f"{'prompt' if n == 1 else 'prompts'} in {str(dtype).removeprefix('torch.')}: "
        "nothing can be read off them. "
    )
    if dtype is torch.float16:
        return f"{found}float16 ends at 65,504: try bfloat16 or float32, or choose another model."
    return f"{found}Check its weights and config.json, or choose another model."
