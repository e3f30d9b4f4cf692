"""What the processes of a crew share: finished blocks, who makes which, and how far they are.

It is an actor of its own, beside the process that asked; that one takes what is new from here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Blocks = Mapping[str, bytes]


class News(NamedTuple):
    """What has come since it was asked for last: blocks by name, parts as JSON by their place, what
    is done now, the share of the whole that is done, and how many processes work."""

    blocks: Blocks
    parts: Mapping[int, Any]
    stage: str
    share: float
    n_working: int


class Offer(NamedTuple):
    """The block that a worker is to make, if there is one; whether all are there; and how often
    the sizes of batches were changed."""

    block: str | None
    are_all_there: bool
    n_changes: int


@dataclass
class Board:
    """blocks: those that are there, by name."""

    blocks: dict[str, bytes]
    _made_by: dict[str, int] = field(default_factory=dict)
    _latest: dict[int, str] = field(default_factory=dict)
    _sizes: dict[str, int] = field(default_factory=dict)
    _n_changes: int = 0
    _new_blocks: dict[str, bytes] = field(default_factory=dict)
    _new_parts: dict[int, Any] = field(default_factory=dict)
    _stage: str = "Starting"
    _share: float = 0.0

    def begin(self, worker: int) -> int:
        """A worker begins, perhaps anew: what it was making is free. How often sizes changed."""
        self.release(worker)
        self._latest[worker] = ""
        return self._n_changes

    def release(self, worker: int) -> None:
        """A worker has ended: what it was making is free again."""
        self._latest.pop(worker, None)
        self._made_by = {name: each for name, each in self._made_by.items() if each != worker}

    def names(self, place: str) -> list[str]:
        """The blocks in a place, without its name."""
        return [name.removeprefix(place) for name in self.blocks if name.startswith(place)]

    def read(self, name: str) -> bytes | None:
        """A block, if it is there."""
        return self.blocks.get(name)

    def write(self, name: str, data: bytes) -> None:
        """Take a block."""
        self._made_by.pop(name, None)
        self.blocks[name] = self._new_blocks[name] = data

    def take(self, names: Sequence[str], worker: int) -> Offer:
        """One of the blocks that nobody makes, which is this worker's now.

        Of the batch that it was at, whose runs it has; else of one that nobody is at.
        """
        lacking = [name for name in names if name not in self.blocks]
        free = [name for name in lacking if name not in self._made_by]
        if not free:
            return Offer(None, not lacking, self._n_changes)
        taken, mine = {*map(_batch, self._made_by)}, self._latest.get(worker)

        def rank(name: str) -> int:
            batch = _batch(name)
            return 0 if batch == mine else 1 + (batch in taken)

        block = min(free, key=rank)
        self._made_by[block], self._latest[worker] = worker, _batch(block)
        return Offer(block, False, self._n_changes)

    def agree(self, what: str, size: int) -> int:
        """How many prompts are run at once: as many as fitted where that was first asked."""
        return self._sizes.setdefault(what, size)

    def shrink(self) -> bool:
        """Half as many from now on, as some memory was full; whether that can be."""
        if all(size == 1 for size in self._sizes.values()):
            return False
        self._sizes = {what: max(1, size // 2) for what, size in self._sizes.items()}
        self._n_changes += 1
        return True

    def finish(self, place: int, part: Any) -> None:
        """Take a part of the result; of several, which are the same, the latest."""
        self._new_parts[place] = part

    def report(self, stage: str, share: float) -> None:
        """Take how far a worker is; the furthest counts."""
        if share >= self._share:
            self._stage, self._share = stage, share

    def news(self) -> News:
        """What is new."""
        new = self._new_blocks, self._new_parts
        self._new_blocks, self._new_parts = {}, {}
        return News(*new, self._stage, self._share, len(self._latest))


def _batch(name: str) -> str:
    """The batch of prompts that a block is of."""
    return name.rpartition("/")[2].partition("_")[0]
