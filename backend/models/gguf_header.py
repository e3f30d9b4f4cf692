"""What a GGUF file says of itself, held against what it has room for (no torch).

The `gguf` package trusts a file: what it counts is read, though the file ends before, or is a few
bytes that count to a trillion. Here, nothing is read past the end, and not without end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from gguf import GGUFReader

_MOST_READS = 5_000_000
"""Twice what the largest vocabulary in use takes, with its merges."""
_WHOLE = "F32"


@dataclass(frozen=True)
class Header:
    """A GGUF file's fields, and the type and shape of each tensor, rows first."""

    fields: Mapping[str, Any]
    types: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]

    @property
    def architecture(self) -> str:
        """The architecture, as llama.cpp calls it; empty if the file has none."""
        return str(self.fields.get("general.architecture", ""))

    @property
    def n_numbers(self) -> int:
        """How many numbers all tensors are."""
        return sum(map(prod, self.shapes.values()))

    @property
    def quantisation(self) -> str:
        """The types of its tensors but float32, the one of most numbers first."""
        counts: Counter[str] = Counter()
        for name, kind in self.types.items():
            counts[kind] += prod(self.shapes[name])
        kinds = [kind for kind, _ in counts.most_common() if kind != _WHOLE]
        *others, last = kinds or [_WHOLE]
        return f"{', '.join(others)} and {last}" if others else last


def header_of(path: Path) -> Header:
    """The header of a GGUF file.

    Raises ValueError, KeyError, IndexError, OverflowError or RecursionError for a file that is
    damaged, cut off or none at all.
    """
    reader = _Bounded(path)
    return Header(
        {name: field.contents() for name, field in reader.fields.items()},
        {tensor.name: tensor.tensor_type.name for tensor in reader.tensors},
        {tensor.name: tuple(map(int, reversed(tensor.shape))) for tensor in reader.tensors},
    )


class _Bounded(GGUFReader):
    """Reads no byte that the file has not, and no more than a model's header takes."""

    _n_reads = 0

    def _get(self, offset: int, dtype: Any, count: int = 1, override_order: Any = None) -> Any:
        found = super()._get(int(offset), dtype, int(count), override_order)
        if len(found) < int(count):
            raise ValueError("it ends before what it says it holds")
        self._n_reads += 1
        if self._n_reads > _MOST_READS:
            raise ValueError("its header is longer than any model’s")
        return found
