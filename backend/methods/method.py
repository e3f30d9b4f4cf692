"""What a method is: one value, made in the file that holds all of it.

A method's file has the request that it answers, what its result is made of, the plan, the work, the
rows of its tables and `METHOD`, and imports no torch: functions that compute do when they run.
`backend.methods.registry` lists the methods.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from backend.core.heads import Site
from backend.core.kept import Kept
from backend.core.progress import Plan, Report
from backend.core.statistics import Estimate

Finished = tuple[Any, ...]
Unfinished = Callable[[int], Kept | None]
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


def no_sites(request: Any) -> Collection[Site]:
    """Of a method that works on no heads but the circuit's."""
    return ()


def no_arguments(parser: ArgumentParser) -> None:
    """Of a method that asks for nothing of its own."""


def no_fields(options: Namespace, circuit: Any) -> Mapping[str, Any]:
    """Of a method whose arguments are called as the fields of its request."""
    return {}


def all_parts(options: Namespace) -> int | None:
    """As many as the whole result has."""
    return None


def nothing_beside(options: Namespace, request: Any, parts: Finished) -> Mapping[str, Any]:
    """Of a method whose result says all."""
    return {}


def no_remarks(request: Any, parts: Finished) -> Iterable[str]:
    """Of a method whose figures say all."""
    return ()


@dataclass(frozen=True)
class Command:
    """How a method is asked for on the command line, besides what its request's fields ask for.

    purpose, example: for its help; n_prompts: unless told otherwise; arguments(parser): adds its
    own, whose names are fields of the request, or go into fields(options, circuit), which may raise
    UserError; n_parts(options): how many parts are wanted, None for all; beside(options, request,
    parts): what is told beside the result; remarks(request, parts): lines for people.
    """

    purpose: str
    example: str
    n_prompts: int
    arguments: Callable[[ArgumentParser], None] = no_arguments
    fields: Callable[[Namespace, Any], Mapping[str, Any]] = no_fields
    n_parts: Callable[[Namespace], int | None] = all_parts
    beside: Callable[[Namespace, Any, Finished], Mapping[str, Any]] = nothing_beside
    remarks: Callable[[Any, Finished], Iterable[str]] = no_remarks


@dataclass(frozen=True)
class Method:
    """A kind of study.

    name: what its keys in the store begin with; label: what it is called on screen; request: a
    frozen dataclass, see `backend.methods.requests`; parts(request): of which kind each part of the
    result is; plan(request): the steps of every part; work: yields the parts; rows(request, place,
    part): the figures of the part at this place, the main ones first; settings(request): what
    of its own determines the result, in words; named(part, models,
    circuit): the part with other names, by the old ones, for models, and one for the circuit;
    sites(request): heads that it works on besides the circuit's; command: None where it is not
    asked for by itself.
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
    sites: Callable[[Any], Collection[Site]] = no_sites
    command: Command | None = None
