"""Completeness: does the circuit lose heads as the model does?

For a set K of the circuit's heads, |F(circuit − K) − F(model − K)| is small if the circuit holds
all that the model does the task with: a part that the circuit lacks would go on working in the
model. F is accuracy, always, with K knocked out in both as the evaluation says. K is each whole
group, and 20 random sets with every head in or out at even odds (Prakash et al., circuit
completeness).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from backend.core.heads import Site
from backend.core.progress import Progress, between, silent
from backend.core.statistics import mean_share, share_difference, wilson
from backend.methods.evaluation import Evaluation
from backend.methods.results import Completeness, Removal
from backend.tasks.circuit import Circuit

N_RANDOM_SETS = 20


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
    kept_in: Path | None = None,
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
