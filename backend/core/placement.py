"""Where a model is put, and in which numbers (no torch)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from backend.core.errors import UserError

AUTO, CPU, SPREAD = "auto", "cpu", "spread"


class Dtype(Enum):
    """The numbers that weights and activations are kept in, by torch's names."""

    float32 = "float32"
    """The default: scores are small differences."""
    bfloat16 = "bfloat16"
    float16 = "float16"

    @property
    def n_bytes(self) -> int:
        """Bytes of one number."""
        return 4 if self is Dtype.float32 else 2


@dataclass(frozen=True)
class Placement:
    """device: `auto` (the first GPU, or else the CPU), `cpu`, `cuda:N`, or `spread` over all GPUs.

    tf32: whether a GPU may multiply float32 with 10-bit mantissas while the model is at work.
    """

    device: str = AUTO
    dtype: Dtype = Dtype.float32
    tf32: bool = False

    @property
    def precision(self) -> str:
        """The numbers that a model runs in; they determine results."""
        return self.dtype.name + ("+tf32" if self.tf32 else "")

    @property
    def numbers(self) -> str:
        """The same in words."""
        return self.dtype.name + (" with TF32" if self.tf32 else "")

    @property
    def rounds(self) -> bool:
        """Whether scores, which are small differences, may drown in the rounding of its numbers."""
        return self.dtype is not Dtype.float32 or self.tf32


def check_device(device: str, n_gpus: int) -> str:
    """The device that is meant, `auto` decided; raises UserError when it is not there."""
    there = [f"cuda:{number}" for number in range(n_gpus)]
    if device == AUTO:
        return there[0] if there else CPU
    if device == "cuda":
        device = "cuda:0"
    if device == CPU or device in there or (device == SPREAD and there):
        return device
    offered = [AUTO, CPU, *there, *([SPREAD] if there else [])]
    found = f"{n_gpus} GPUs" if n_gpus != 1 else "one GPU"
    raise UserError(
        f"The device “{device}” is not there: this computer has {found if there else 'no GPU'} "
        f"that torch can use. Choose one of {', '.join(offered)}."
    )
