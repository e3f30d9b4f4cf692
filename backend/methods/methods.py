"""The methods: what each is asked, what its result is made of, and the work that yields it.

Importing this module imports no torch: the works do when they begin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backend.core.metrics import Ablation
from backend.core.progress import Plan, Report, cost_of, step_of
from backend.core.runtime import at_work
from backend.methods.plans import plan_of
from backend.methods.requests import (
    AccuracyRequest,
    CmapRequest,
    ComparisonRequest,
    CompletenessRequest,
    EdgesRequest,
    FaithfulnessRequest,
    MinimalityRequest,
    Request,
    SetRequest,
    StageRequest,
    circuit_of,
    method_name,
    models_of,
    settings_of,
)
from backend.methods.results import (
    AccuracyReport,
    Cmap,
    ComparedModel,
    Comparison,
    Completeness,
    Edges,
    FaithfulnessReport,
    HeadMap,
    Minimality,
    Transplanted,
)
from backend.methods.stages import Stage
from backend.models import catalogue, loaded_models

if TYPE_CHECKING:
    from backend.methods.evaluation import Evaluation
    from backend.models.loading import LoadedModel

_Knockout = FaithfulnessRequest | ComparisonRequest | MinimalityRequest | CompletenessRequest
Finished = tuple[Any, ...]
Unfinished = Callable[[int], Path | None]
"""Where a part, by its place, keeps what is finished of it; None where nothing is kept."""
Work = Callable[[Any, Finished, Report, Unfinished], Iterator[Any]]
"""(request, parts that are there, report, unfinished) -> the parts that come after them."""


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
        request.circuit.name,
        tuple(part.figures for part in parts),
        tuple(difference for part in parts for difference in part.differences),
    )


def _accuracies(
    request: AccuracyRequest, done: Finished, report: Report, _: Unfinished
) -> Iterator[Any]:
    plan = plan_of(request)
    for place, name in _not_done(request, done):
        loaded = _load(name, report, plan, place)
        from backend.methods.reports import accuracy_report

        told = step_of(report, plan, place, 0)
        yield accuracy_report(loaded, request.prompts, told)


def _faithfulness(
    request: FaithfulnessRequest, done: Finished, report: Report, _: Unfinished
) -> Iterator[Any]:
    plan = plan_of(request)
    for place, name in _not_done(request, done):
        evaluation = _evaluation(name, request, report, plan, place)
        from backend.methods.reports import faithfulness_report

        told = step_of(report, plan, place, 1)
        yield faithfulness_report(evaluation, request.circuit, told, request.metric)


def _not_done(
    request: AccuracyRequest | FaithfulnessRequest | ComparisonRequest, done: Finished
) -> Iterator[tuple[int, str]]:
    """The models that are not done, with their places."""
    return islice(enumerate(request.models), len(done), None)


def _comparison(
    request: ComparisonRequest, done: Finished, report: Report, unfinished: Unfinished
) -> Iterator[Any]:
    plan, circuit = plan_of(request), request.circuit
    earlier: dict[str, Any] = {}
    for place, name in _not_done(request, done):
        evaluation = _evaluation(name, request, report, plan, place)
        from backend.methods import compare

        if not earlier:
            earlier = {
                part.figures.name: compare.unpacked(
                    part.answers,
                    request.prompts.n,
                    len(request.prompts.task.groups),
                    request.metric,
                )
                for part in done
            }
        if not _share_tokenizer(name, request.models[0]):
            first = _evaluation(request.models[0], request, report, plan, place)
            compare.same_prompts([first, evaluation])
        circuit.check(evaluation.loaded.shape, catalogue.label(name))
        answers = compare.answers_of(
            evaluation,
            circuit,
            request.prompts.seed,
            progress=step_of(report, plan, place, 1),
            kept_in=unfinished(place),
            metric=request.metric,
        )
        paper = compare.as_in_paper(evaluation, circuit, answers.whole, request.metric)
        yield ComparedModel(
            compare.figures(evaluation, answers, paper, request.metric),
            tuple(
                compare.difference(
                    other,
                    earlier[other],
                    name,
                    answers,
                    len(request.models),
                    evaluation.prompts.n_choices,
                    request.metric,
                )
                for other in earlier
            ),
            compare.packed(answers),
        )
        earlier[name] = answers


def _transplants(
    request: CmapRequest, done: Finished, report: Report, unfinished: Unfinished
) -> Iterator[Any]:
    plan = plan_of(request)
    source, target = _pair(request, report, plan, len(done))
    from backend.methods import cmap

    if not done:
        request.circuit.check(target.loaded.shape, catalogue.label(request.target))
        yield cmap.cmap(
            source,
            target,
            dict(request.sets) or cmap.group_sets(request.circuit),
            request.part,
            step_of(report, plan, 0, 0),
            unfinished(0),
            request.metric,
        )
    for place, position in islice(
        enumerate(request.prompts.task.position_names, 1), max(0, len(done) - 1), None
    ):
        yield cmap.head_map(
            source,
            target,
            [position],
            request.part,
            step_of(report, plan, place, 0),
            unfinished(place),
            request.metric,
        )


def _transplanted_set(
    request: SetRequest, _: Finished, report: Report, __: Unfinished
) -> Iterator[Any]:
    plan = plan_of(request)
    source, target = _pair(request, report, plan, 0)
    from backend.methods import cmap

    told = step_of(report, plan, 0, 0)
    sets = {"": request.sites}
    yield cmap.cmap(source, target, sets, request.part, told, metric=request.metric).sets[""]


def _stage(
    request: StageRequest, _: Finished, report: Report, unfinished: Unfinished
) -> Iterator[Any]:
    plan = plan_of(request)
    _load(request.model, report, plan, 0)
    from backend.methods.stage_runs import stage

    yield stage(request, report, plan, unfinished(0))


def _minimality(
    request: MinimalityRequest, _: Finished, report: Report, unfinished: Unfinished
) -> Iterator[Any]:
    plan = plan_of(request)
    evaluation = _evaluation(request.model, request, report, plan, 0)
    from backend.methods.minimality import minimality

    told, kept_in = step_of(report, plan, 0, 1), unfinished(0)
    yield minimality(evaluation, request.circuit, request.removed, told, kept_in)


def _completeness(
    request: CompletenessRequest, _: Finished, report: Report, unfinished: Unfinished
) -> Iterator[Any]:
    plan = plan_of(request)
    evaluation = _evaluation(request.model, request, report, plan, 0)
    from backend.methods.completeness import completeness

    told, kept_in = step_of(report, plan, 0, 1), unfinished(0)
    seed = request.prompts.seed
    yield completeness(evaluation, request.circuit, request.sets, seed, told, kept_in)


def _edges(
    request: EdgesRequest, _: Finished, report: Report, unfinished: Unfinished
) -> Iterator[Any]:
    plan, circuit = plan_of(request), request.circuit
    loaded = _load(request.model, report, plan, 0)
    from backend.methods.edges import edges
    from backend.methods.stage_runs import run_pairs

    circuit.check(loaded.shape, catalogue.label(request.model))
    pairs = run_pairs(request.model, request.prompts, report, plan)
    told = step_of(report, plan, 0, 1)
    with at_work(loaded.runtime):
        found = edges(pairs, circuit, request.model, told, unfinished(0), request.score)
    yield found


def _pair(
    request: CmapRequest | SetRequest, report: Report, plan: Plan, part: int
) -> tuple[Evaluation, Evaluation]:
    names = (request.source, request.target)
    for name in names:
        _load(name, report, plan, part)
    from backend.methods.compare import evaluation

    source, target = (evaluation(name, request.prompts, Ablation.mean) for name in names)
    return source, target


def _evaluation(name: str, request: _Knockout, report: Report, plan: Plan, part: int) -> Evaluation:
    """The model with its prompts, its heads averaged: the first step of a part."""
    _load(name, report, plan, part)
    from backend.methods.compare import evaluation

    examined = evaluation(name, request.prompts, request.ablation)
    examined.average(step_of(report, plan, part, 0))
    return examined


def _load(name: str, report: Report, plan: Plan, part: int) -> LoadedModel:
    """The model; files that have changed are another model: what was kept of it goes."""
    before = cost_of(plan[:part]) / cost_of(plan)

    def told(what: str, share: float) -> None:
        report(f"Loading {catalogue.label(name)}: {what.lower()}, {round(share, 1):.0%}", before)

    report(f"Loading {catalogue.label(name)}", before)
    return loaded_models.load(name, told=told)


def _share_tokenizer(*models: str) -> bool:
    found = [loaded_models.fingerprint_of(name) for name in models]
    return None not in found and len({each.tokenizer for each in found if each}) == 1


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
    "cmap": Method(
        "CMAP",
        CmapRequest,
        lambda asked: (Cmap, *[HeadMap] * len(asked.prompts.task.positions)),
        _transplants,
    ),
    "cmap-set": Method("CMAP, one set", SetRequest, lambda _: (Transplanted,), _transplanted_set),
    "stage": Method("Discover, one stage", StageRequest, lambda _: (Stage,), _stage),
    "minimality": Method("Minimality", MinimalityRequest, lambda _: (Minimality,), _minimality),
    "completeness": Method(
        "Completeness", CompletenessRequest, lambda _: (Completeness,), _completeness
    ),
    "edges": Method("Edges", EdgesRequest, lambda _: (Edges,), _edges),
}
"""By name; what the store's keys begin with."""
