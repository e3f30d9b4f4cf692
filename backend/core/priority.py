"""What someone waits for goes first: long work holds at its next step while it runs.

Other processes that share `cache/local`, as commands, hold a moment at each click, too: a mark in
their common folder is touched whenever something urgent begins or ends.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from time import monotonic, monotonic_ns, sleep

from backend.core.errors import UserError
from backend.core.files import LOCAL, MB, read_text, write_atomically
from backend.core.runtime import standing_aside

TURNS = LOCAL / "turns"
"""Where processes that share devices tell each other what they do."""

_MOST_HELD_S = 30.0
"""Then long work takes one step all the same: it gets on, however busy the pages are, and urgent
work that waits for something which the long work has is not stuck for ever."""

_MOMENT_S = 0.5
"""How long a mark holds others: clicks in a talk come one after the other."""

_NICE = 10
"""Against the usual 0, about a tenth of a contended processor."""

_DRAWN_S = 3.0
"""How long a browser takes to load and draw a page that it has not seen, on two cores at most."""

_n_urgent = 0
_expected_until = float("-inf")
"""When a browser that has been sent the dashboard will have drawn it."""
_seen = "", float("-inf")
"""The mark as it was last found, and when it was found so first."""
_changed = threading.Condition()
_here = threading.local()


@contextmanager
def urgent() -> Iterator[None]:
    """Long work holds while the block runs, in whichever thread that is."""
    _count(+1)
    _mark()
    try:
        yield
    finally:
        _mark()
        _count(-1)


def expect_browser() -> None:
    """Long work holds until a browser that asks for the dashboard now has had time to draw it: it
    mostly runs on this machine's processors, too."""
    global _expected_until
    with _changed:
        _expected_until = monotonic() + _DRAWN_S


def give_way() -> None:
    """From here on, this thread and those that it starts, as torch's, get the processors that
    others leave: pages, their browsers, and whatever else runs. Where threads have no priority of
    their own, that is on all systems but Linux, nothing changes."""
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


@contextmanager
def unhurried() -> Iterator[None]:
    """Inside a block of this thread that is urgent: long work goes on meanwhile."""
    depth = getattr(_here, "n_urgent", 0)
    _count(-depth)
    try:
        yield
    finally:
        _count(depth)


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
    """Come back once nothing urgent runs and no browser is expected, or it is over; never call it
    from urgent work."""
    if getattr(_here, "is_unheld", False):
        return
    until = monotonic() + _MOST_HELD_S
    with standing_aside(), _changed:
        while not is_over() and (wait := min(until, _free_at()) - monotonic()) > 0:
            _changed.wait(wait)


def _free_at() -> float:
    """When long work may go on, as far as is known now."""
    return float("inf") if _n_urgent else _expected_until


def hold_for_others(told: Callable[[], None]) -> None:
    """Come back once no other process has done anything urgent for a moment; `told` if it has."""
    until = monotonic() + _MOST_HELD_S
    if _is_marked_by_others():
        told()
    with standing_aside():
        while _is_marked_by_others() and monotonic() < until:
            sleep(_MOMENT_S / 10)


def _count(change: int) -> None:
    global _n_urgent
    _here.n_urgent = getattr(_here, "n_urgent", 0) + change
    with _changed:
        _n_urgent += change
        _changed.notify_all()


def look_again() -> None:
    """Make held work ask once more whether it is over."""
    with _changed:
        _changed.notify_all()


def _mark() -> None:
    mark = TURNS / "urgent"
    with suppress(OSError):
        if TURNS.is_dir():  # otherwise nobody else has ever been there
            write_atomically(mark, f"{os.getpid()} {monotonic_ns()}")


def _is_marked_by_others() -> bool:
    """Whether the mark has changed a moment ago, by this process's clock alone."""
    global _seen
    try:
        mark = read_text(TURNS / "urgent", MB)
    except UserError:
        return False
    if mark != _seen[0]:
        _seen = mark, monotonic()
    return monotonic() - _seen[1] < _MOMENT_S and mark.split()[:1] != [str(os.getpid())]
