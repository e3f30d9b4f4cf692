"""Cross-model activation patching (CMAP): which part of one model makes another one better?

Both models read the same prompt. The outputs of some heads at the circuit's tokens are taken from
the source and put into the target, which computes everything else. What is read off is the share of
the gap between the two that is closed,

    recovery = (patched − target) / (source − target),

in accuracy over the same prompts (Prakash et al., cross-model activation patching), or in another
metric. Without a gap that is clear there is nothing to recover, and the figure is undefined.
Instead of its output, a head's queries, keys or values can be transplanted: see
`backend.engine.transplants`.
"""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from backend.core.components import Component
from backend.core.errors import UserError
from backend.core.estimates import change, figure, share_of_gap
from backend.core.files import shown
from backend.core.heads import Head, Site, check_sites
from backend.core.kept import Kept
from backend.core.metrics import Ablation, Metric
from backend.core.progress import Plan, Progress, Report, Step, between, silent, step_of
from backend.core.statistics import Estimate
from backend.methods.asking import loaded, same_prompts
from backend.methods.method import Command, Figure, Finished, Method, Unfinished
from backend.methods.plans import scale_of
from backend.methods.requests import METRICS
from backend.models import catalogue
from backend.models.model_config import shape_misfit
from backend.tasks.chance import ForcedChoice
from backend.tasks.circuit import Circuit
from backend.tasks.prompts import N_PROMPTS, Prompts, PromptSet
from backend.tasks.registry import known_groups, known_tasks
from backend.tasks.task import Task
from backend.tasks.vocabulary import tokenized

if TYPE_CHECKING:
    from torch import Tensor

    from backend.engine.architectures import Projection
    from backend.methods.evaluation import Batch, Evaluation, Questions, Rows
    from backend.models.loading import LoadedModel

NamedSets = tuple[tuple[str, frozenset[Site]], ...]
"""Sets of sites by name."""
_PROJECTIONS: dict[Component, Projection] = {
    Component.q: "q_proj",
    Component.k: "k_proj",
    Component.v: "v_proj",
}


@dataclass(frozen=True)
class CmapRequest:
    """Sets of heads, and every head, out of one model into another.

    sets: by name; without any, the circuit's groups, none and all of them.
    """

    source: str
    target: str
    circuit: Circuit
    part: Component
    prompts: Prompts
    sets: NamedSets = ()
    metric: Metric = Metric.accuracy


@dataclass(frozen=True)
class SetRequest:
    """One set of heads out of one model into another."""

    source: str
    target: str
    sites: frozenset[Site]
    part: Component
    prompts: Prompts
    metric: Metric = Metric.accuracy


@dataclass(frozen=True)
class Transplanted:
    """What the target does with some sites out of the source.

    accuracy: or the mean of another metric; change: that less the untouched target's; recovery: the
    share of the gap between source and target that is closed.
    """

    n_sites: int
    accuracy: Estimate
    change: Estimate
    recovery: Estimate


@dataclass(frozen=True)
class Cmap:
    """Cross-model activation patching: what happens for each set of sites, by the set's name."""

    source: str
    target: str
    part: str
    source_accuracy: Estimate
    target_accuracy: Estimate
    gap: Estimate
    sets: Mapping[str, Transplanted]
    source_choice: ForcedChoice | None = None
    target_choice: ForcedChoice | None = None

    @property
    def choices(self) -> tuple[ForcedChoice | None, ForcedChoice | None]:
        """How source and target do beside guessing."""
        return self.source_choice, self.target_choice


@dataclass(frozen=True)
class HeadMap:
    """Each single head transplanted: [n_layers][n_heads] at every token, by the token's name."""

    source: str
    target: str
    part: str
    gap: Estimate
    heads: Mapping[str, tuple[tuple[Transplanted, ...], ...]]


def compatible(
    source: LoadedModel, target: LoadedModel, part: Component = Component.output
) -> str | None:
    """Why heads of the source do not fit into the target; None if they do."""
    if reason := shape_misfit(source.shape, target.shape, (source.name, target.name), part):
        return reason
    if (here := _where(source)) != (there := _where(target)):
        return f"{source.name} is loaded {here}, {target.name} {there}."
    return None


def read_alike(source: LoadedModel, target: LoadedModel, prompts: PromptSet) -> str | None:
    """Why the source does not read the target's prompts as the target does; None if it does.

    Heads are put in, not logits: words that are in no prompt may be other words, or be missing.
    """
    ids = [ids for ids, _ in tokenized(source.tokenizer, prompts.texts)]
    if ids != prompts.input_ids.tolist():
        return f"{source.name} and {target.name} write the same prompts as other tokens."
    return None


def _where(loaded: LoadedModel) -> str:
    return f"on {loaded.placement.device} in {loaded.placement.numbers}"


def group_sets(
    circuit: Circuit, sets: Iterable[Collection[str]] | None = None
) -> dict[str, frozenset[Site]]:
    """The sites of sets of groups, by name: “none”, “D”, “D + B”, “all”, in reading order.

    Unless they are given: none, each group and all of them.
    """
    keys = [group.key for group in circuit.task.reading_order]
    usual: list[Collection[str]] = [(), *((key,) for key in keys), keys]
    return {_set_name(chosen, keys): circuit.sites_of(chosen) for chosen in sets or usual}


def _set_name(chosen: Collection[str], keys: Collection[str]) -> str:
    if set(chosen) == set(keys):
        return "all"
    return " + ".join(key for key in keys if key in chosen) or "none"


def cmap(
    source: Evaluation,
    target: Evaluation,
    sets: Mapping[str, Collection[Site]],
    part: Component = Component.output,
    progress: Progress = silent,
    kept_in: Kept | None = None,
    metric: Metric = Metric.accuracy,
) -> Cmap:
    """A metric and its recovery for each set of sites transplanted from source into target.

    What is finished is kept in a folder, if there is one, and taken from there. Raises UserError
    when the two do not fit together or are not asked the same prompts.
    """
    _check_pair(source, target, part)
    runs, rest = source.scale.runs(1), target.scale.patches(1, sets.values())
    one, two = runs / (3 * runs + rest), 2 * runs / (3 * runs + rest)
    whole = source.whole_by(metric, between(progress, 0, one))
    untouched = target.whole_by(metric, between(progress, one, two))
    told = between(progress, two, 1)
    patched = transplanted(source, target, [*sets.values()], part, told, kept_in, metric)
    return Cmap(
        source.loaded.name,
        target.loaded.name,
        part.name,
        figure(metric, whole),
        figure(metric, untouched),
        change(metric, whole, untouched),
        {
            name: _outcome(len(sites), row, whole, untouched, metric)
            for (name, sites), row in zip(sets.items(), patched, strict=True)
        },
        source.choice,
        target.choice,
    )


def head_map(
    source: Evaluation,
    target: Evaluation,
    positions: Collection[str],
    part: Component = Component.output,
    progress: Progress = silent,
    kept_in: Kept | None = None,
    metric: Metric = Metric.accuracy,
) -> HeadMap:
    """A metric and its recovery for every single head transplanted, at each of these tokens.

    What is finished is kept in a folder, if there is one, and taken from there.
    """
    n_layers, n_heads, *_ = target.loaded.shape
    sites = [
        Site(Head(layer, index), position)
        for position in positions
        for layer in range(n_layers)
        for index in range(n_heads)
    ]
    each = [{site} for site in sites]
    patched = transplanted(source, target, each, part, progress, kept_in, metric)
    whole, untouched = source.whole_by(metric), target.whole_by(metric)
    outcomes = iter([_outcome(1, row, whole, untouched, metric) for row in patched])
    return HeadMap(
        source.loaded.name,
        target.loaded.name,
        part.name,
        change(metric, whole, untouched),
        {
            position: tuple(tuple(next(outcomes) for _ in range(n_heads)) for _ in range(n_layers))
            for position in positions
        },
    )


def transplanted(
    source: Evaluation,
    target: Evaluation,
    sets: Questions,
    part: Component,
    progress: Progress = silent,
    kept_in: Kept | None = None,
    metric: Metric = Metric.accuracy,
) -> Rows:
    """A metric of the target with each set of sites out of the source: [n_sets, n]."""
    _check_pair(source, target, part)
    check_sites(chain.from_iterable(sets), target.loaded.shape, target.loaded.name)

    def ask(batch: Batch, some: Questions) -> Iterator[Tensor]:
        transplant = _transplant(source, batch, part)
        for sites in some:
            yield batch.measured(transplant(sites)[None], metric)

    cost = source.scale.runs(1) + target.scale.patches(1, sets)
    return target.answered(sets, ask, cost, progress, kept_in, metric)


def _check_pair(source: Evaluation, target: Evaluation, part: Component) -> None:
    pair = source.loaded, target.loaded
    if reason := compatible(*pair, part) or read_alike(*pair, target.prompts):
        raise UserError(
            f"{reason} Choose two models of the same shape and tokenizer, loaded alike."
        )
    same_prompts([source, target])


def _transplant(
    source: Evaluation, batch: Batch, part: Component
) -> Callable[[Collection[Site]], Tensor]:
    from backend.engine.activation_patching import patched_logits
    from backend.engine.positions import position_head_outputs
    from backend.engine.transplants import foreign, transplanted_logits

    model = source.loaded.model
    if part is Component.output:
        values = position_head_outputs(model, batch.prompts)
        return lambda sites: patched_logits(batch.clean, sites, values)
    other = foreign(batch.clean, model, batch.prompts, _PROJECTIONS[part])
    return lambda sites: transplanted_logits(batch.clean, sites, other)


def _outcome(
    n_sites: int, patched: Rows, source: Rows, target: Rows, metric: Metric
) -> Transplanted:
    return Transplanted(
        n_sites,
        figure(metric, patched),
        change(metric, patched, target),
        share_of_gap(metric, patched, target, source),
    )


def _plan(request: CmapRequest) -> Plan:
    n, circuit = request.prompts.n, request.circuit
    usual = [*(circuit.sites_of([key]) for key in circuit.task.keys), circuit.sites]
    sets = [sites for _, sites in request.sets] or usual
    target = scale_of(request.target, request.prompts)
    return [
        [Step("Transplanting sets of heads", _both(request) + target.patches(n, sets))],
        *(
            [Step(f"Transplanting single heads, {at.words}", target.every_head(n, at.name))]
            for at in request.prompts.task.positions
        ),
    ]


def _plan_of_set(request: SetRequest) -> Plan:
    target, n = scale_of(request.target, request.prompts), request.prompts.n
    return [[Step("Transplanting your set", _both(request) + target.patches(n, [request.sites]))]]


def _both(request: CmapRequest | SetRequest) -> float:
    """The source twice, for its answers and its heads, and the target."""
    prompts = request.prompts
    source, target = (scale_of(name, prompts) for name in (request.source, request.target))
    return 2 * source.runs(prompts.n) + target.runs(prompts.n)


def _work(
    request: CmapRequest, done: Finished, report: Report, unfinished: Unfinished
) -> Iterator[Cmap | HeadMap]:
    plan, tokens = _plan(request), request.prompts.task.position_names
    source, target = _pair(request, report, plan, len(done))
    if not done:
        request.circuit.check(target.loaded.shape, catalogue.label(request.target))
        sets = dict(request.sets) or group_sets(request.circuit)
        told = step_of(report, plan, 0, 0)
        yield cmap(source, target, sets, request.part, told, unfinished(0), request.metric)
    for place, token in islice(enumerate(tokens, 1), max(0, len(done) - 1), None):
        told = step_of(report, plan, place, 0)
        folder = unfinished(place)
        yield head_map(source, target, [token], request.part, told, folder, request.metric)


def _work_of_set(
    request: SetRequest, _: Finished, report: Report, __: Unfinished
) -> Iterator[Transplanted]:
    plan = _plan_of_set(request)
    source, target = _pair(request, report, plan, 0)
    told = step_of(report, plan, 0, 0)
    sets = {"": request.sites}
    yield cmap(source, target, sets, request.part, told, metric=request.metric).sets[""]


def _pair(
    request: CmapRequest | SetRequest, report: Report, plan: Plan, part: int
) -> tuple[Evaluation, Evaluation]:
    names = (request.source, request.target)
    for name in names:
        loaded(name, report, plan, part)
    from backend.methods.evaluation import evaluation

    source, target = (evaluation(name, request.prompts, Ablation.mean) for name in names)
    return source, target


def _rows(request: CmapRequest, _: int, part: Cmap | HeadMap) -> Iterator[Figure]:
    if isinstance(part, Cmap):
        metric = METRICS[request.metric]
        yield Figure("source", metric, part.source_accuracy)
        yield Figure("target", metric, part.target_accuracy)
        yield Figure("source − target", metric, part.gap)
        for name, outcome in part.sets.items():
            yield from _rows_of(request, name, outcome)
        return
    for token, layers in part.heads.items():
        words = request.prompts.task.position(token).words
        for layer, heads in enumerate(layers):
            for index, outcome in enumerate(heads):
                yield from _rows_of(request, f"{Head(layer, index)} {words}", outcome)


def _rows_of(
    request: CmapRequest | SetRequest, item: str, outcome: Transplanted
) -> Iterator[Figure]:
    yield Figure(item, METRICS[request.metric], outcome.accuracy)
    yield Figure(item, "change", outcome.change)
    yield Figure(item, "recovery", outcome.recovery)


def _settings(request: CmapRequest) -> str:
    names = f", {', '.join(name for name, _ in request.sets)}" if request.sets else ""
    return f"{request.part.value}{names}"


def _named(part: Cmap | HeadMap, models: Mapping[str, str], _: str) -> Cmap | HeadMap:
    return replace(part, source=models[part.source], target=models[part.target])


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--sets",
        dest="groups",
        nargs="+",
        type=_groups,
        default=[],
        metavar="GROUPS",
        help="groups to transplant together, such as A+B, none or all (default: none D C B A all)",
    )
    parser.add_argument(
        "--heads",
        nargs="+",
        type=_sites,
        default=[],
        metavar="HEADS",
        help=f"heads to transplant together, such as L4.0@last; tokens: {_tokens()}",
    )
    parser.add_argument("--map", action="store_true", help="also every single head at every token")
    parser.add_argument(
        "--part",
        choices=Component.__members__,
        default="output",
        help="what of a head: its output, q, k or v (default: output); k and v are those of all "
        "tokens that it sees, its own included, which the authors’ code leaves as it is",
    )


def _fields(options: Namespace, circuit: Circuit) -> Mapping[str, Any]:
    _check_sets(options, circuit.task)
    wanted = [circuit.task.keys if keys == ("all",) else keys for keys in options.groups]
    is_usual = not wanted and not options.heads
    sets = {} if is_usual else group_sets(circuit, wanted) | dict(options.heads)
    return {"part": Component[options.part], "sets": tuple(sets.items())}


def _groups(text: str) -> tuple[str, ...]:
    keys = () if text == "none" else (text,) if text == "all" else tuple(text.split("+"))
    if text not in ("none", "all") and not {*keys} <= known_groups():
        raise ArgumentTypeError(f"“{shown(text)[:40]}” is not like A+B, none or all")
    return keys


def _sites(text: str) -> tuple[str, frozenset[Site]]:
    sites = set()
    for place in text.split("+"):
        head, _, token = place.partition("@")
        try:
            site = Site(Head.parse(head), token)
            known = {name for task in known_tasks().values() for name in task.position_names}
            if token not in known:
                raise UserError(token)
            sites.add(site)
        except UserError as error:
            raise ArgumentTypeError(f"“{shown(place)[:40]}” is not like L4.0@last") from error
    return text, frozenset(sites)


def _tokens() -> str:
    """The tokens of every task, in words."""
    return "; ".join(
        f"{', '.join(task.position_names)} ({name})" for name, task in known_tasks().items()
    )


def _check_sets(options: Namespace, task: Task) -> None:
    """Raise UserError for groups and tokens that the task does not have."""
    known = {*task.keys, "all"}
    for key in (key for keys in options.groups for key in keys if key not in known):
        raise UserError(
            f"{task.title} has no group “{shown(key)}”. Choose of {', '.join(task.keys)}."
        )
    tokens = {site.position for _, sites in options.heads for site in sites}
    for token in sorted(tokens - {*task.position_names}):
        raise UserError(
            f"{task.title} has no token “{shown(token)[:40]}”. Choose of "
            f"{', '.join(task.position_names)}."
        )


METHOD = Method(
    "cmap",
    "CMAP",
    CmapRequest,
    lambda request: (Cmap, *[HeadMap] * len(request.prompts.task.positions)),
    _plan,
    _work,
    _rows,
    _settings,
    _named,
    lambda request: frozenset().union(*(sites for _, sites in request.sets)),
    Command(
        "put heads of a source model into a target model (cross-model activation patching)",
        "cmap arithmetic-full base --sets A B A+B all --part output --map",
        N_PROMPTS,
        _arguments,
        _fields,
        lambda options: None if options.map else 1,
    ),
)
ONE_SET = Method(
    "cmap-set",
    "CMAP, one set",
    SetRequest,
    lambda _: (Transplanted,),
    _plan_of_set,
    _work_of_set,
    lambda request, place, part: _rows_of(request, "the set", part),
    lambda request: f"{request.part.value} of {len(request.sites)} heads",
    sites=lambda request: request.sites,
)
