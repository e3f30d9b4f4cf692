"""Long work in the background: a page paints at once, asks how far it is, may cancel.

Every job has a thread. Small urgent ones, which someone waits for on screen, start at once; long
ones hold meanwhile, and queue for their devices: one at a time on each, in the order in which they
were asked for. So do those that prepare the Circuit page, among themselves. Jobs belong to the
server: they outlive pages and tabs, and every session sees them.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from itertools import count
from time import monotonic
from traceback import format_exception
from typing import Any

from backend.core.errors import UserError
from backend.core.pace import Pace
from backend.core.placement import CPU
from backend.core.priority import give_way, hold, look_again, urgent
from backend.core.progress import Cancelled, Report
from backend.core.read_only import check_allowed
from backend.core.tidying import tidy_up

Work = Callable[[Report], Iterator[Any]]
"""Long work, which yields each part of its result as soon as that is finished."""

Where = Callable[[], frozenset[str]]
"""Says which devices long work needs for itself, in its own thread: to know may take a while."""


def on_cpu() -> frozenset[str]:
    """Where work is that says nothing else."""
    return frozenset({CPU})


@dataclass(frozen=True)
class Kind:
    """Jobs that are treated alike: how many finished ones are kept, whether long work makes way for
    them, and whether they queue, behind others that are as urgent."""

    n_kept: int
    is_urgent: bool
    queues: bool


LONG = Kind(n_kept=20, is_urgent=False, queues=True)
"""Asked for by a button, may take hours; in the list of jobs."""
SMALL = Kind(n_kept=40, is_urgent=False, queues=True)
"""A small question that works on what long jobs work on, and so queues with them."""
QUICK = Kind(n_kept=40, is_urgent=True, queues=False)
"""A small answer that the page is waiting for."""
PREPARATION = Kind(n_kept=10, is_urgent=True, queues=True)
"""Prepares what the Circuit page needs before its first click. Several at once would need the
memory and the processor of all of them, and none would be there before the last."""


class State(Enum):
    """Where a job is between being asked for and its end."""

    queued = "queued"
    running = "running"
    finished = "finished"
    cancelled = "cancelled"
    failed = "failed"


_log = logging.getLogger(__name__)
_number = count()
_jobs: OrderedDict[Hashable, Job] = OrderedDict()
_changed = threading.Condition()


@dataclass(eq=False)
class Job:
    """One piece of work: what it is doing now, and the parts of its result so far.

    Parts stay when the work fails or is cancelled; the future holds all of them, or the error.
    title: what it is called in the list of jobs; without one it is not listed. request: what was
    asked for, so that a page can show it again. who: asked for it, for the log. devices: None while
    nobody knows. is_held: whether it lets something urgent go first.
    """

    title: str = ""
    request: Any = None
    kind: Kind = LONG
    devices: frozenset[str] | None = None
    stage: str = "Starting"
    pace: Pace = field(default_factory=Pace)
    parts: list[Any] = field(default_factory=list)
    future: Future[list[Any]] = field(default_factory=Future)
    number: int = field(default_factory=_number.__next__)
    is_held: bool = False
    who: str = ""
    _started: float | None = None
    _ended: float | None = None
    _is_cancelled: bool = False

    def report(self, stage: str, share: float) -> None:
        """Say what comes next; the place where a cancelled job stops and a long one holds."""
        self._stop_if_cancelled()
        self.stage, self.pace = stage, self.pace.told(share, monotonic())
        if not self.kind.is_urgent:
            self.is_held = True
            hold(lambda: self._is_cancelled)
            self.is_held = False
            self._stop_if_cancelled()

    @property
    def state(self) -> State:
        """Where it is now."""
        if not self.future.done():
            return State.running if self.future.running() else State.queued
        error = self.future.exception()
        if error is None:
            return State.finished
        return State.cancelled if isinstance(error, Cancelled) else State.failed

    @property
    def seconds(self) -> float:
        """How long it has been running, or ran."""
        if self._started is None:
            return 0.0
        return (self._ended or monotonic()) - self._started

    @property
    def share(self) -> float:
        """How much of it is done."""
        return self.pace.share

    @property
    def seconds_left(self) -> float | None:
        """An estimate from how fast it goes; None while that says too little."""
        return self.pace.seconds_left(monotonic())

    def cancel(self) -> None:
        """End at once if it is queued, else at the next report."""
        with _changed:
            self._is_cancelled = True
            self.stage = "Stopping after this step"
            if self.state is State.queued:
                self.future.set_exception(Cancelled())
                _changed.notify_all()
        look_again()

    def run(self, work: Work) -> None:
        """Do the work in this thread, unless it was cancelled before."""
        with _changed:
            if self.future.done():
                return
            self.future.set_running_or_notify_cancel()
            self._started = monotonic()
        with urgent() if self.kind.is_urgent else nullcontext():
            error = self._error_of(work)
        self._ended = monotonic()
        if self.kind in (LONG, PREPARATION):
            tidy_up()
        if error:
            self.future.set_exception(error)
        else:
            self.future.set_result(self.parts)
        if self.kind is not QUICK:
            what = self.title or self.stage
            _log.info("%s: %s in %.1f s, for %s", what, self.state.value, self.seconds, self.who)

    def _stop_if_cancelled(self) -> None:
        if self._is_cancelled:
            raise Cancelled

    def _error_of(self, work: Work) -> BaseException | None:
        try:
            self.report("Starting", 0.0)
            for part in work(self.report):
                self.parts.append(part)
        except BaseException as error:
            if not isinstance(error, Cancelled | UserError):
                _log.error("“%s” failed\n%s", self.title, "".join(format_exception(error)))
            # The frames of the traceback hold what filled the memory.
            error.__cause__ = error.__context__ = None
            return error.with_traceback(None)
        return None


def job(
    key: Hashable,
    work: Work,
    title: str = "",
    request: Any = None,
    kind: Kind = LONG,
    where: Where = on_cpu,
    who: str = "",
) -> Job:
    """The job of this key: the one that waits, runs or is done, or else a new one.

    The last results of each kind are kept for every page and every browser tab. Raises Refused for
    a new long one in a read-only dashboard.
    """
    with _changed:
        if key not in _jobs:
            if kind is LONG:
                check_allowed("To measure something new")
            _jobs[key] = new = Job(title, request, kind, who=who)
            begin = partial(_run_in_turn, new, where) if kind.queues else new.run
            threading.Thread(target=begin, args=(work,), daemon=True).start()
            _drop_the_oldest(kind)
        _jobs.move_to_end(key)
        return _jobs[key]


def finished(parts: Iterable[Any]) -> Job:
    """A job whose result is there already, out of a file."""
    ready = Job(stage="Read from a file", pace=Pace(share=1.0), parts=list(parts))
    ready.future.set_result(ready.parts)
    return ready


def known(key: Hashable) -> Job | None:
    """The job of this key, if there is one."""
    with _changed:
        return _jobs.get(key)


def listed() -> list[Job]:
    """All jobs that have a title, the newest first."""
    with _changed:
        titled = [each for each in _jobs.values() if each.title]
    return sorted(titled, key=lambda each: each.number, reverse=True)


def states() -> list[State]:
    """Of all jobs that are remembered."""
    with _changed:
        return [each.state for each in _jobs.values()]


def before(waiting: Job) -> list[Job]:
    """The jobs that have to end before this one may run, the first one first."""
    with _changed:
        found = [each for each in _jobs.values() if _goes_before(each, waiting)]
    return sorted(found, key=lambda each: each.number)


def n_before(waiting: Job) -> int:
    """How many jobs have to end before this one may run."""
    return len(before(waiting))


def forget(key: Hashable) -> None:
    """Drop a job that has ended, so that asking for it again starts it anew."""
    with _changed:
        if key in _jobs and _jobs[key].future.done():
            del _jobs[key]


def forget_all(is_meant: Callable[[Hashable], bool]) -> None:
    """Drop the jobs that have ended and whose keys are meant, and what they hold."""
    with _changed:
        for key in [key for key, each in _jobs.items() if each.future.done() and is_meant(key)]:
            del _jobs[key]


def _run_in_turn(new: Job, where: Where, work: Work) -> None:
    if not new.kind.is_urgent:
        give_way()
    devices: frozenset[str] = frozenset()
    with suppress(Exception):  # the work meets it, too, and says so
        devices = where()
    with _changed:
        new.devices = devices
        _changed.notify_all()
        _changed.wait_for(lambda: new.future.done() or not n_before(new))
    new.run(work)
    with _changed:
        _changed.notify_all()


def _goes_before(other: Job, waiting: Job) -> bool:
    if not other.kind.queues or other.kind.is_urgent != waiting.kind.is_urgent:
        return False
    if other.future.done() or other.number >= waiting.number:
        return False
    theirs, ours = other.devices, waiting.devices
    return theirs is None or ours is None or bool(theirs & ours)


def _drop_the_oldest(kind: Kind) -> None:
    alike = [key for key, each in _jobs.items() if each.kind is kind]
    ended = [key for key in alike if _jobs[key].future.done()]
    for key in ended[: max(0, len(alike) - kind.n_kept)]:
        del _jobs[key]
