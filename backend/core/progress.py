"""How far long work is: steps of it, and the share of a whole study whose costs are planned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import NamedTuple

Progress = Callable[[float, float], None]
"""(done, in all), in any unit; called between steps, and may raise to cancel."""

Report = Callable[[str, float], None]
"""(what is done now, the share of the whole that is done); may hold, and may raise to cancel."""


class Cancelled(Exception):
    """The work was stopped by its user."""


class Step(NamedTuple):
    """A step of a part of a study, in words, and its cost (see `backend.engine.costs`)."""

    what: str
    cost: float


Plan = Sequence[Sequence[Step]]
"""The steps of each part of a study."""


def silent(done: float, total: float) -> None:
    """Progress that nobody asked about."""


def between(progress: Progress, start: float, end: float) -> Progress:
    """The progress of a part of the work, from one share of it to another."""
    return lambda done, total: progress(start + (end - start) * done / total, 1)


def consecutive(progress: Progress, costs: Sequence[float]) -> list[Progress]:
    """The progress of each of some parts of the work, one after the other, that cost so much."""
    ends = [*accumulate(costs)]
    starts = [0.0, *ends]
    return [
        between(progress, s / ends[-1], e / ends[-1]) for s, e in zip(starts, ends, strict=False)
    ]


def cost_of(plan: Plan) -> float:
    """Of all its steps."""
    return sum(step.cost for part in plan for step in part)


def step_of(report: Report, plan: Plan, part: int, number: int) -> Progress:
    """The progress of one step of a part, told as that of the whole plan."""
    before = cost_of([*plan[:part], plan[part][:number]])
    step, whole = plan[part][number], cost_of(plan)
    return lambda done, total: report(step.what, (before + step.cost * done / total) / whole)
