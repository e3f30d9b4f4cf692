"""The methods as studies: what is asked yields its parts, each kept in the store once finished.

What is stored already is not computed again, neither by a page nor by the command line, and a study
that was cut off goes on after its last finished part. Importing this module imports no torch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from time import monotonic
from typing import TYPE_CHECKING, Any

from backend import catalogue, store
from backend.circuit import Position
from backend.errors import UserError
from backend.fingerprints import Fingerprint, fingerprint
from backend.jobs import Report
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
    models_of,
    renamed,
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
from backend.saved import plain, revived

if TYPE_CHECKING:
    from backend.path_patching import Progress
    from backend.subject import Subject

_log = logging.getLogger(__name__)
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

    name: str
    label: str
    request: type
    parts: Callable[[Any], tuple[type, ...]]
    work: Work


@dataclass(frozen=True)
class Stored:
    """What the store has of a request, in the request's own names for models and circuit."""

    request: Request
    parts: Finished
    entry: store.Entry


def run(request: Request, report: Report) -> Iterator[Any]:
    """Yield the parts of a study: those that are stored, then the rest, stored as they come.

    Raises UserError for what cannot be measured; the parts before it are kept.
    """
    stored = find(request)
    parts = stored.parts if stored else ()
    yield from parts
    if len(parts) == n_parts(request):
        return
    before = stored.entry.header.seconds if stored else 0.0
    started = monotonic()
    for part in method_of(request).work(request, parts, report):
        parts = (*parts, part)
        _keep(request, parts, before + monotonic() - started)
        yield part


def find(request: Request, patiently: bool = True) -> Stored | None:
    """What the store has of this request; None as well while a model's files are not all here.

    Unless asked `patiently`, None when gigabytes would have to be read to know.
    """
    marks = _marks(request, patiently)
    entry = store.find(_key(request, marks)) if marks else None
    if not entry:
        return None
    try:
        return replace(read(entry), request=request, parts=_parts(entry, request))
    except UserError as error:
        store.distrust(entry, str(error))
        return None


def read(entry: store.Entry) -> Stored:
    """What an entry is of, also of models that are not on this machine.

    Raises UserError when it does not hold what its header says.
    """
    method = METHODS.get(entry.header.method)
    if method is None:
        raise UserError(f"There is no method “{entry.header.method}”. Update this tool.")
    request: Request = revived(method.request, entry.header.request)
    names = tuple(mark.name for mark in entry.header.models)
    if names != models_of(request):
        raise UserError("Its models are not those of its request. Compute it again.")
    return Stored(request, _parts(entry, request), entry)


def as_data(request: Request, parts: Finished) -> dict[str, Any]:
    """A result as its file in the store has it, be it stored or not."""
    stored = find(request)
    if stored and len(stored.parts) >= len(parts):
        return store.as_data(stored.entry.header, stored.entry.parts)
    header = _header(request, 0.0)
    return store.as_data(header, plain(parts)) if header else {"parts": plain(parts)}


def identity(request: Request) -> str | None:
    """The key of a request; None while a model's files are not all here, or not read yet."""
    marks = _marks(request, patiently=False)
    return _key(request, marks) if marks else None


def n_parts(request: Request) -> int:
    """How many parts its whole result has."""
    return len(method_of(request).parts(request))


def method_of(request: Request) -> Method:
    """The method that answers a request."""
    (method,) = (each for each in METHODS.values() if each.request is type(request))
    return method


def joined(request: ComparisonRequest, parts: Sequence[ComparedModel]) -> Comparison:
    """The comparison of the models that are finished."""
    return Comparison(
        request.heads.name,
        tuple(part.figures for part in parts),
        tuple(difference for part in parts for difference in part.differences),
    )


def _marks(request: Request, patiently: bool) -> tuple[store.ModelMark, ...] | None:
    marks = []
    for name in models_of(request):
        try:
            found = fingerprint(name, patiently)
        except (UserError, OSError):
            return None  # loading says what is wrong with it
        if found is None:
            return None
        marks.append(store.ModelMark(name, catalogue.label(name), found))
    return tuple(marks)


def _key(request: Request, marks: Sequence[store.ModelMark]) -> str:
    """Models count by what they are and circuits by their heads, whatever they are called."""
    nameless = renamed(request, [str(mark.fingerprint) for mark in marks], "")
    return store.key_of(method_of(request).name, plain(nameless))


def _keep(request: Request, parts: Finished, seconds: float) -> None:
    """Store the parts; a result that cannot be written is still a result."""
    header = _header(request, seconds)
    if header:
        try:
            store.write(header, plain(parts))
        except OSError as error:
            _log.warning("The result cannot be kept in %s (%s).", store.RESULTS, error.strerror)
        store.forget_unfinished(header.key)


def _header(request: Request, seconds: float) -> store.Header | None:
    marks = _marks(request, patiently=True)
    if not marks:
        return None
    key, name = _key(request, marks), method_of(request).name
    return store.new_header(key, name, marks, plain(request), n_parts(request), seconds)


def _parts(entry: store.Entry, request: Request) -> Finished:
    """The parts of an entry, checked, with the request's names in place of the entry's."""
    kinds = METHODS[entry.header.method].parts(request)
    if len(kinds) != entry.header.n_parts:
        raise UserError("It has another number of parts than its request. Compute it again.")
    names = dict(zip((m.name for m in entry.header.models), models_of(request), strict=True))
    circuit = circuit_of(request)
    try:
        return tuple(
            _named(revived(kind, data), names, circuit.name if circuit else "")
            for kind, data in zip(kinds, entry.parts, strict=False)
        )
    except KeyError as error:
        raise UserError(f"It is about another model, {error}. Compute it again.") from error


def _named(part: Any, names: Mapping[str, str], circuit: str) -> Any:
    match part:
        case ComparedModel():
            return replace(
                part,
                figures=replace(part.figures, name=names[part.figures.name]),
                differences=tuple(
                    replace(each, first=names[each.first], second=names[each.second])
                    for each in part.differences
                ),
            )
        case Cmap() | HeadMap():
            return replace(part, source=names[part.source], target=names[part.target])
        case Minimality() | Completeness() | Edges():
            return replace(part, model=names[part.model], circuit=circuit)
    return part


def _accuracies(request: AccuracyRequest, done: Finished, report: Report) -> Iterator[Any]:
    for name, start, _ in _each_model(request, done, report):
        report(f"Asking {catalogue.label(name)}", start)
        from backend.bench import load
        from backend.reports import accuracy_report

        prompts = request.prompts
        yield accuracy_report(load(name), prompts.n, prompts.boxes, prompts.seed)


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
    report("Starting the engine", max(0.01, len(done) / len(request.models)))
    for place, name in enumerate(request.models):
        if place >= len(done):
            start, end = (step / len(request.models) for step in (place, place + 1))
            report(f"Loading {catalogue.label(name)}", max(start, 0.02))
            yield name, start, end


def _comparison(request: ComparisonRequest, done: Finished, report: Report) -> Iterator[Any]:
    circuit = request.heads.circuit
    earlier: dict[str, Any] = {}
    for name, start, end in _each_model(request, done, report):
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
        )
        yield ComparedModel(
            compare.figures(subject, answers),
            tuple(compare.difference(other, earlier[other], name, answers) for other in earlier),
            compare.packed(answers),
        )
        earlier[name] = answers


def _transplants(request: CmapRequest, done: Finished, report: Report) -> Iterator[Any]:
    total = n_parts(request)
    report("Starting the engine", max(0.01, len(done) / total))
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
            )


def _transplanted_set(request: SetRequest, _: Finished, report: Report) -> Iterator[Any]:
    report("Transplanting your set", 0.05)
    from backend import cmap

    source, target = _pair(request, report, 0.1)
    yield cmap.cmap(source, target, {"": request.sites}, request.part).sets[""]


def _stage(request: StageRequest, _: Finished, report: Report) -> Iterator[Any]:
    report("Starting the engine", 0.02)
    from backend.stage_runs import stage

    key = identity(request)
    yield stage(request, report, store.unfinished(key) if key else None)


def _minimality(request: MinimalityRequest, _: Finished, report: Report) -> Iterator[Any]:
    report("Starting the engine", 0.02)
    from backend.minimality import minimality

    told = _told(report, "Removing heads", 0.1, 1)
    subject = _subject(request.model, request.prompts)
    yield minimality(subject, request.heads.circuit, request.removed, told)


def _completeness(request: CompletenessRequest, _: Finished, report: Report) -> Iterator[Any]:
    report("Starting the engine", 0.02)
    from backend.completeness import completeness

    told = _told(report, "Removing sets of heads", 0.1, 1)
    subject = _subject(request.model, request.prompts)
    seed = request.prompts.seed
    yield completeness(subject, request.heads.circuit, request.sets, seed, told)


def _edges(request: EdgesRequest, _: Finished, report: Report) -> Iterator[Any]:
    report("Choosing prompts that the model answers right", 0.02)
    from backend.bench import load
    from backend.edges import edges
    from backend.stage_runs import run_pairs

    circuit = request.heads.circuit
    circuit.check(load(request.model).shape, catalogue.label(request.model))
    told = _told(report, "Patching one edge after the other", 0.35, 1)
    pairs = run_pairs(request.model, request.prompts, report)
    yield edges(pairs, circuit, request.model, told)


def _pair(
    request: CmapRequest | SetRequest, report: Report, share: float
) -> tuple[Subject, Subject]:
    report("Loading the models", share)
    return _subject(request.source, request.prompts), _subject(request.target, request.prompts)


def _subject(model: str, prompts: Prompts) -> Subject:
    return _examined(model, prompts, fingerprint(model))


@lru_cache(maxsize=2)
def _examined(model: str, prompts: Prompts, _: Fingerprint | None) -> Subject:
    """The model under examination; a pair is kept, so that one more set costs little."""
    from backend.bench import load
    from backend.compare import examine

    return examine(load(model), prompts.n, prompts.boxes, prompts.seed)


def _share_tokenizer(*models: str) -> bool:
    found = [fingerprint(name) for name in models]
    return None not in found and len({each.tokenizer for each in found if each}) == 1


def _told(report: Report, stage: str, start: float, end: float) -> Progress:
    """Counted progress as a report of a stretch of the whole work."""
    return lambda done, total: report(stage, start + (end - start) * done / total)


METHODS = {
    method.name: method
    for method in (
        Method(
            "accuracy",
            "Accuracy",
            AccuracyRequest,
            lambda request: (AccuracyReport,) * len(request.models),
            _accuracies,
        ),
        Method(
            "faithfulness",
            "Faithfulness",
            FaithfulnessRequest,
            lambda request: (FaithfulnessReport,) * len(request.models),
            _faithfulness,
        ),
        Method(
            "compare",
            "Compare",
            ComparisonRequest,
            lambda request: (ComparedModel,) * len(request.models),
            _comparison,
        ),
        Method(
            "cmap",
            "CMAP",
            CmapRequest,
            lambda _: (Cmap, *[HeadMap] * len(_TOKENS)),
            _transplants,
        ),
        Method(
            "cmap-set", "CMAP, one set", SetRequest, lambda _: (Transplanted,), _transplanted_set
        ),
        Method("stage", "Discover, one stage", StageRequest, lambda _: (Stage,), _stage),
        Method("minimality", "Minimality", MinimalityRequest, lambda _: (Minimality,), _minimality),
        Method(
            "completeness",
            "Completeness",
            CompletenessRequest,
            lambda _: (Completeness,),
            _completeness,
        ),
        Method("edges", "Edges", EdgesRequest, lambda _: (Edges,), _edges),
    )
}
"""By name; what the store's keys begin with."""
