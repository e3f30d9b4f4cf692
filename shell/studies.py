"""What the pages measure on request: a request, the work on it, and what is shown meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import streamlit as st

from backend import catalogue, jobs
from backend.circuit import Circuit, Position, Site
from backend.results import Cmap, Comparison, Difference, HeadMap, ModelFigures, Part, Transplanted
from backend.setting import Setting
from shell.history import NodeKey

if TYPE_CHECKING:
    from backend.compare import ModelAnswers
    from backend.path_patching import Progress
    from backend.subject import Subject


class Titled(Hashable, Protocol):
    """What can be asked for in a job."""

    @property
    def title(self) -> str:
        """What the job is called in the list of jobs."""


Request = TypeVar("Request")
Asked = TypeVar("Asked", bound=Titled)


@dataclass(frozen=True)
class Heads:
    """A circuit as a value that can be a key."""

    name: str
    members: frozenset[NodeKey]

    @property
    def circuit(self) -> Circuit:
        """The same as a circuit."""
        return Circuit({}, self.name).keep(self.members)


@dataclass(frozen=True)
class Prompts:
    """Which prompts every model is asked."""

    n: int
    boxes: int
    seed: int

    def __str__(self) -> str:
        return f"{self.n} prompts, seed {self.seed}, {self.boxes} boxes"


def prompts_of(setting: Setting) -> Prompts:
    """The prompts of a setting."""
    return Prompts(setting.n, setting.boxes, setting.seed)


@dataclass(frozen=True)
class ComparisonRequest:
    """One circuit in many models."""

    models: tuple[str, ...]
    heads: Heads
    prompts: Prompts

    @property
    def title(self) -> str:
        """“Compare: Base, Chat · circuit “base” · 500 prompts, …”."""
        models = ", ".join(map(catalogue.label, self.models))
        return f"Compare: {models} · circuit “{self.heads.name}” · {self.prompts}"


@dataclass(frozen=True)
class ComparedModel:
    """A finished model of a comparison, and how far it is above those before it."""

    figures: ModelFigures
    differences: tuple[Difference, ...]


@dataclass(frozen=True)
class CmapRequest:
    """A circuit's heads, and every head, out of one model into another."""

    source: str
    target: str
    heads: Heads
    part: Part
    prompts: Prompts

    @property
    def title(self) -> str:
        """“CMAP: Chat → Base, head output · circuit “base” · 500 prompts, …”."""
        pair = " → ".join(map(catalogue.label, (self.source, self.target)))
        return f"CMAP: {pair}, {self.part.value} · circuit “{self.heads.name}” · {self.prompts}"


@dataclass(frozen=True)
class SetRequest:
    """One set of heads out of one model into another."""

    source: str
    target: str
    sites: frozenset[Site]
    part: Part
    prompts: Prompts


@dataclass(frozen=True)
class Study(Generic[Request]):
    """What was asked for, and the job that does it."""

    request: Request
    job: jobs.Job


def start(name: str, request: Asked, work: Callable[[Asked, jobs.Report], Iterator]) -> None:
    """Begin a study, or find the one that runs or is done; one that failed begins anew."""
    known = jobs.known(request)
    if known and known.future.done() and known.future.exception():
        jobs.forget(request)
    job = jobs.job(request, lambda report: work(request, report), request.title, request)
    st.session_state[name] = Study(request, job)


def latest(name: str, request: Request) -> Study[Request] | None:
    """The study of this request, also out of another tab, or else the one shown before it."""
    shown: Study[Request] | None = st.session_state.get(name)
    if shown and shown.request == request:
        return shown
    known = jobs.known(request)
    if known:
        st.session_state[name] = shown = Study(request, known)
    return shown


def compare_models(request: ComparisonRequest, report: jobs.Report) -> Iterator[ComparedModel]:
    """Yield each model's row of the comparison as soon as it is measured."""
    report("Starting the engine", 0.01)
    from backend import compare

    circuit, first = request.heads.circuit, None
    finished: dict[str, ModelAnswers] = {}
    for done, name in enumerate(request.models):
        start, end = (step / len(request.models) for step in (done, done + 1))
        report(f"Loading {catalogue.label(name)}", max(start, 0.02))
        subject = _subject(name, request.prompts)
        first = first or subject
        compare.same_prompts([first, subject])
        circuit.check(subject.loaded.shape, catalogue.label(name))
        answers = compare.answers_of(
            subject,
            circuit,
            request.prompts.seed,
            progress=_told(report, f"Measuring {catalogue.label(name)}", start, end),
        )
        yield ComparedModel(
            compare.figures(subject, answers, compare.as_in_paper(subject, circuit, answers.whole)),
            tuple(compare.difference(other, finished[other], name, answers) for other in finished),
        )
        finished[name] = answers


def joined(request: ComparisonRequest, parts: list[ComparedModel]) -> Comparison:
    """The comparison of the models that are finished."""
    return Comparison(
        request.heads.name,
        tuple(part.figures for part in parts),
        tuple(difference for part in parts for difference in part.differences),
    )


def transplant(request: CmapRequest, report: jobs.Report) -> Iterator[Cmap | HeadMap]:
    """Yield what whole groups do, then a map of single heads for each token."""
    report("Starting the engine", 0.01)
    from backend import cmap

    source, target = _pair(request, report)
    n_parts = 1 + len(_TOKENS)
    yield cmap.cmap(
        source,
        target,
        cmap.group_sets(request.heads.circuit),
        request.part,
        _told(report, "Transplanting whole groups", 0.05, 1 / n_parts),
    )
    for done, position in enumerate(_TOKENS, 1):
        yield cmap.head_map(
            source,
            target,
            [position],
            request.part,
            _told(
                report,
                f"Transplanting single heads, {TOKEN_WORDS[position.name]}",
                done / n_parts,
                (done + 1) / n_parts,
            ),
        )


def transplant_set(request: SetRequest, report: jobs.Report) -> Iterator[Transplanted]:
    """Yield what this one set of heads does."""
    report("Transplanting your set", 0.05)
    from backend import cmap

    source, target = _pair(request, report)
    yield cmap.cmap(source, target, {"": request.sites}, request.part).sets[""]


_TOKENS = (Position.prev_query_label, Position.query_label, Position.last)
TOKEN_WORDS = {
    "prev_query_label": "at the previous label",
    "query_label": "at the query’s label",
    "last": "at the last token",
}
"""The tokens at which circuits work, in reading order, by the names of their positions."""


def _pair(request: CmapRequest | SetRequest, report: jobs.Report) -> tuple[Subject, Subject]:
    report("Loading the models", 0.03)
    return _subject(request.source, request.prompts), _subject(request.target, request.prompts)


def _subject(model: str, prompts: Prompts) -> Subject:
    from backend.bench import subject

    return subject(model, prompts.n, prompts.boxes, prompts.seed)


def _told(report: jobs.Report, stage: str, start: float, end: float) -> Progress:
    """Counted progress as a report of a stretch of the whole work."""
    return lambda done, total: report(stage, start + (end - start) * done / total)
