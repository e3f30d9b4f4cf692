"""Tensors that are kept until the part of a result is finished that they make: a block for each
batch of prompts, or for what goes on from step to step.

What is there and fits is not computed again, however the process ended, and blocks that several
processes share are each computed by one of them. A block that is damaged, or cannot be written,
only means computing again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from math import ceil
from time import monotonic

import torch
from safetensors import SafetensorError
from safetensors.torch import load as read_tensors
from safetensors.torch import save as tensors_as_bytes
from torch import Tensor

from backend.core.kept import Kept

_EVERY_S = 5.0
"""How much of a batch may be lost when the process is killed: seldom enough to cost nothing."""
_N_BLOCKS = 32
"""Into how many blocks the rows of a batch are divided where processes share them. It is the same
however many they are, as some may come later."""


More = Callable[[slice, int, int], Iterator[Tensor]]
"""(a batch, k, l) -> its rows from k to l, some [j, n of the batch] at a time."""


@dataclass(frozen=True, eq=False)
class Block:
    """A finite tensor of this shape and dtype, kept under its name, and how it is made."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    compute: Callable[[], Tensor]


def inside(kept_in: Kept | None, name: str) -> Kept | None:
    """A place of this name in the place, if there is one."""
    return kept_in.inside(name) if kept_in else None


def name_of(batch: slice) -> str:
    """What a batch of prompts is called."""
    return f"{batch.start}-{batch.stop}"


def tensors(kept_in: Kept | None, blocks: Sequence[Block]) -> list[Tensor]:
    """The blocks: from where they are kept, or made, each by one of those who share them."""
    there = {each.name: _fitting(kept_in, each.name, each.shape, each.dtype) for each in blocks}
    lacking = {each.name: each for each in blocks if there[each.name] is None}
    for name in kept_in.to_make([*lacking]) if kept_in else lacking:
        there[name] = made = lacking[name].compute()
        _write(kept_in, name, made)
    found = []
    for each in blocks:
        known = there[each.name]
        if known is None:  # another has made it
            known = _fitting(kept_in, each.name, each.shape, each.dtype)
        found.append(each.compute() if known is None else known)
    return found


def rows(
    kept_in: Kept | None,
    batches: Sequence[slice],
    n_rows: int,
    more: More,
    told: Callable[[int, int], None],
    dtype: torch.dtype = torch.bool,
    at_once: int = 1,
) -> Tensor:
    """Finite rows about batches of prompts, those that are kept and then the rest: [n_rows, n].

    They are kept every few seconds, at the end of a batch, and when anything is raised; `told` of
    the batch, by its place, how many rows are there, and may raise. Those who share the work make
    some rows of some batches each, and do not part those that run `at_once`.
    """
    first = [_first_rows(kept_in, batch, n_rows, dtype) for batch in batches]
    if kept_in and kept_in.is_shared:
        return _shared_rows(kept_in, batches, n_rows, first, more, told, at_once)
    columns = [
        _rows(kept_in, batch, n_rows, there, partial(more, batch), partial(told, place))
        for place, (batch, there) in enumerate(zip(batches, first, strict=True))
    ]
    return torch.cat(columns, 1)


def _rows(
    kept_in: Kept | None,
    batch: slice,
    n_rows: int,
    there: Tensor,
    more: Callable[[int, int], Iterator[Tensor]],
    told: Callable[[int], None],
) -> Tensor:
    """Those that are there and the rest of a batch, by one process: [n_rows, n of the batch]."""
    name = name_of(batch)
    there = _following_rows(kept_in, name, n_rows, there)
    if len(there):
        told(len(there))
    n_kept, kept_at = len(there), monotonic()
    try:
        for some in more(n_kept, n_rows) if n_kept < n_rows else ():
            there = torch.cat([there, some])
            if monotonic() - kept_at > _EVERY_S:
                _write(kept_in, name, there)
                n_kept, kept_at = len(there), monotonic()
            told(len(there))
    finally:
        if len(there) > n_kept:
            _write(kept_in, name, there)
    return there


def state(kept_in: Kept | None, name: str) -> Mapping[str, Tensor]:
    """The tensors of this name, by their own; none if there are none, or not all of them can be
    read and are finite."""
    data = kept_in.read(name) if kept_in else None
    if data is None:
        return {}
    try:
        found = read_tensors(data)
    except SafetensorError:
        return {}
    return found if all(each.isfinite().all() for each in found.values()) else {}


def keep_state(kept_in: Kept | None, name: str, tensors: Mapping[str, Tensor]) -> None:
    """Keep tensors, if there is a place for them, instead of those of this name."""
    if kept_in is not None:
        kept_in.write(name, tensors_as_bytes(dict(tensors)))


def made_by_one(
    kept_in: Kept | None, name: str, make: Callable[[], Mapping[str, Tensor]]
) -> Mapping[str, Tensor]:
    """Finite tensors that cannot be divided: one of those who share the work makes them, the others
    wait."""
    if kept_in is None or not kept_in.is_shared:
        return make()
    made: Mapping[str, Tensor] = {}
    for each in kept_in.to_make([name]):
        made = make()
        keep_state(kept_in, each, made)
    return made or state(kept_in, name) or make()


def _first_rows(kept_in: Kept | None, batch: slice, n_rows: int, dtype: torch.dtype) -> Tensor:
    """The rows of a batch that are kept in one, at most `n_rows`: [k, n of the batch]."""
    nothing = torch.zeros((0, batch.stop - batch.start), dtype=dtype)
    found = _read(kept_in, name_of(batch))
    if found is None or (found.shape[1:], found.dtype) != (nothing.shape[1:], nothing.dtype):
        return nothing
    return found if len(found) <= n_rows else nothing


def _following_rows(kept_in: Kept | None, name: str, n_rows: int, there: Tensor) -> Tensor:
    """The rows with those of blocks that follow them without a gap: [k, n]."""
    for start, stop in _row_blocks(kept_in, name):
        if start <= len(there) < stop <= n_rows:
            shape = (stop - start, *there.shape[1:])
            found = _fitting(kept_in, _row_block(name, start, stop), shape, there.dtype)
            if found is None:
                break
            there = torch.cat([there, found[len(there) - start :]])
    return there


def _shared_rows(
    kept_in: Kept,
    batches: Sequence[slice],
    n_rows: int,
    first: Sequence[Tensor],
    more: More,
    told: Callable[[int, int], None],
    at_once: int,
) -> Tensor:
    """All rows, made in blocks but for the first ones of each batch that are there."""

    def compute(place: int, start: int, stop: int) -> Tensor:
        found: list[Tensor] = []
        for some in more(batches[place], start, stop):
            found.append(some)
            told(place, start + sum(map(len, found)))
        return torch.cat(found)

    size = at_once * ceil(n_rows / at_once / _N_BLOCKS) if n_rows else 1
    ends = [*range(0, n_rows, size), n_rows]
    lacking = [
        (place, start, stop)
        for place, there in enumerate(first)
        for start, stop in pairwise(ends)
        if stop > len(there)
    ]
    blocks = [
        Block(
            _row_block(name_of(batches[place]), start, stop),
            (stop - start, *first[place].shape[1:]),
            first[place].dtype,
            partial(compute, place, start, stop),
        )
        for place, start, stop in lacking
    ]
    columns = [[there] for there in first]
    for (place, start, _), made in zip(lacking, tensors(kept_in, blocks), strict=True):
        columns[place].append(made[max(0, len(first[place]) - start) :])
    return torch.cat([torch.cat(column) for column in columns], 1)


def _row_block(name: str, start: int, stop: int) -> str:
    return f"{name}_{start}-{stop}"


def _row_blocks(kept_in: Kept | None, name: str) -> list[tuple[int, int]]:
    """Where the blocks of rows begin and end that are kept, in order."""
    found = []
    for each in kept_in.names() if kept_in else ():
        whole, _, ends = each.partition("_")
        start, _, stop = ends.partition("-")
        if whole == name and start.isdecimal() and stop.isdecimal():
            found.append((int(start), int(stop)))
    return sorted(found)


def _fitting(
    kept_in: Kept | None, name: str, shape: tuple[int, ...], dtype: torch.dtype
) -> Tensor | None:
    found = _read(kept_in, name)
    fits = found is not None and (found.shape, found.dtype) == (shape, dtype)
    return found if fits else None


def _read(kept_in: Kept | None, name: str) -> Tensor | None:
    """What was kept; None if there is nothing, or nothing that can be read."""
    return state(kept_in, name).get("kept")


def _write(kept_in: Kept | None, name: str, found: Tensor) -> None:
    keep_state(kept_in, name, {"kept": found.contiguous()})
