"""Processes that stay for the next study, with their models: many are shorter than to begin.

One study at a time has them. They go when nobody has needed them for a while, when others are
needed than were begun, and when a study does not end well. Ray ends them with this process.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Hashable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from backend.cluster.joining import join, leave
from backend.cluster.where import Cluster
from backend.core.progress import Report

_LOOK_S = 0.2
_IDLE_S = 60.0
"""For so long they keep what they have of the memory and of the GPUs."""


@dataclass(frozen=True)
class Terms:
    """What processes are begun for. settings: of this tool, in the environment."""

    where: Cluster
    device: str
    settings: frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Kept:
    """Ray, joined, and the processes that have nothing to do, by where they are."""

    terms: Terms
    ray: Any
    idle: defaultdict[Hashable, list[Any]] = field(default_factory=lambda: defaultdict(list))


@contextmanager
def kept(terms: Terms, report: Report) -> Iterator[Kept]:
    """What is kept for these terms, for one study at a time.

    Raises UserError where there is no Ray, or no such cluster.
    """
    global _kept
    while not _lock.acquire(timeout=_LOOK_S):
        report("Waiting for the cluster", 0.0)
    with _at_work():
        if _kept and _kept.terms != terms:
            _end()
        if not _kept:
            report(f"Joining {terms.where}", 0.0)
            _kept = Kept(terms, join(terms.where))
        try:
            yield _kept
        except BaseException:
            _end()
            raise


def ask(what: str, *asked: Any) -> Any:
    """What one of those that stayed answers, by a method of it; None where there is none.

    Waits while a study is at work there.
    """
    if not _kept:
        return None
    _lock.acquire()
    with _at_work():
        idle = [actor for actors in _kept.idle.values() for actor in actors] if _kept else []
        if not _kept or not idle:
            return None
        with suppress(_kept.ray.exceptions.RayError):  # it is gone meanwhile
            return _kept.ray.get(getattr(idle[0], what).remote(*asked))
    return None


def let_go() -> None:
    """End those that have nothing to do, and leave the cluster, unless a study is at work there."""
    if _lock.acquire(blocking=False):
        try:
            _end()
        finally:
            _lock.release()


@contextmanager
def _at_work() -> Iterator[None]:
    """Until this ends nothing is let go; then the time begins anew. Gives back the lock."""
    global _timer
    _timer.cancel()
    try:
        yield
    finally:
        _timer = threading.Timer(_IDLE_S, let_go)
        _timer.daemon = True
        _timer.start()
        _lock.release()


def _end() -> None:
    global _kept
    if not _kept:
        return
    ended, _kept = _kept, None
    for actor in (actor for actors in ended.idle.values() for actor in actors):
        with suppress(Exception):  # it may be gone
            ended.ray.kill(actor)
    leave(ended.ray)


_lock = threading.Lock()
_kept: Kept | None = None
_timer = threading.Timer(_IDLE_S, let_go)
