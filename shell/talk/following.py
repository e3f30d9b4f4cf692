"""Which step of a talk the presenter is at: told by that window, read by the speaker view.

Both are windows of one server, so this process is the place. Who stepped last in a talk is its
presenter. Visitors of a read-only dashboard are none.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import time

from backend.core.read_only import is_read_only


@dataclass(frozen=True)
class Presented:
    """The step that is shown, from 0, and when (seconds since 1970) the talk began."""

    step: int
    began: float


_presented: dict[str, Presented] = {}


def tell(talk: str, step: int) -> None:
    """This step is shown now."""
    if is_read_only():
        return
    known = _presented.get(talk)
    _presented[talk] = Presented(step, known.began if known else time())


def begin(talk: str) -> None:
    """The clock of the talk starts now."""
    if is_read_only():
        return
    known = _presented.get(talk)
    _presented[talk] = Presented(known.step if known else 0, time())


def presented(talk: str) -> Presented | None:
    """What is shown of the talk; None until somebody presents it."""
    return _presented.get(talk)
