"""Minimality: does every head of a circuit add something to it?

Heads of a group can stand in for each other, so removing one alone often changes nothing. For each
head v of a group, K is at most 30 % of the group (rounded up): the heads u most redundant with v,
those whose removal makes v's removal cost most,

    F(circuit − u) − F(circuit − u − v),

as long as it costs anything. F is accuracy, always, with all else knocked out as the evaluation
says. What v adds is then

    F(circuit − K) / F(circuit − K − v) − 1,

and the paper keeps a head that adds 1 % (Prakash et al., circuit minimality). In the authors' code
two heads with the same index in different layers are never removed together; here they are.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import combinations, compress
from math import ceil, comb, isnan
from typing import TYPE_CHECKING, Any

import numpy as np

from backend.core.arguments import number
from backend.core.heads import Head, Site
from backend.core.kept import Kept
from backend.core.metrics import Ablation
from backend.core.progress import Plan, Progress, Report, between, silent, step_of
from backend.core.statistics import Estimate, clear_among, ratio, share_difference, wilson
from backend.methods.asking import averaged
from backend.methods.method import Command, Figure, Finished, Method, Unfinished
from backend.methods.plans import examined
from backend.tasks.circuit import Circuit, Node
from backend.tasks.prompts import N_PATCHED, Prompts

if TYPE_CHECKING:
    from backend.methods.evaluation import Evaluation, Right

REMOVED_SHARE = 0.3
LEAST_GAIN = 0.01
_ROUNDING = 1e-12


@dataclass(frozen=True)
class MinimalityRequest:
    """What every head adds to a circuit, with this share of its group removed."""

    model: str
    circuit: Circuit
    prompts: Prompts
    removed: float = REMOVED_SHARE
    ablation: Ablation = Ablation.mean


@dataclass(frozen=True)
class HeadContribution:
    """What a head adds to a circuit from which others of its group are missing.

    before, after: accuracy of the circuit without `removed`, and without the head as well; gain:
    before / after − 1, undefined where too little is left, with McNemar's p of no loss at all.
    """

    group: str
    head: Head
    removed: tuple[Head, ...]
    before: Estimate
    after: Estimate
    gain: Estimate

    def adds(self, least: float) -> bool:
        """Whether the accuracy before is at least `least` (a share) above the one after."""
        enough = (1 + least) * self.after.value - _ROUNDING
        return self.before.value > 0 and self.before.value >= enough


@dataclass(frozen=True)
class Minimality:
    """What every head of a circuit adds to it."""

    model: str
    circuit: str
    accuracy: Estimate
    heads: tuple[HeadContribution, ...]

    @property
    def clear(self) -> tuple[HeadContribution, ...]:
        """The heads that clearly add or take something, among all that were tried."""
        chosen = clear_among([each.gain for each in self.heads])
        return tuple(compress(self.heads, chosen))


def minimality(
    evaluation: Evaluation,
    circuit: Circuit,
    removed_share: float = REMOVED_SHARE,
    progress: Progress = silent,
    kept_in: Kept | None = None,
) -> Minimality:
    """What each head adds; a head in A and in B is one site, and gone from both when removed.

    What is finished is kept in a folder, if there is one, and taken from there. Raises UserError
    when the circuit has heads that the model does not have.
    """
    circuit.check(evaluation.loaded.shape, evaluation.loaded.name)
    pairs = [
        frozenset(pair)
        for group in circuit.task.keys
        for size in (1, 2)
        for pair in combinations([(group, head) for head in circuit.heads(group)], size)
    ]
    questions = [frozenset(), *pairs]
    split = len(questions) / (len(questions) + 2 * len(circuit.members))
    answers = _without(evaluation, circuit, questions, between(progress, 0, split), kept_in)
    accuracies = dict(zip(questions, answers.sum(1).tolist(), strict=True))

    removed = {v: _most_redundant(v, circuit, accuracies, removed_share) for v in circuit.members}
    before = [frozenset((v[0], u) for u in heads) for v, heads in removed.items()]
    after = [others | {v} for others, v in zip(before, removed, strict=True)]
    told = between(progress, split, 1)
    answers_after_k = _without(evaluation, circuit, [*before, *after], told, kept_in)
    rows = zip(removed.items(), *np.split(answers_after_k, 2), strict=True)
    return Minimality(
        evaluation.loaded.name,
        circuit.name,
        wilson(answers[0]),
        tuple(_contribution(v, heads, with_v, without_v) for (v, heads), with_v, without_v in rows),
    )


def minimal_circuit(circuit: Circuit, found: Minimality, least: float = LEAST_GAIN) -> Circuit:
    """The heads of the circuit that add at least `least`, with this noted in the provenance."""
    kept = {(each.group, each.head) for each in found.heads if each.adds(least)}
    note = {"model": found.model, "least_gain": least, "n_prompts": found.accuracy.n}
    smaller = circuit.keep(kept)
    return replace(smaller, provenance={**circuit.provenance, "minimality": note})


def _most_redundant(
    v: Node,
    circuit: Circuit,
    accuracies: Mapping[frozenset[Node], int],
    removed_share: float,
) -> tuple[Head, ...]:
    group, head = v
    others = [other for other in circuit.heads(group) if other != head]

    def cost(other: Head) -> int:
        u = (group, other)
        return accuracies[frozenset({u})] - accuracies[frozenset({u, v})]

    most = ceil(removed_share * len(circuit.heads(group)))
    ranked = sorted(others, key=cost, reverse=True)[:most]
    return tuple(other for other in ranked if cost(other) > 0)


def _contribution(
    v: Node, removed: tuple[Head, ...], before: Right, after: Right
) -> HeadContribution:
    return HeadContribution(
        v[0], v[1], removed, wilson(before), wilson(after), _gain(before, after)
    )


def _gain(before: Right, after: Right) -> Estimate:
    """before / after − 1, no clearer than before − after is."""
    times, loss = ratio(before, after), share_difference(before, after)
    if isnan(times.value):
        return replace(times, p=loss.p)
    low, high = times.low - 1, times.high - 1
    if not loss.is_clear:
        low, high = min(low, 0.0), max(high, 0.0)
    return Estimate(times.value - 1, low, high, times.n, loss.p)


def _without(
    evaluation: Evaluation,
    circuit: Circuit,
    removals: list[frozenset[Node]],
    progress: Progress,
    kept_in: Kept | None,
) -> Right:
    """What the circuit without these members answers right: [n_removals, n]."""
    removed_sites = [
        {Site(head, circuit.task.group(key).position) for key, head in members}
        for members in removals
    ]
    return evaluation.circuit_only(
        [circuit.sites - sites for sites in removed_sites], progress, kept_in
    )


def _plan(request: MinimalityRequest) -> Plan:
    return [examined(request.model, request.prompts, n_circuits(request.circuit))]


def n_circuits(circuit: Circuit) -> int:
    """Circuits it asks for: whole, less each head or pair of a group, two more for each head."""
    sizes = [len(circuit.heads(key)) for key in circuit.task.keys]
    return 1 + sum(size + comb(size, 2) for size in sizes) + 2 * sum(sizes)


def _work(
    request: MinimalityRequest, _: Finished, report: Report, unfinished: Unfinished
) -> Iterator[Minimality]:
    plan = _plan(request)
    evaluation = averaged(request.model, request, report, plan, 0)
    told, kept_in = step_of(report, plan, 0, 1), unfinished(0)
    yield minimality(evaluation, request.circuit, request.removed, told, kept_in)


def _rows(request: MinimalityRequest, _: int, part: Minimality) -> Iterator[Figure]:
    yield Figure("circuit", "accuracy", part.accuracy)
    for each in part.heads:
        yield Figure(f"{each.group} {each.head}", "adds", each.gain)


def _named(part: Minimality, models: Mapping[str, str], circuit: str) -> Minimality:
    return replace(part, model=models[part.model], circuit=circuit)


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--least",
        type=number(0, 100),
        default=LEAST_GAIN,
        help=f"a kept head adds this share (default: {LEAST_GAIN})",
    )
    parser.add_argument(
        "--removed",
        type=number(0, 1),
        default=REMOVED_SHARE,
        help=f"share of a group removed with each head (default: {REMOVED_SHARE})",
    )


def _beside(options: Namespace, request: MinimalityRequest, parts: Finished) -> Mapping[str, Any]:
    smaller = minimal_circuit(request.circuit, parts[0], options.least)
    kept = {key: smaller.heads(key) for key in request.circuit.task.keys}
    return {"least": options.least, "kept": kept}


METHOD = Method(
    "minimality",
    "Minimality",
    MinimalityRequest,
    lambda _: (Minimality,),
    _plan,
    _work,
    _rows,
    lambda request: f"{request.removed:.0%} of a group removed",
    _named,
    command=Command(
        "what every head adds to a circuit, and the circuit of those that add enough",
        "minimality base --circuit base --least 0.01",
        N_PATCHED,
        _arguments,
        beside=_beside,
    ),
)
