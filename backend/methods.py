"""The methods: what each is asked, what its result is made of, and the work that yields it.

Importing this module imports no torch: the works do when they begin.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backend import catalogue, shelf, store
from backend.circuit import Position
from backend.jobs import Report
from backend.keys import key_of, marks_of, ran_as
from backend.requests import (
    AccuracyRequest,
    CmapRequest,
    ComparisonRequest,
    CompletenessRequest,
    EdgesRequest,
    FaithfulnessRequest,
    MinimalityRequest,
    Prompts,
    Request,
    SetRequest,
    StageRequest,
    circuit_of,
    method_name,
    models_of,
    settings_of,
)
from backend.results import (
    AccuracyReport,
    Cmap,
    ComparedModel,
    Comparison,
    Completeness,
    Edges,
    FaithfulnessReport,
    HeadMap,
    Minimality,
    Stage,
    Transplanted,
)
from backend.runtime import at_work

if TYPE_CHECKING:
    from backend.path_patching import Progress
    from backend.subject import Subject

_TOKENS = (Position.prev_query_label, Position.query_label, Position.last)
TOKEN_WORDS = {
    "prev_query_label": "at the previous label",
    "query_label": "at the query’s label",
    "last": "at the last token",
}
"""The tokens at which circuits work, in reading order, by the names of their positions."""
Finished = tuple[Any, ...]
Work = Callable[[Any, Finished, Report], Iterator[Any]]
"""(request, parts that are there, report) -> the parts that come after them."""


@dataclass(frozen=True)
class Method:
    """A kind of study; parts: of which kind each part of a request's result is."""

    label: str
    request: type
    parts: Callable[[Any], tuple[type, ...]]
    work: Work


def method_of(request: Request) -> Method:
    """The method that answers a request."""
    return METHODS[method_name(request)]


def n_parts(request: Request) -> int:
    """How many parts its whole result has."""
    return len(method_of(request).parts(request))


def title_of(request: Request) -> str:
    """What a study is called: “CMAP, head output: Chat, Base · circuit “base” · 500 prompts, …”."""
    settings, circuit = settings_of(request), circuit_of(request)
    what = f"{method_of(request).label}, {settings}" if settings else method_of(request).label
    between = " → " if isinstance(request, CmapRequest | SetRequest) else ", "
    models = between.join(map(catalogue.label, models_of(request)))
    of = f" · circuit “{circuit.name}”" if circuit else ""
    return f"{what}: {models}{of} · {request.prompts}"


def joined(request: ComparisonRequest, parts: Sequence[ComparedModel]) -> Comparison:
    """The comparison of the models that are finished."""
    return Comparison(
        request.heads.name,
        tuple(part.figures for part in parts),
        tuple(difference for part in parts for difference in part.differences),
    )


def _accuracies(request: AccuracyRequest, done: Finished, report: Report) -> Iterator[Any]:
    for name, start, end in _each_model(request, done, report):
        from backend.reports import accuracy_report
        from backend.shelf import load

        prompts, told = (
            request.prompts,
            _told(report, f"Asking {catalogue.label(name)}", start, end),
        )
        yield accuracy_report(load(name), prompts.n, prompts.boxes, prompts.seed, told)


def _faithfulness(request: FaithfulnessRequest, done: Finished, report: Report) -> Iterator[Any]:
    for name, start, end in _each_model(request, done, report):
        from backend.reports import faithfulness_report

        told = _told(report, f"Measuring {catalogue.label(name)}", start, end)
        yield faithfulness_report(_subject(name, request.prompts), request.heads.circuit, told)


def _each_model(
    request: AccuracyRequest | FaithfulnessRequest | ComparisonRequest,
    done: Finished,
    report: Report,
) -> Iterator[tuple[str, float, float]]:
    """The models that are not done, each with the stretch of the whole work that it takes."""
    _start(report, len(done) / len(request.models))
    for place, name in enumerate(request.models):
        if place >= len(done):
            start, end = (step / len(request.models) for step in (place, place + 1))
            report(f"Loading {catalogue.label(name)}", start)
            yield name, start, end


def _comparison(request: ComparisonRequest, done: Finished, report: Report) -> Iterator[Any]:
    circuit = request.heads.circuit
    earlier: dict[str, Any] = {}
    for place, (name, start, end) in enumerate(_each_model(request, done, report), len(done)):
        from backend import compare

        if not earlier:
            earlier = {
                part.figures.name: compare.unpacked(part.answers, request.prompts.n)
                for part in done
            }
        subject = _subject(name, request.prompts)
        if not _share_tokenizer(name, request.models[0]):
            compare.same_prompts([_subject(request.models[0], request.prompts), subject])
        circuit.check(subject.loaded.shape, catalogue.label(name))
        answers = compare.answers_of(
            subject,
            circuit,
            request.prompts.seed,
            progress=_told(report, f"Measuring {catalogue.label(name)}", start, end),
            kept_in=_unfinished(request, place),
        )
        yield ComparedModel(
            compare.figures(subject, answers, compare.as_in_paper(subject, circuit, answers.whole)),
            tuple(
                compare.difference(
                    other,
                    earlier[other],
                    name,
                    answers,
                    len(request.models),
                    request.prompts.boxes,
                )
                for other in earlier
            ),
            compare.packed(answers),
        )
        earlier[name] = answers


def _transplants(request: CmapRequest, done: Finished, report: Report) -> Iterator[Any]:
    total = n_parts(request)
    _start(report, len(done) / total)
    from backend import cmap

    source, target = _pair(request, report, max(0.03, len(done) / total))
    if not done:
        request.heads.circuit.check(target.loaded.shape, catalogue.label(request.target))
        yield cmap.cmap(
            source,
            target,
            dict(request.sets) or cmap.group_sets(request.heads.circuit),
            request.part,
            _told(report, "Transplanting whole groups", 0.05, 1 / total),
            _unfinished(request, 0),
        )
    for place, position in enumerate(_TOKENS, 1):
        if place >= len(done):
            yield cmap.head_map(
                source,
                target,
                [position],
                request.part,
                _told(
                    report,
                    f"Transplanting single heads, {TOKEN_WORDS[position.name]}",
                    place / total,
                    (place + 1) / total,
                ),
                _unfinished(request, place),
            )


def _transplanted_set(request: SetRequest, _: Finished, report: Report) -> Iterator[Any]:
    report("Transplanting your set", 0.05)
    from backend import cmap

    source, target = _pair(request, report, 0.1)
    yield cmap.cmap(source, target, {"": request.sites}, request.part).sets[""]


def _stage(request: StageRequest, _: Finished, report: Report) -> Iterator[Any]:
    _start(report)
    from backend.stage_runs import stage

    yield stage(request, report, _unfinished(request))


def _minimality(request: MinimalityRequest, _: Finished, report: Report) -> Iterator[Any]:
    _start(report)
    from backend.minimality import minimality

    told = _told(report, "Removing heads", 0.1, 1)
    subject = _subject(request.model, request.prompts)
    kept_in = _unfinished(request)
    yield minimality(subject, request.heads.circuit, request.removed, told, kept_in)


def _completeness(request: CompletenessRequest, _: Finished, report: Report) -> Iterator[Any]:
    _start(report)
    from backend.completeness import completeness

    told = _told(report, "Removing sets of heads", 0.1, 1)
    subject = _subject(request.model, request.prompts)
    seed, kept_in = request.prompts.seed, _unfinished(request)
    yield completeness(subject, request.heads.circuit, request.sets, seed, told, kept_in)


def _edges(request: EdgesRequest, _: Finished, report: Report) -> Iterator[Any]:
    report("Choosing prompts that the model answers right", 0.02)
    from backend.edges import edges
    from backend.shelf import load
    from backend.stage_runs import run_pairs

    circuit, loaded = request.heads.circuit, load(request.model)
    circuit.check(loaded.shape, catalogue.label(request.model))
    told = _told(report, "Patching one edge after the other", 0.35, 1)
    pairs = run_pairs(request.model, request.prompts, report)
    with at_work(loaded.runtime):
        found = edges(pairs, circuit, request.model, told, _unfinished(request))
    yield found


def _unfinished(request: Request, part: int = 0) -> Path | None:
    """Where a part keeps what is finished of it; None while it is not known what the models are.

    None as well when they are not what is on disk any more.
    """
    marks = marks_of(request, patiently=False)
    if not marks or not ran_as(marks):
        return None
    return store.unfinished(key_of(request, marks)) / str(part)


def _pair(
    request: CmapRequest | SetRequest, report: Report, share: float
) -> tuple[Subject, Subject]:
    report("Loading the models", share)
    return _subject(request.source, request.prompts), _subject(request.target, request.prompts)


def _subject(model: str, prompts: Prompts) -> Subject:
    from backend.bench import subject

    shelf.load(model)  # Files that have changed are another model: what was kept of it goes.
    return subject(model, prompts.n, prompts.boxes, prompts.seed)


def _share_tokenizer(*models: str) -> bool:
    found = [shelf.fingerprint_of(name) for name in models]
    return None not in found and len({each.tokenizer for each in found if each}) == 1


def _start(report: Report, share: float = 0.0) -> None:
    """Say that what comes next takes seconds, if it does: the first import of torch."""
    if "torch" not in sys.modules:
        report("Starting the engine", share)


def _told(report: Report, stage: str, start: float, end: float) -> Progress:
    """Counted progress as a report of a stretch of the whole work."""
    return lambda done, total: report(stage, start + (end - start) * done / total)


METHODS = {
    "accuracy": Method(
        "Accuracy",
        AccuracyRequest,
        lambda asked: (AccuracyReport,) * len(asked.models),
        _accuracies,
    ),
    "faithfulness": Method(
        "Faithfulness",
        FaithfulnessRequest,
        lambda asked: (FaithfulnessReport,) * len(asked.models),
        _faithfulness,
    ),
    "compare": Method(
        "Compare",
        ComparisonRequest,
        lambda asked: (ComparedModel,) * len(asked.models),
        _comparison,
    ),
    "cmap": Method("CMAP", CmapRequest, lambda _: (Cmap, *[HeadMap] * len(_TOKENS)), _transplants),
    "cmap-set": Method("CMAP, one set", SetRequest, lambda _: (Transplanted,), _transplanted_set),
    "stage": Method("Discover, one stage", StageRequest, lambda _: (Stage,), _stage),
    "minimality": Method("Minimality", MinimalityRequest, lambda _: (Minimality,), _minimality),
    "completeness": Method(
        "Completeness", CompletenessRequest, lambda _: (Completeness,), _completeness
    ),
    "edges": Method("Edges", EdgesRequest, lambda _: (Edges,), _edges),
}
"""By name; what the store's keys begin with."""
