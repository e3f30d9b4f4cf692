"""Long work in one background thread: the page paints at once, asks how far it is, may cancel."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

Report = Callable[[str, float], None]
"""Called by the work with what it does next and the share that is done; raises Cancelled."""

Work = Callable[[Report], Iterator[Any]]
"""Long work, which yields each part of its result as soon as that is finished."""

_KEPT = 12
_workers = ThreadPoolExecutor(max_workers=1, thread_name_prefix="circuit-explorer")
_jobs: OrderedDict[Hashable, Job] = OrderedDict()
_lock = threading.Lock()


class Cancelled(Exception):
    """The work was stopped by its user."""


@dataclass(eq=False)
class Job:
    """One piece of work: what it is doing now, and the parts of its result so far.

    Parts stay when the work fails or is cancelled; the future holds all of them, or the error.
    """

    stage: str = "Waiting for the work before it"
    share: float = 0.0
    started: float = field(default_factory=monotonic)
    parts: list[Any] = field(default_factory=list)
    future: Future[list[Any]] = field(default_factory=Future)
    _cancel: threading.Event = field(default_factory=threading.Event)

    def report(self, stage: str, share: float) -> None:
        """Say what comes next; the place where a cancelled job stops."""
        if self._cancel.is_set():
            raise Cancelled
        self.stage, self.share = stage, share

    @property
    def seconds(self) -> float:
        """How long ago the job was asked for."""
        return monotonic() - self.started

    @property
    def seconds_left(self) -> float | None:
        """An estimate from the share that is done; None while that says too little."""
        if self.share < 0.05:
            return None
        return self.seconds * (1 - self.share) / self.share

    def cancel(self) -> None:
        """Stop at the next report."""
        self._cancel.set()


def job(key: Hashable, work: Work) -> Job:
    """The job of this key: the one that runs or is done, or else a new one.

    The last results are kept for every page and every browser tab.
    """
    with _lock:
        if key not in _jobs:
            _jobs[key] = new = Job()
            new.future = _workers.submit(_run, work, new)
            for old in [k for k, j in _jobs.items() if j.future.done()][
                : max(0, len(_jobs) - _KEPT)
            ]:
                del _jobs[old]
        _jobs.move_to_end(key)
        return _jobs[key]


def finished(parts: Iterable[Any]) -> Job:
    """A job whose result is there already, out of a file."""
    ready = Job("Read from a file", 1.0, parts=list(parts))
    ready.future.set_result(ready.parts)
    return ready


def known(key: Hashable) -> Job | None:
    """The job of this key, if there is one."""
    with _lock:
        return _jobs.get(key)


def forget(key: Hashable) -> None:
    """Drop a job, so that asking for it again starts it anew."""
    with _lock:
        _jobs.pop(key, None)


def forget_all(is_meant: Callable[[Hashable], bool]) -> None:
    """Drop the jobs whose keys are meant, and what they hold."""
    with _lock:
        for key in [key for key in _jobs if is_meant(key)]:
            del _jobs[key]


def _run(work: Work, new: Job) -> list[Any]:
    new.report("Starting", 0.0)
    for part in work(new.report):
        new.parts.append(part)
    return new.parts
