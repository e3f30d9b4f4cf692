"""How many prompts are run at once: what their runs keep is counted before they start.

A run keeps the residual stream at every layer and all keys and values; while it passes, it needs
room for MLPs and attention patterns. Prompts go through in chunks that take at most `SHARE` of the
memory that is free; finished chunks that do not fit beside each other wait in the CPU's memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from backend.core.devices import free_bytes
from backend.core.errors import OutOfMemory, UserError, is_out_of_memory
from backend.core.metrics import Ablation
from backend.core.placement import CPU
from backend.engine.architectures import device_of, dtype_of, shape_of, widths

SHARE = 0.8
"""Of the free memory that may be filled."""

_NUMBERS_AT_ONCE = 1 << 25
"""Few enough that what a tiny model's run makes on a CPU is memory that it has used before."""
_LEAST_ON_CPU = 16
"""Every chunk reads all weights, which is what a large model's run costs when it is short."""
_MOST_ON_GPU = 64
"""Few enough that work can be cancelled, and clicks come in between."""
_MOST_KEPT = 8

CHUNK_VARIABLE = "CIRCUIT_EXPLORER_CHUNK"

Kept = TypeVar("Kept")

Agree = Callable[[str, int], int]
"""(what is run, how many prompts of it fit here at once) -> how many are run at once."""
_agree: ContextVar[Agree] = ContextVar("_agree", default=lambda what, size: size)


@dataclass(frozen=True)
class Chunks:
    """How prompts go through: `size` at once; so many chunks stay where they are, so many wait."""

    size: int
    n_kept: int
    n_waiting: int


def chunks(model: nn.Module, n: int, length: int, ablation: Ablation = Ablation.mean) -> Chunks:
    """How `n` prompts of `length` tokens fit into the memory that is free now.

    The environment variable CIRCUIT_EXPLORER_CHUNK sets the size instead.
    """
    device, (kept, passing) = device_of(model), bytes_of_prompt(model, length, ablation)
    on_cpu = device.type == "cpu"
    budget = SHARE * free_bytes(str(device))
    numbers = (kept + passing) // dtype_of(model).itemsize
    most = max(_LEAST_ON_CPU, _NUMBERS_AT_ONCE // numbers) if on_cpu else _MOST_ON_GPU
    # A clean run and one with everything knocked out are kept side by side.
    fitting = int(budget // (2 * kept + passing))
    size = _agreed(model, n, length, ablation.name, _wanted() or max(1, min(n, most, fitting)))
    n_kept = int((budget - size * passing) // (2 * kept * size))
    n_waiting = 0 if on_cpu else int(SHARE * free_bytes(CPU) // (2 * kept * size))
    return Chunks(size, max(1, min(n_kept, _MOST_KEPT)), n_waiting)


def prompt_batches(model: nn.Module, n: int, length: int) -> list[slice]:
    """Slices of `n` prompts of `length` tokens that fit into memory, one after the other."""
    size = chunks(model, n, length).size
    return [slice(start, min(n, start + size)) for start in range(0, n, size)]


def gradient_batches(model: nn.Module, n: int, length: int) -> list[slice]:
    """Slices of `n` prompts whose runs fit into memory with all that a backward pass needs.

    That is what passes through every layer, beside the clean and the patched run.
    """
    kept, passing = bytes_of_prompt(model, length)
    each = 2 * kept + shape_of(model).n_layers * passing
    fitting = int(SHARE * free_bytes(str(device_of(model))) // each)
    size = max(1, min(chunks(model, n, length).size, fitting))
    size = _agreed(model, n, length, "gradients", size)
    return [slice(start, min(n, start + size)) for start in range(0, n, size)]


def bytes_of_prompt(
    model: nn.Module, length: int, ablation: Ablation = Ablation.mean
) -> tuple[int, int]:
    """What a run of a prompt of `length` tokens keeps, and what it needs only while it passes.

    A resampled run needs its own head outputs of every prompt, while it is prepared.
    """
    shape, (d_model, d_mlp) = shape_of(model), widths(model)
    kept = length * shape.n_layers * (2 * shape.n_kv_heads * shape.d_head + d_model)
    passing = length * (4 * d_mlp + 3 * shape.n_heads * length)
    if ablation is Ablation.resample:
        passing += length * shape.n_layers * shape.n_heads * shape.d_head
    itemsize = dtype_of(model).itemsize
    return itemsize * kept, itemsize * passing


def fits(model: nn.Module, n: int, length: int) -> bool:
    """Whether `n` prompts that have to be kept at once fit into the memory that is free now."""
    kept, passing = bytes_of_prompt(model, length)
    return n * (2 * kept + passing) <= SHARE * free_bytes(str(device_of(model)))


def check_fits(model: nn.Module, n: int, length: int) -> None:
    """Raise UserError if `n` prompts that have to be kept at once do not fit into memory."""
    if not fits(model, n, length):
        kept, passing = bytes_of_prompt(model, length)
        needed, free = n * (2 * kept + passing), free_bytes(str(device_of(model)))
        fitting = int(SHARE * free // (2 * kept + passing))
        raise UserError(
            f"{n} prompts would need about {_gb(needed)} of memory at once, and {_gb(free)} are "
            f"free on {device_of(model)}. "
            + (
                f"Choose at most {fitting} prompts, or unload a model."
                if fitting
                else "Unload a model, or load this one in fewer bytes (bfloat16)."
            )
        )


@contextmanager
def memory_errors_explained(model: nn.Module, size: int) -> Iterator[None]:
    """Turn torch's complaint that memory is full into a UserError that says what to try."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        device = device_of(model)
        if device.type == "cuda":
            torch.cuda.empty_cache()
        raise OutOfMemory(
            f"The memory of {device} was full with {size} prompts at once; the model is still "
            "loaded and finished parts are kept. "
            + (
                f"Start with {CHUNK_VARIABLE}={size // 2} in the environment, or choose fewer "
                "prompts."
                if size > 1
                else "Unload another model, or load this one in fewer bytes (bfloat16)."
            )
        ) from None


@contextmanager
def sizes_agreed(agree: Agree) -> Iterator[None]:
    """Let processes that share the work run equally many prompts at once in the block, so that each
    can take over what another has made."""
    before = _agree.set(agree)
    try:
        yield
    finally:
        _agree.reset(before)


def _agreed(model: nn.Module, n: int, length: int, what: str, size: int) -> int:
    return _agree.get()(f"{n} x {length}, {what}, {shape_of(model)}", size)


def moved(value: Kept, device: torch.device) -> Kept:
    """The same with all tensors on a device: tensors, and tuples and dataclasses of them."""
    changed: Any = value
    if isinstance(value, Tensor):
        changed = value.to(device)
    elif isinstance(value, tuple):
        changed = tuple(moved(item, device) for item in value)
    elif is_dataclass(value) and not isinstance(value, type):
        parts = {f.name: moved(getattr(value, f.name), device) for f in fields(value)}
        changed = replace(value, **parts)
    kept: Kept = changed
    return kept


def bytes_in(value: Any) -> int:
    """What the tensors and arrays in a value take, each memory once, without those of models."""
    return sum(dict(_memories(value)).values())


def _memories(value: Any) -> Iterator[tuple[int, int]]:
    """Where every tensor and array in a value is, and how many bytes it takes."""
    if isinstance(value, Tensor):
        storage = value.untyped_storage()
        yield storage._cdata, storage.nbytes()
    elif isinstance(value, np.ndarray):
        yield id(value), value.nbytes
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _memories(item)
    elif isinstance(value, Mapping):
        yield from _memories([*value.values()])
    elif is_dataclass(value):
        yield from _memories([getattr(value, f.name) for f in fields(value)])


def _wanted() -> int | None:
    text = os.environ.get(CHUNK_VARIABLE, "")
    if not text:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"{CHUNK_VARIABLE}={text} is not a number of prompts. Choose 1 or more.")
    return int(text)


def _gb(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:.1f} GB"
