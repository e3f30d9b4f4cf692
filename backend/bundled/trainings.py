"""A training: what it says while it runs, and what comes of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Report = Callable[[str], None]


@dataclass(frozen=True)
class Training:
    """A model and how it came about; `losses` are (step, mean loss on answers since the last)."""

    model: Any
    steps: int
    losses: tuple[tuple[int, float], ...]


def named(name: str, report: Report) -> Report:
    """Reports with a name before each line."""
    return lambda line: report(f"{name}, {line}")


def printer() -> Report:
    """Prints lines with the time since the start."""
    start = time.monotonic()
    return lambda line: print(f"{(time.monotonic() - start) / 60:5.1f} min  {line}", flush=True)
