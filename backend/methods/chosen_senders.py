"""Exact path patching of chosen heads only, as senders of one stage of discovery.

The scores are those of the whole stage (`backend.methods.stage`); the other heads are not run. With
the heads that attribution patching ranks highest and as many random ones, they say how far its
preview can be trusted (Prakash et al., circuit discovery).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from backend.core.heads import Head, Site, check_sites
from backend.core.metrics import Score
from backend.core.progress import Plan, Report, Step, step_of
from backend.core.runtime import at_work
from backend.core.statistics import Estimate, mean_estimate
from backend.methods.asking import loaded
from backend.methods.method import Figure, Finished, Method, Unfinished
from backend.methods.plans import chosen_step, scale_of
from backend.methods.requests import score_name
from backend.models import catalogue
from backend.tasks.chance import ForcedChoice
from backend.tasks.circuit import Circuit
from backend.tasks.prompts import Prompts


@dataclass(frozen=True)
class SendersRequest:
    """One stage of discovery with these heads as senders, and no others."""

    model: str
    prompts: Prompts
    group: str
    receivers: tuple[Head, ...]
    senders: tuple[Head, ...]
    score: Score = Score.probability

    def __post_init__(self) -> None:
        Circuit.of(self.prompts.task, {self.group: self.receivers})  # raises for an unknown group


@dataclass(frozen=True)
class SenderScore:
    """The exact score of a head as a sender, mean over prompts."""

    head: Head
    score: Estimate


@dataclass(frozen=True)
class SenderScores:
    """The exact scores of some heads of a stage, in the order in which they were asked for."""

    heads: tuple[SenderScore, ...]
    forced_choice: ForcedChoice | None = None

    @property
    def choices(self) -> tuple[ForcedChoice | None]:
        """How the model does beside guessing."""
        return (self.forced_choice,)


def _plan(request: SendersRequest) -> Plan:
    scale, n = scale_of(request.model, request.prompts), request.prompts.n
    group = request.prompts.task.group(request.group)
    by_layer = scale.senders(group, {head.layer for head in request.receivers})
    senders = sum(by_layer.get(head.layer, 0.0) for head in request.senders) / scale.n_heads
    cost = 2 * scale.runs(n) + n * senders
    what = f"Stage {group.key}, {group.name}, {len(request.senders)} heads exactly"
    return [[chosen_step(scale, n), Step(what, cost)]]


def _work(
    request: SendersRequest, _: Finished, report: Report, unfinished: Unfinished
) -> Iterator[SenderScores]:
    plan = _plan(request)
    model = loaded(request.model, report, plan, 0)
    from backend.engine.path_patching.scores import scores_of
    from backend.methods.pairs import run_pairs

    check_sites(_sites(request), model.shape, catalogue.label(request.model))
    pairs, choice = run_pairs(request.model, request.prompts, report, plan)
    with at_work(model.runtime):
        found = scores_of(
            pairs,
            request.group,
            request.receivers,
            step_of(report, plan, 0, 1),
            request.senders,
            unfinished(0),
            request.score,
        )
    scores = found.double().numpy()
    heads = (SenderScore(h, mean_estimate(scores[:, h.layer, h.index])) for h in request.senders)
    yield SenderScores(tuple(heads), choice)


def _rows(request: SendersRequest, _: int, part: SenderScores) -> Iterator[Figure]:
    for each in sorted(part.heads, key=lambda each: each.score.value):
        yield Figure(str(each.head), score_name(request.score), each.score)


def _settings(request: SendersRequest) -> str:
    into = f", into {', '.join(map(str, request.receivers))}" if request.receivers else ""
    return f"stage {request.group}{into}, {len(request.senders)} heads"


def _sites(request: SendersRequest) -> Collection[Site]:
    position = request.prompts.task.group(request.group).position
    return [Site(head, position) for head in (*request.senders, *request.receivers)]


METHOD = Method(
    "chosen-senders",
    "Discover, chosen heads",
    SendersRequest,
    lambda _: (SenderScores,),
    _plan,
    _work,
    _rows,
    _settings,
    sites=_sites,
)
