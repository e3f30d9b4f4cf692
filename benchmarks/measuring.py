"""Seconds and memory: of the processor on a CPU, of the clock on a GPU."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

_ENOUGH_S = 2.0


def now(device: torch.device) -> float:
    """Seconds that mean something as a difference, once all that was asked so far is done.

    On a CPU they are the processor's, of all threads together: on a shared machine the clock on the
    wall measures the neighbours.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()


def timed(device: torch.device, work: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    """Seconds it took, and what it gave."""
    start = now(device)
    result = work(*arguments)
    return now(device) - start, result


def typical_seconds(device: torch.device, work: Callable[[], Any], most: int = 9) -> float:
    """Median of up to `most` runs, after one to warm up; of long ones, fewer."""
    work()
    times: list[float] = []
    while len(times) < most and sum(times) < _ENOUGH_S:
        times.append(timed(device, work)[0])
    return statistics.median(times)


def forget_peak(device: torch.device) -> None:
    """Start anew with the greatest use of a GPU's memory; a process's cannot be forgotten."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> str:
    """The greatest use of memory so far, in words."""
    if device.type == "cuda":
        return f"{torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB on the GPU"
    kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return f"{kibibytes / 2**20:.1f} GiB, of the whole process so far"
