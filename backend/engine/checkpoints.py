"""Tensors in files, until the part of a result is finished that they make: a file for each batch of
prompts, or for what goes on from step to step.

What is there and fits is not computed again, however the process ended. A file is written whole or
not at all; one that is damaged, or cannot be written, only means computing again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from time import monotonic

import torch
from safetensors import SafetensorError
from safetensors.torch import load as read_tensors
from safetensors.torch import save as tensors_as_bytes
from torch import Tensor

from backend.core.errors import UserError
from backend.core.files import MB, read, write_atomically

_MOST_MB = 4096
_EVERY_S = 5.0
"""How much of a batch may be lost when the process is killed: seldom enough to cost nothing."""


def inside(kept_in: Path | None, name: str) -> Path | None:
    """A folder of this name in the folder, if there is one."""
    return kept_in / name if kept_in else None


def tensor(
    kept_in: Path | None,
    batch: slice,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    compute: Callable[[], Tensor],
) -> Tensor:
    """What `compute` gives of a batch, in this finite shape and dtype, from the folder if there."""
    found = _read(kept_in, batch)
    if found is None or (found.shape, found.dtype) != (shape, dtype):
        found = compute()
        _write(kept_in, batch, found)
    return found


def rows(
    kept_in: Path | None,
    batch: slice,
    n_rows: int,
    more: Callable[[int], Iterator[Tensor]],
    told: Callable[[int], None],
    dtype: torch.dtype = torch.bool,
) -> Tensor:
    """Finite rows about a batch, those in the folder and then the rest: [n_rows, n of the batch].

    `more(k)` yields what comes after the first k rows, some [j, n] at a time. It is kept every few
    seconds, at the end, and when anything is raised; `told` how many rows are there, and may raise.
    """
    there = torch.zeros((0, batch.stop - batch.start), dtype=dtype)
    found = _read(kept_in, batch)
    if found is not None and (found.shape[1:], found.dtype) == (there.shape[1:], dtype):
        there = found if len(found) <= n_rows else there
    n_kept, kept_at = len(there), monotonic()
    if n_kept:
        told(n_kept)
    rest = more(n_kept) if n_kept < n_rows else ()
    try:
        for some in rest:
            there = torch.cat([there, some])
            if monotonic() - kept_at > _EVERY_S:
                _write(kept_in, batch, there)
                n_kept, kept_at = len(there), monotonic()
            told(len(there))
    finally:
        if len(there) > n_kept:
            _write(kept_in, batch, there)
    return there


def state(kept_in: Path | None, name: str) -> Mapping[str, Tensor]:
    """The tensors of this name in the folder, by their own; none if there are none, or not all of
    them can be read and are finite."""
    if kept_in is None:
        return {}
    try:
        found = read_tensors(read(_file(kept_in, name), _MOST_MB * MB))
    except (UserError, SafetensorError):
        return {}
    return found if all(each.isfinite().all() for each in found.values()) else {}


def keep_state(kept_in: Path | None, name: str, tensors: Mapping[str, Tensor]) -> None:
    """Put tensors into the folder, if there is one, in the place of those of this name."""
    if kept_in is not None:
        with suppress(OSError):
            write_atomically(_file(kept_in, name), tensors_as_bytes(dict(tensors)))


def _file(kept_in: Path, name: str) -> Path:
    return kept_in / f"{name}.safetensors"


def _read(kept_in: Path | None, batch: slice) -> Tensor | None:
    """What was kept; None if there is nothing, or nothing that can be read."""
    return state(kept_in, _name(batch)).get("kept")


def _write(kept_in: Path | None, batch: slice, found: Tensor) -> None:
    keep_state(kept_in, _name(batch), {"kept": found})


def _name(batch: slice) -> str:
    return f"{batch.start}-{batch.stop}"
