"""What a method is: one value, made in the file that holds all of it.

A method's file has the request that it answers, what its result is made of, the plan, the work, the
rows of its tables and `METHOD`, and imports no torch: functions that compute do when they run.
`backend.methods.registry` lists the methods.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from backend.core.progress import Plan, Report
from backend.core.statistics import Estimate

Finished = tuple[Any, ...]
Unfinished = Callable[[int], Path | None]
"""Where a part, by its place, keeps what is finished of it; None where nothing is kept."""
Work = Callable[[Any, Finished, Report, Unfinished], Iterator[Any]]
"""(request, parts that are there, report, unfinished) -> the parts that come after them."""


class Figure(NamedTuple):
    """One figure: of what, which, and how much."""

    item: str
    what: str
    estimate: Estimate


def no_settings(request: Any) -> str:
    """Of a method that asks for nothing besides models, circuit and prompts."""
    return ""


def as_it_is(part: Any, models: Mapping[str, str], circuit: str) -> Any:
    """A part of a result that names neither models nor a circuit."""
    return part


@dataclass(frozen=True)
class Method:
    """A kind of study.

    name: what its keys in the store begin with; label: what it is called on screen; request: a
    frozen dataclass, see `backend.methods.requests`; parts(request): of which kind each part of the
    result is; plan(request): the steps of every part; work: yields the parts; rows(request, place,
    part): the figures of the part at this place, the main ones first; settings(request): what
    of its own determines the result, in words; named(part, models,
    circuit): the part with other names, by the old ones, for models, and one for the circuit.
    """

    name: str
    label: str
    request: type
    parts: Callable[[Any], tuple[type, ...]]
    plan: Callable[[Any], Plan]
    work: Work
    rows: Callable[[Any, int, Any], Iterator[Figure]]
    settings: Callable[[Any], str] = no_settings
    named: Callable[[Any, Mapping[str, str], str], Any] = as_it_is
