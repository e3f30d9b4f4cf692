"""Switches of torch under which a model works: set on entering work with it, put back afterwards.

TF32 holds for every thread of the process. Work that wants it otherwise waits until the threads at
work have left, or stand aside, as long work does at each step; whoever came first goes first. The
number of threads is each thread's own: a count that is set in one does not reach another that has
asked for its own before. Importing this module imports no torch.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_TINY = 10_000_000


@dataclass(frozen=True)
class Runtime:
    """tf32: whether a GPU may multiply float32 with 10-bit mantissas; n_threads: on the CPU."""

    tf32: bool
    n_threads: int


def runtime_for(n_parameters: int, tf32: bool) -> Runtime:
    """What serves a model best: on tensors as small as a tiny one's, threads cost more than they
    bring."""
    return Runtime(tf32, 1 if n_parameters < _TINY else _most_threads())


def _most_threads() -> int:
    """One for each core, or as many as OMP_NUM_THREADS says: where cores are shared with other
    work, threads wait for each other, and two are many times slower than one."""
    said = os.environ.get("OMP_NUM_THREADS", "")
    return int(said) if said.isdecimal() and int(said) else os.cpu_count() or 1


_changed = threading.Condition()
_waiting: deque[object] = deque()
_n_at_work = 0
_shared_tf32 = False
_before_all = (False, False)
_here = threading.local()


@contextmanager
def at_work(runtime: Runtime | None) -> Iterator[None]:
    """In the block torch runs as this model wants it, in this thread; None leaves all as it is.

    Inside another block, the other one stands aside.
    """
    outer: Runtime | None = getattr(_here, "runtime", None)
    if runtime is None or runtime == outer:
        yield
        return
    import torch

    # A thread that has not asked takes the count that was last set in any thread.
    n_threads = torch.get_num_threads()
    with standing_aside():
        _enter(runtime)
        torch.set_num_threads(runtime.n_threads)
        try:
            yield
        finally:
            torch.set_num_threads(n_threads)
            _leave()


@contextmanager
def standing_aside() -> Iterator[None]:
    """In the block this thread is not at work, and others may be who want torch otherwise."""
    runtime: Runtime | None = getattr(_here, "runtime", None)
    if runtime is None:
        yield
        return
    _leave()
    try:
        yield
    finally:
        _enter(runtime)


def _enter(runtime: Runtime) -> None:
    global _n_at_work, _shared_tf32, _before_all
    me = object()
    with _changed:
        _waiting.append(me)
        try:
            _changed.wait_for(
                lambda: _waiting[0] is me and (not _n_at_work or _shared_tf32 == runtime.tf32)
            )
        finally:
            _waiting.remove(me)
            _changed.notify_all()
        if not _n_at_work:
            _before_all = _set_tf32(runtime.tf32, runtime.tf32)
        _shared_tf32 = runtime.tf32
        _n_at_work += 1
    _here.runtime = runtime


def _leave() -> None:
    global _n_at_work
    _here.runtime = None
    with _changed:
        _n_at_work -= 1
        if not _n_at_work:
            _set_tf32(*_before_all)
        _changed.notify_all()


def _set_tf32(matmul: bool, cudnn: bool) -> tuple[bool, bool]:
    """Set what holds from now on, and give what did, for matrix products and for cuDNN."""
    from torch import backends

    before = backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32
    backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32 = matmul, cudnn
    return before
