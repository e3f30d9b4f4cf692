"""What someone waits for goes first: long work holds at its next step while it runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_MOST_HELD_S = 30.0
"""Then long work takes one step all the same: it gets on, however busy the pages are, and urgent
work that waits for something which the long work has is not stuck for ever."""

_n_urgent = 0
_changed = threading.Condition()
_here = threading.local()


@contextmanager
def urgent() -> Iterator[None]:
    """Long work holds while the block runs, in whichever thread that is."""
    global _n_urgent
    with _changed:
        _n_urgent += 1
    try:
        yield
    finally:
        with _changed:
            _n_urgent -= 1
            _changed.notify_all()


@contextmanager
def unheld() -> Iterator[None]:
    """This thread's work does not hold inside the block: urgent work may be waiting for it there,
    as for a model that is being loaded."""
    before = getattr(_here, "is_unheld", False)
    _here.is_unheld = True
    try:
        yield
    finally:
        _here.is_unheld = before


def hold(is_over: Callable[[], bool]) -> None:
    """Come back once nothing urgent runs, or it is over; never call it from urgent work."""
    if getattr(_here, "is_unheld", False):
        return
    with _changed:
        _changed.wait_for(lambda: not _n_urgent or is_over(), _MOST_HELD_S)


def look_again() -> None:
    """Make held work ask once more whether it is over."""
    with _changed:
        _changed.notify_all()
