"""The six claims about the bundled models, measured on fresh prompts (no printing here)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from backend.bundled.curriculum import FINE_TUNES
from backend.bundled.selection import N_BOXES, N_SCORED, Selection, score_heads
from backend.core.components import Component
from backend.core.statistics import (
    Estimate,
    mean_share,
    ratio,
    recovery,
    share_difference,
    student,
    wilson,
)
from backend.engine.attention import attention_mass
from backend.engine.positions import all_sites
from backend.methods.answering import correctly_answered
from backend.methods.cmap import transplanted
from backend.methods.compare import random_circuits
from backend.methods.evaluation import Evaluation
from backend.models.loading import LoadedModel
from backend.tasks.circuit import Circuit
from backend.tasks.entity_tracking import ENTITY_TRACKING, reference_prompts, sample_prompts
from backend.tasks.prompts import Prompts

N_RANDOM_CIRCUITS = 20
N_RANDOM_PATCHES = 5


@dataclass(frozen=True)
class Finding:
    """A measured number beside what is claimed of it: `low` <= value <= `high`."""

    claim: int
    what: str
    measured: Estimate
    low: float = -np.inf
    high: float = np.inf

    @property
    def holds(self) -> bool:
        """Whether the number, not its whole interval, is as claimed."""
        return bool(self.low <= self.measured.value <= self.high)


@dataclass(frozen=True, eq=False)
class Evidence:
    """Everything that the claims are read off; the evaluations, by name, are asked the same."""

    circuit: Circuit
    evaluations: Mapping[str, Evaluation]
    seed: int

    @property
    def base(self) -> Evaluation:
        """The model that the circuit was found in."""
        return self.evaluations["base"]


def gather(models: Sequence[LoadedModel], circuit: Circuit, n: int, seed: int) -> Evidence:
    """Ask every model the same `n` fresh prompts, with as many reference prompts."""
    tokenizer = models[0].tokenizer
    prompts = sample_prompts(tokenizer, n, seed, N_BOXES)
    reference = reference_prompts(tokenizer, n, seed, N_BOXES)
    evaluations = {loaded.name: Evaluation(loaded, prompts, reference) for loaded in models}
    return Evidence(circuit, evaluations, seed)


def findings(evidence: Evidence) -> Iterator[Finding]:
    """Every number of every claim, in the order of the claims."""
    yield from _accuracies(evidence)
    yield from _path_patching(evidence.base.loaded, evidence.seed)
    yield from _circuit_in_base(evidence)
    yield from _circuit_in_fine_tunes(evidence)
    yield from _cross_model_patching(evidence)


def _accuracies(evidence: Evidence) -> Iterator[Finding]:
    base = evidence.base.whole
    yield Finding(1, "base: accuracy", wilson(base), 0.6, 0.8)
    for recipe in FINE_TUNES:
        right = evidence.evaluations[recipe.name].whole
        least, most = (-0.03, 1.0) if recipe.gain is None else (0.12, 0.96)
        yield Finding(2, f"{recipe.name}: accuracy", wilson(right), high=most)
        gain = share_difference(right, base)
        yield Finding(2, f"{recipe.name}: accuracy above the base", gain, low=least)


def _path_patching(base: LoadedModel, seed: int) -> Iterator[Finding]:
    found = score_heads(base, seed, Selection())
    prompts = correctly_answered(base, Prompts(ENTITY_TRACKING, N_SCORED, seed, (N_BOXES,)))
    attention = attention_mass(base.model, prompts)
    stages = {stage.group: stage for stage in found.stages}
    for key, most in (("A", -0.1), ("B", -0.3), ("C", -0.3), ("D", -0.1)):
        stage = stages[key]
        (top,) = stage.strongest(1)
        error = float(stage.standard_error[top])
        measured = student(float(stage.mean[top]), error, found.n_prompts)
        yield Finding(3, f"{key}: top score, {top}", measured, high=most)
    for key, count, target in (
        ("A", 2, "the right object"),
        ("B", 2, "the label in the question"),
        ("C", 1, "the label asked for, in the context"),
    ):
        for head in stages[key].strongest(count):
            masses = attention.mass[ENTITY_TRACKING.group(key).position][head.layer, head.index]
            mass = float(masses[attention.targets.index(target)])
            what = f"{key}: attention of {head} to {target}"
            yield Finding(3, what, Estimate(mass, mass, mass, len(prompts)), low=0.5)


def _circuit_in_base(evidence: Evidence) -> Iterator[Finding]:
    circuit, base = evidence.circuit, evidence.base
    shape = base.loaded.shape
    n_sites = len(all_sites(shape, ENTITY_TRACKING.position_names))
    share = len(circuit.sites) / n_sites
    what = f"circuit: {len(circuit.sites)} of {n_sites} (head, position) pairs"
    yield Finding(4, what, Estimate(share, share, share, 1), high=1 / 3)
    random = random_circuits(circuit, shape, N_RANDOM_CIRCUITS, evidence.seed)
    without = [circuit.sites - circuit.sites_of([key]) for key in circuit.task.keys]
    alone = base.circuit_only([circuit.sites, *without, *random])
    right, random_right = alone[0], alone[1 + len(without) :]
    yield Finding(4, "circuit: faithfulness", ratio(right, base.whole), low=0.95)
    what = f"accuracy of {N_RANDOM_CIRCUITS} random circuits, mean"
    yield Finding(4, what, mean_share(random_right.mean(0), random_right.size), high=0.15)
    best = random_right[random_right.mean(1).argmax()]
    yield Finding(4, "accuracy of the best of them", wilson(best), high=0.15)
    for key, left in zip(circuit.task.keys, alone[1:], strict=False):
        what = f"circuit without {key}: share of its accuracy that is left"
        yield Finding(4, what, ratio(left, right), high=0.25)


def _circuit_in_fine_tunes(evidence: Evidence) -> Iterator[Finding]:
    for recipe in FINE_TUNES:
        evaluation = evidence.evaluations[recipe.name]
        (right,) = evaluation.circuit_only([evidence.circuit.sites])
        least = 0.8 if recipe.gain is None else 0.9
        what = f"base's circuit in {recipe.name}: faithfulness"
        yield Finding(5, what, ratio(right, evaluation.whole), low=least)


def _cross_model_patching(evidence: Evidence) -> Iterator[Finding]:
    circuit, base = evidence.circuit, evidence.base
    everywhere = all_sites(base.loaded.shape, ENTITY_TRACKING.position_names)
    outside = sorted(everywhere - circuit.sites, key=str)
    size = min(len(circuit.sites), len(outside))
    rng = np.random.default_rng(evidence.seed)
    others = [
        frozenset(outside[i] for i in rng.permutation(len(outside))[:size])
        for _ in range(N_RANDOM_PATCHES)
    ]
    for recipe in FINE_TUNES:
        if recipe.gain is None:
            continue
        source = evidence.evaluations[recipe.name]
        patched = transplanted(source, base, [circuit.sites, *others], Component.output)
        closed = recovery(patched[0], base.whole, source.whole)
        yield Finding(6, f"circuit of {recipe.name} in the base: gap closed", closed, low=0.8)
        what = f"{size} heads of {recipe.name} outside the circuit in the base: gap closed"
        closed = recovery(patched[1:].mean(0), base.whole, source.whole)
        yield Finding(6, what, closed, high=0.2)
