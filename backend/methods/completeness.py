"""Completeness: does the circuit lose heads as the model does?

For a set K of the circuit's heads, |F(circuit − K) − F(model − K)| is small if the circuit holds
all that the model does the task with: a part that the circuit lacks would go on working in the
model. F is accuracy, always, with K knocked out in both as the evaluation says. K is each whole
group, and 20 random sets with every head in or out at even odds (Prakash et al., circuit
completeness).
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from backend.core.arguments import whole
from backend.core.heads import Site
from backend.core.kept import Kept
from backend.core.metrics import Ablation
from backend.core.progress import Plan, Progress, Report, between, silent, step_of
from backend.core.statistics import Estimate, mean_share, share_difference, wilson
from backend.methods.asking import averaged
from backend.methods.method import Command, Figure, Finished, Method, Unfinished
from backend.methods.plans import examined
from backend.tasks.circuit import Circuit
from backend.tasks.prompts import N_PATCHED, Prompts

if TYPE_CHECKING:
    from backend.methods.evaluation import Evaluation

N_RANDOM_SETS = 20


@dataclass(frozen=True)
class CompletenessRequest:
    """Whether circuit and model lose heads alike: groups, and so many random sets."""

    model: str
    circuit: Circuit
    prompts: Prompts
    sets: int = N_RANDOM_SETS
    ablation: Ablation = Ablation.mean


@dataclass(frozen=True)
class Removal:
    """The circuit and the model, each without the same heads; difference: circuit − model."""

    name: str
    n_removed: int
    circuit: Estimate
    model: Estimate
    difference: Estimate


@dataclass(frozen=True)
class Completeness:
    """How alike a circuit and its model lose heads.

    mean_incompleteness: |circuit − model| on these prompts, averaged over the random removals, of
    which it has `n`; the interval is over removals.
    """

    model: str
    circuit: str
    groups: tuple[Removal, ...]
    random: tuple[Removal, ...]
    mean_incompleteness: Estimate


def random_sets(circuit: Circuit, n: int, seed: int) -> list[frozenset[Site]]:
    """`n` sets of the circuit's sites, each head of each group in or out at even odds."""
    chosen = np.random.default_rng(seed).random((n, len(circuit.members))) < 0.5
    sites = [Site(head, circuit.task.group(key).position) for key, head in circuit.members]
    return [frozenset(sites[i] for i in np.flatnonzero(row)) for row in chosen]


def completeness(
    evaluation: Evaluation,
    circuit: Circuit,
    n_random: int = N_RANDOM_SETS,
    seed: int = 0,
    progress: Progress = silent,
    kept_in: Kept | None = None,
) -> Completeness:
    """Circuit and model without each group, and without each random set.

    What is finished is kept in a folder, if there is one, and taken from there. Raises UserError
    when the circuit has heads that the model does not have.
    """
    circuit.check(evaluation.loaded.shape, evaluation.loaded.name)
    keys = circuit.task.keys
    sets = {key: circuit.sites_of([key]) for key in keys}
    drawn = random_sets(circuit, n_random, seed)
    sets |= {f"random {number}": sites for number, sites in enumerate(drawn, 1)}
    rest = [circuit.sites - sites for sites in sets.values()]
    split = evaluation.share_alone(len(rest), [*sets.values()])
    of_circuit = evaluation.circuit_only(rest, between(progress, 0, split), kept_in)
    of_model = evaluation.ablated([*sets.values()], between(progress, split, 1), kept_in)
    removals = [
        Removal(name, len(sites), wilson(alone), wilson(whole), share_difference(alone, whole))
        for (name, sites), alone, whole in zip(sets.items(), of_circuit, of_model, strict=True)
    ]
    groups, random = removals[: len(keys)], removals[len(keys) :]
    gaps = np.array([abs(removal.difference.value) for removal in random])
    return Completeness(
        evaluation.loaded.name,
        circuit.name,
        tuple(groups),
        tuple(random),
        mean_share(gaps, gaps.size * len(evaluation.prompts)),
    )


def _plan(request: CompletenessRequest) -> Plan:
    circuit = request.circuit
    groups = [circuit.sites_of([key]) for key in circuit.task.keys]
    sets = [*groups, *[circuit.sites] * request.sets]
    return [examined(request.model, request.prompts, len(sets), sets)]


def _work(
    request: CompletenessRequest, _: Finished, report: Report, unfinished: Unfinished
) -> Iterator[Completeness]:
    plan, seed = _plan(request), request.prompts.seed
    evaluation = averaged(request.model, request, report, plan, 0)
    told, kept_in = step_of(report, plan, 0, 1), unfinished(0)
    yield completeness(evaluation, request.circuit, request.sets, seed, told, kept_in)


def _rows(request: CompletenessRequest, _: int, part: Completeness) -> Iterator[Figure]:
    yield Figure("random sets", "mean |circuit − full model|", part.mean_incompleteness)
    for removal in (*part.groups, *part.random):
        yield Figure(f"without {removal.name}", "circuit", removal.circuit)
        yield Figure(f"without {removal.name}", "full model", removal.model)
        yield Figure(f"without {removal.name}", "circuit − full model", removal.difference)


def _named(part: Completeness, models: Mapping[str, str], circuit: str) -> Completeness:
    return replace(part, model=models[part.model], circuit=circuit)


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--sets",
        type=whole(0, 10_000),
        default=N_RANDOM_SETS,
        help=f"random sets of heads (default: {N_RANDOM_SETS})",
    )


METHOD = Method(
    "completeness",
    "Completeness",
    CompletenessRequest,
    lambda _: (Completeness,),
    _plan,
    _work,
    _rows,
    lambda request: f"{request.sets} random sets",
    _named,
    command=Command(
        "whether circuit and model lose heads alike",
        "completeness base --circuit base --sets 20",
        N_PATCHED,
        _arguments,
    ),
)
