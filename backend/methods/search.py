"""Circuit search: from scores of path patching to the smallest circuit that is faithful.

Scores rank heads; how many of them a circuit needs they do not say. So a circuit is

- *grown*: heads with a negative score in any stage are put in one order, and added one by one;
- *pruned*: from all of them, the head whose loss costs least goes, one after the other, until none
  is left (`backend.methods.pruning`).

Both are exact: each circuit is run alone, with every other head knocked out, at every token as in
the paper or only at those that the task names.

Three sets of prompts keep what is reported honest: heads are scored on those that are asked for,
grown and pruned on the next seed's, and faithfulness is reported on those of the seed after that,
with random circuits of the same sizes beside it (Prakash et al., circuit evaluation).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from math import isnan, nan
from typing import TYPE_CHECKING

from backend.core.errors import UserError
from backend.core.estimates import Row, figure
from backend.core.heads import Head, Site
from backend.core.kept import Kept
from backend.core.metrics import Ablation, Metric, Score, Tokens
from backend.core.progress import Plan, Progress, Report, Step, consecutive, silent, step_of
from backend.core.serialize import to_json
from backend.core.statistics import Estimate
from backend.engine.costs import Scale
from backend.methods.asking import averaged
from backend.methods.compare import N_RANDOM, random_circuits
from backend.methods.method import Figure, Finished, Method, Unfinished
from backend.methods.plans import examined, scale_of
from backend.methods.pruning import (
    GROWTHS,
    Growth,
    Members,
    n_tried,
    pruning,
)
from backend.models import catalogue
from backend.tasks.chance import ForcedChoice, faithfulness
from backend.tasks.circuit import Circuit, Node
from backend.tasks.prompts import MAX_SEED, Prompts

if TYPE_CHECKING:
    from backend.methods.evaluation import Evaluation

DISTANCE = 0.05
"""How far below the best the faithfulness of the smallest circuit may be, unless told otherwise."""
FAITHFUL = 0.9
"""Faithfulness below which no circuit is called faithful."""


@dataclass(frozen=True)
class SearchRequest:
    """A circuit grown of these heads in this order, then pruned.

    prompts: those that the heads were scored on; `growth` and `score` say how.
    """

    model: str
    candidates: tuple[Node, ...]
    prompts: Prompts
    growth: Growth = Growth.relative
    score: Score = Score.probability
    metric: Metric = Metric.accuracy
    ablation: Ablation = Ablation.mean
    tokens: Tokens = Tokens.every

    def __post_init__(self) -> None:
        self.circuit_of(self.candidates)  # raises for an unknown group

    @property
    def selection(self) -> Prompts:
        """The prompts that circuits are grown and pruned on."""
        return _of_another_seed(self.prompts, 1)

    @property
    def reported(self) -> Prompts:
        """The prompts that are reported on."""
        return _of_another_seed(self.prompts, 2)

    def circuit_of(self, members: Members) -> Circuit:
        """The circuit that these make."""
        return Circuit(self.prompts.task, frozenset(members))


@dataclass(frozen=True)
class Selected:
    """What growing and pruning gave on the selection prompts, over what the model does there.

    grown: circuits of none of the candidates to all of them; removed: the candidates in the order
    in which pruning took them; pruned: what is left without each and those before. All empty where
    the model is not above chance.
    """

    grown: tuple[float, ...]
    removed: tuple[Node, ...]
    pruned: tuple[float, ...]
    forced_choice: ForcedChoice | None = None

    @property
    def choices(self) -> tuple[ForcedChoice | None]:
        """How the model does beside guessing."""
        return (self.forced_choice,)


class Way(Enum):
    """How a circuit was made."""

    grown = "grown"
    pruned = "pruned"


@dataclass(frozen=True)
class Point:
    """A circuit on the way.

    selected: what it does over what the model does on the selection prompts; faithfulness: the same
    on the prompts that are reported on.
    """

    n_heads: int
    way: Way
    selected: float
    faithfulness: Estimate


@dataclass(frozen=True)
class RandomPoint:
    """Random circuits with as many heads at each token as the pruned one of this size.

    faithfulness: of the mean over draws, its interval over prompts; draws: of each.
    """

    n_heads: int
    faithfulness: Estimate
    draws: tuple[float, ...]


@dataclass(frozen=True)
class Search:
    """The curve of faithfulness against the number of heads, and what it is made of.

    model: the metric of the whole model, on the prompts that are reported on; removed: the
    candidates in the order in which pruning took them; points: those grown, from none to all, and
    those pruned, from all but one to one. Without any where the model is not above chance.
    """

    model: Estimate
    removed: tuple[Node, ...]
    points: tuple[Point, ...]
    random: tuple[RandomPoint, ...]
    n_reference: int
    forced_choice: ForcedChoice | None = None

    @property
    def choices(self) -> tuple[ForcedChoice | None]:
        """How the model does beside guessing."""
        return (self.forced_choice,)

    @property
    def best(self) -> float:
        """The largest faithfulness on the selection prompts; NaN without any circuit."""
        return max((each.selected for each in self.points), default=nan)

    def smallest(self, least: float) -> Point | None:
        """The smallest circuit that is so faithful on the selection prompts; None if none is."""
        enough = [each for each in self.points if each.selected >= least]
        return min(enough, key=lambda each: (each.n_heads, -each.selected), default=None)

    def within(self, distance: float) -> Point | None:
        """The smallest circuit that is at most so far below the best, or below the whole model."""
        return self.smallest(min(self.best, 1.0) - distance)

    def random_beside(self, point: Point) -> RandomPoint | None:
        """Random circuits of its size, or of the next larger that was drawn."""
        return next((each for each in self.random if each.n_heads >= point.n_heads), None)


def members_of(request: SearchRequest, found: Search, point: Point) -> tuple[Node, ...]:
    """The heads of a circuit on the way, in the order in which they were grown."""
    if point.way is Way.grown:
        return request.candidates[: point.n_heads]
    kept = {*found.removed[len(found.removed) - point.n_heads :]}
    return tuple(member for member in request.candidates if member in kept)


def why_no_circuit(found: Search, point: Point | None) -> str | None:
    """Why what was found is no circuit for the task; None if it is one."""
    if point is None:
        return (
            "The model is not above chance on these prompts, or answers hardly any right: there is "
            "nothing that a circuit could be faithful to. Choose a model that does the task."
        )
    if point.n_heads == 0:
        return (
            "With every head knocked out the model does as well as with any of these circuits: "
            "they are no circuit for the task."
        )
    beside = found.random_beside(point)
    if beside and not point.faithfulness.low > beside.faithfulness.value:
        return (
            f"With {point.n_heads} heads it is {in_words(point.faithfulness)}, not clearly above "
            f"random circuits of {beside.n_heads} heads, {beside.faithfulness.value:.2f} on "
            "average: there is no sign of a circuit here."
        )
    return None


def caution(found: Search, point: Point | None) -> str | None:
    """What must be known of a circuit on the way before it is taken; None if nothing."""
    if reason := why_no_circuit(found, point):
        return reason
    if found.best < FAITHFUL:
        return (
            f"The best of these circuits does {found.best:.2f} of what the model does: what else "
            "it needs is not among the heads that were tried, or not at the tokens that the task "
            "names."
        )
    if point and point.faithfulness.low > 1:
        return (
            "It does more than the model: heads that work against the right answer have positive "
            "scores, and are not among those that circuits are grown of."
        )
    return None


def in_words(estimate: Estimate) -> str:
    """“0.97 [0.91, 1.03]”."""
    return f"{estimate.value:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]"


def searched_circuit(request: SearchRequest, found: Search, point: Point, base: Circuit) -> Circuit:
    """A circuit on the way, with the name and provenance of `base`, and how it was found."""
    beside = found.random_beside(point)
    how = {
        "candidates": len(request.candidates),
        "growth": request.growth,
        "way": point.way,
        "metric": request.metric,
        "ablation": request.ablation,
        "tokens": request.tokens,
        "n_prompts": request.prompts.n,
        "selection_seed": request.selection.seed,
        "selection_faithfulness": point.selected,
        "reported_seed": request.reported.seed,
        "faithfulness": point.faithfulness,
        "random": beside and beside.faithfulness,
    }
    method = f"{base.provenance['method']}, then grown and pruned"
    about = {**base.provenance, "method": method, "search": to_json(how)}
    return replace(
        request.circuit_of(members_of(request, found, point)), name=base.name, provenance=about
    )


def selected(
    request: SearchRequest,
    evaluation: Evaluation,
    progress: Progress = silent,
    kept_in: Kept | None = None,
) -> Selected:
    """Grow and prune on the prompts of an evaluation.

    What is finished is kept in a folder, if there is one, and taken from there. Raises UserError
    when there are heads that the model does not have.
    """
    every = request.candidates
    request.circuit_of(every).check(evaluation.loaded.shape, catalogue.label(request.model))
    sizes = [len(every) + 1, *n_tried(len(every))]
    whole_told, *told = consecutive(progress, _costs(request, evaluation, sizes))
    whole, choice = evaluation.whole_by(request.metric, whole_told), evaluation.choice
    if isnan(faithfulness(whole, whole, choice, request.metric).value):
        return Selected((), (), (), choice)
    steps = iter(told)

    def measure(circuits: Sequence[Members]) -> list[float]:
        sites = [_sites(request, members) for members in circuits]
        rows = evaluation.circuit_only(sites, next(steps), kept_in, request.metric, request.tokens)
        return [float(share) for share in rows.mean(1) / whole.mean()]

    grown = measure([every[:n] for n in range(len(every) + 1)])
    gone = [*pruning(every, grown[-1], measure)]
    removed, pruned = (tuple(each) for each in zip(*gone, strict=True)) if gone else ((), ())
    return Selected(tuple(grown), removed, pruned, choice)


def reported(
    request: SearchRequest,
    evaluation: Evaluation,
    found: Selected,
    progress: Progress = silent,
    kept_in: Kept | None = None,
) -> Search:
    """The curve of what was grown and pruned, on the prompts of another evaluation."""
    metric, n = request.metric, len(found.removed)
    grown = [request.candidates[:k] for k in range(n + 1)] if found.grown else []
    pruned = [found.removed[k:] for k in range(1, n)]
    sizes, drawn = _drawn(request, evaluation, found)
    circuits = [_sites(request, members) for members in (*grown, *pruned)] + drawn
    whole_told, told = consecutive(progress, _costs(request, evaluation, [len(circuits)]))
    whole, choice = evaluation.whole_by(metric, whole_told), evaluation.choice
    rows = evaluation.circuit_only(circuits, told, kept_in, metric, request.tokens)

    def over_whole(row: Row) -> Estimate:
        return faithfulness(row, whole, choice, metric)

    ways = [(k, Way.grown, found.grown[k]) for k in range(len(grown))]
    ways += [(n - k, Way.pruned, found.pruned[k - 1]) for k in range(1, n)]
    of_draws = rows[len(ways) :].reshape(len(sizes), N_RANDOM, len(whole))
    return Search(
        figure(metric, whole),
        found.removed,
        tuple(Point(*way, over_whole(row)) for way, row in zip(ways, rows, strict=False)),
        tuple(
            RandomPoint(
                size, over_whole(some.mean(0)), tuple((some.mean(1) / whole.mean()).tolist())
            )
            for size, some in zip(sizes, of_draws, strict=True)
        ),
        evaluation.n_reference,
        choice,
    )


def _drawn(
    request: SearchRequest, evaluation: Evaluation, found: Selected
) -> tuple[list[int], list[frozenset[Site]]]:
    """Some sizes, each about twice the one before, and `N_RANDOM` random circuits of each."""
    sizes = _sizes_drawn(len(found.removed))
    shape = evaluation.loaded.shape
    drawn = [
        each
        for size in sizes
        for each in random_circuits(
            request.circuit_of(found.removed[len(found.removed) - size :]), shape, N_RANDOM, 0
        )
    ]
    return sizes, drawn


def _sizes_drawn(k: int) -> list[int]:
    return sorted({*(2**power for power in range(k.bit_length())), k} - {0})


def _sites(request: SearchRequest, members: Members) -> frozenset[Site]:
    return request.circuit_of(members).sites


def _costs(request: SearchRequest, evaluation: Evaluation, sizes: Sequence[int]) -> list[float]:
    """Of the whole model, and of so many circuits each time, the first from a run on."""
    scale = evaluation.scale
    first, *others = (_cost(request, scale, k) for k in sizes)
    return [scale.runs(1), scale.runs(1) + first, *others]


def _cost(request: SearchRequest, scale: Scale, k: int) -> float:
    """Of `k` circuits on one prompt."""
    if request.tokens is Tokens.every:
        return scale.circuits(1, k)
    return k * scale.patches(1, [[Site(Head(0, 0), each.name) for each in scale.positions]])


def _of_another_seed(prompts: Prompts, after: int) -> Prompts:
    return replace(prompts, seed=(prompts.seed + after) % (MAX_SEED + 1))


def _plan(request: SearchRequest) -> Plan:
    k = len(request.candidates)
    n_reported = 2 * k + N_RANDOM * len(_sizes_drawn(k))
    return [
        _steps(request, request.selection, k + 1 + sum(n_tried(k)), "Growing and pruning"),
        _steps(request, request.reported, n_reported, "Measuring on other prompts"),
    ]


def _steps(request: SearchRequest, prompts: Prompts, k: int, what: str) -> list[Step]:
    """The whole model and `k` circuits on these prompts."""
    averaging, measuring = examined(request.model, prompts, 0)
    cost = prompts.n * _cost(request, scale_of(request.model, prompts), k)
    return [averaging, Step(what, measuring.cost + cost)]


def _work(
    request: SearchRequest, done: Finished, report: Report, unfinished: Unfinished
) -> Iterator[Selected | Search]:
    plan = _plan(request)
    if request.prompts.task.most is not None:
        raise UserError(
            "A search grows circuits on some prompts and reports on others, and prompts of one’s "
            f"own are the same for every seed. Search on {request.prompts.task.family}, which "
            "draws new ones, and compare the circuit on yours."
        )
    if not done:
        asked = replace(request, prompts=request.selection)
        evaluation = averaged(request.model, asked, report, plan, 0)
        done = (selected(request, evaluation, step_of(report, plan, 0, 1), unfinished(0)),)
        yield done[0]
    asked = replace(request, prompts=request.reported)
    evaluation = averaged(request.model, asked, report, plan, 1)
    yield reported(request, evaluation, done[0], step_of(report, plan, 1, 1), unfinished(1))


def _rows(request: SearchRequest, place: int, part: Selected | Search) -> Iterator[Figure]:
    if isinstance(part, Selected):
        return
    yield Figure(catalogue.label(request.model), "full model", part.model)
    chosen = part.within(DISTANCE)
    for point in ([chosen] if chosen else []) + [each for each in part.points if each != chosen]:
        yield Figure(
            f"{point.way.value} to {point.n_heads} heads", "faithfulness", point.faithfulness
        )
    for each in part.random:
        yield Figure(f"random, {each.n_heads} heads", "faithfulness", each.faithfulness)


def _settings(request: SearchRequest) -> str:
    return f"{len(request.candidates)} heads grown by {GROWTHS[request.growth]}"


def _candidates_sites(request: SearchRequest) -> Collection[Site]:
    return _sites(request, request.candidates)


METHOD = Method(
    "search",
    "Circuit search",
    SearchRequest,
    lambda _: (Selected, Search),
    _plan,
    _work,
    _rows,
    _settings,
    sites=_candidates_sites,
)
