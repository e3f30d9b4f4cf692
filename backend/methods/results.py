"""What the methods find, as plain values for tables, pages and JSON (no torch).

Groups are keyed by their letter and heads are [layer, index], so that every result survives
`dataclasses.asdict` and JSON. Figures that are undefined are NaN.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress
from math import isfinite
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from backend.core.circuit import Circuit, Group, Head
from backend.core.statistics import Estimate, clear_among, false_discovery, p_below_zero
from backend.tasks.chance import ForcedChoice

DEFAULT_SIZES: Mapping[Group, int] = {Group.A: 8, Group.B: 6, Group.C: 4, Group.D: 4}
"""How many heads the groups keep at most unless told otherwise."""
DEFAULT_FDR = 0.05
NO_TEST = 1.0
"""The false discovery rate at which every head with a negative score is kept."""
SATURATED = 0.99
"""A clean probability of the right answer, mean over prompts, from which on the score saturates.

The score is a relative change of probability. With a probability p, a head that lowers the log odds
by d has a score of about -(1 - p)(exp(d) - 1), which vanishes with 1 - p, however large d. Measured
in the bundled base (100 prompts, stage A, the right answer's logit raised step by step): its
strongest head cuts the odds to a fifth, 9 standard errors from zero, at any p; its score is -0.24
at p = 0.85, -0.075 at 0.988, -0.046 at 0.995 (3 standard errors) and -0.005 at 0.9999 (1.4).
"""
LEAST_EFFECT_WHEN_SATURATED = 0.05
"""Size of a score that is a finding all the same: at p = 0.99, the odds must fall to a sixth."""
_ROUNDING = 1e-12


class WrongAnswer(NamedTuple):
    """What a model says instead of the right object, and on how many prompts."""

    word: str
    n: int


@dataclass(frozen=True)
class AccuracyReport:
    """How well a model does the task, and what it says instead of the right object.

    other_object: share of prompts answered with another box's object; instead: the most frequent
    wrong answers. What a file of an older version lacks is None, and nothing.
    """

    accuracy: Estimate
    probability: Estimate
    rank: Estimate
    logit_difference: Estimate
    forced_choice: ForcedChoice | None = None
    other_object: Estimate | None = None
    instead: tuple[WrongAnswer, ...] = ()


@dataclass(frozen=True)
class FaithfulnessReport:
    """How much of a model its circuit does alone (Prakash et al., circuit evaluation)."""

    model: Estimate
    circuit: Estimate
    faithfulness: Estimate
    n_reference: int
    forced_choice: ForcedChoice | None = None


@dataclass(frozen=True, eq=False)
class Stage:
    """The scores of one stage of discovery, over its prompts; negative where a head matters.

    mean, standard_error [n_layers, n_heads]; receivers, the heads of the group after this one; n,
    prompts; clean_probability, of the right answer with nothing patched, mean over prompts;
    centred_error [n_layers, n_heads], the standard error of `centred`; forced_choice, on the first
    prompts of the seed, right or wrong. What a file of an older version lacks is 0, NaN and None.
    """

    mean: NDArray[np.float64]
    standard_error: NDArray[np.float64]
    receivers: tuple[Head, ...]
    n: int = 0
    clean_probability: float = float("nan")
    centred_error: NDArray[np.float64] | None = None
    forced_choice: ForcedChoice | None = None

    @property
    def centred(self) -> NDArray[np.float64]:
        """Scores less the median of their layer, what any head there does: [n_layers, n_heads]."""
        return self.mean - np.median(self.mean, axis=1, keepdims=True)

    def ranked(self, centred: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """What heads are ranked by, and its standard errors; NaN of errors that are not known."""
        if not centred:
            return self.mean, self.standard_error
        unknown = np.full_like(self.mean, np.nan)
        return self.centred, unknown if self.centred_error is None else self.centred_error

    @property
    def is_saturated(self) -> bool:
        """Whether the model is so sure that the score hardly shows what a head does."""
        return self.clean_probability >= SATURATED

    @property
    def n_tried(self) -> int:
        """How many heads can reach a receiver; the scores of all others are exactly zero."""
        return int(((self.mean != 0) | (self.standard_error != 0)).sum())

    def z(self, head: Head) -> float:
        """A head's score in standard errors; NaN without an error."""
        error = float(self.standard_error[head])
        return float(self.mean[head]) / error if error else float("nan")

    def clear(self, fdr: float, centred: bool = False) -> NDArray[np.bool_]:
        """Which heads are clearly below zero among all that were tried: [n_layers, n_heads].

        A share `fdr` of them may be there by luck (Benjamini and Hochberg, on one-sided t tests
        over prompts). Tested is what heads are ranked by: the score, or the score less that of the
        head in the middle of its layer, prompt by prompt. Where the score is saturated, it must
        also be of some size. At `NO_TEST` all that are below zero count.
        """
        scores, errors = self.ranked(centred)
        if fdr >= NO_TEST:
            return np.asarray(scores < 0)
        least = LEAST_EFFECT_WHEN_SATURATED if self.is_saturated else 0.0
        return (false_discovery(p_below_zero(scores, errors, self.n)) <= fdr) & (scores < -least)

    def strongest(
        self,
        k: int,
        centred: bool = False,
        fdr: float = NO_TEST,
    ) -> tuple[Head, ...]:
        """At most `k` heads that are `clear`, the most negative first."""
        (scores, _), clear = self.ranked(centred), self.clear(fdr, centred)
        order = scores.flatten().argsort(kind="stable").tolist()
        heads = [Head(*divmod(place, scores.shape[1])) for place in order]
        return tuple(head for head in heads if clear[head])[:k]


@dataclass(frozen=True)
class Criteria:
    """Which heads of a stage are kept.

    sizes: at most so many of each group, the strongest; centred: whether they are ranked by the
    score less the median of their layer; fdr: the share of those that are clear which may be so by
    luck.
    """

    sizes: Mapping[Group, int] = field(default_factory=lambda: DEFAULT_SIZES)
    centred: bool = False
    fdr: float = DEFAULT_FDR

    def kept(self, group: Group, stage: Stage) -> tuple[Head, ...]:
        """The heads of a group's stage that are kept, the strongest first."""
        return stage.strongest(self.sizes[group], centred=self.centred, fdr=self.fdr)


@dataclass(frozen=True, eq=False)
class Discovery:
    """What path patching found on `n_prompts` prompts, stage by stage.

    There are fewer than four stages where one found no head, and so nothing to feed.
    """

    stages: Mapping[Group, Stage]
    n_prompts: int

    def circuit(self, criteria: Criteria, name: str, provenance: Mapping[str, Any]) -> Circuit:
        """The heads of each group that are kept, with scores and receivers in the provenance.

        A head that is kept in both A and B counts as B, as in the paper's circuits.
        """
        kept = {group: criteria.kept(group, stage) for group, stage in self.stages.items()}
        groups = {group: kept.get(group, ()) for group in Group}
        groups[Group.A] = tuple(head for head in groups[Group.A] if head not in groups[Group.B])
        found: dict[str, Any] = {
            "n_prompts": self.n_prompts,
            "ranked_by": "score less the median of its layer" if criteria.centred else "score",
            "sizes": {group.name: criteria.sizes[group] for group in Group},
            "false_discovery_rate": criteria.fdr,
            "clean_probability": {
                group.name: _or_none(stage.clean_probability)
                for group, stage in self.stages.items()
            },
            "heads": {
                group.name: [_scored(stage, head) for head in kept[group]]
                for group, stage in self.stages.items()
            },
            "receivers": {
                group.name: [[*head] for head in stage.receivers]
                for group, stage in self.stages.items()
            },
            "scores": {group.name: stage.mean.tolist() for group, stage in self.stages.items()},
            "standard_errors": {
                group.name: stage.standard_error.tolist() for group, stage in self.stages.items()
            },
        }
        return Circuit(
            {group: tuple(sorted(heads)) for group, heads in groups.items()},
            name,
            {**provenance, **found},
        )


def _scored(stage: Stage, head: Head) -> dict[str, Any]:
    """A head as the provenance has it."""
    return {
        "head": [*head],
        "score": float(stage.mean[head]),
        "standard_error": float(stage.standard_error[head]),
        "z": _or_none(stage.z(head)),
        "n": stage.n,
    }


def _or_none(value: float) -> float | None:
    return value if isfinite(value) else None


@dataclass(frozen=True)
class RandomCircuits:
    """How well random circuits of the same sizes do.

    mean: over prompts and draws, its interval over prompts; spread: standard deviation of the
    accuracies of the draws.
    """

    mean: Estimate
    spread: float
    accuracies: tuple[float, ...]


@dataclass(frozen=True)
class Knockout:
    """What is left without one whole group: accuracies, and what they are above those with it."""

    model: Estimate
    circuit: Estimate
    model_change: Estimate
    circuit_change: Estimate


@dataclass(frozen=True)
class AsInPaper:
    """A circuit as the paper's code ran it: without the adapter on `o_proj`, in every layer."""

    circuit: Estimate
    faithfulness: Estimate


@dataclass(frozen=True)
class ModelFigures:
    """One model's row of the comparison (Prakash et al., table 1); groups are letters.

    as_in_paper: beside the right figures of a model with an adapter on `o_proj`, None of any other.
    """

    name: str
    model: Estimate
    circuit: Estimate
    faithfulness: Estimate
    random: RandomCircuits
    groups: Mapping[str, Knockout]
    n_reference: int
    as_in_paper: AsInPaper | None = None
    forced_choice: ForcedChoice | None = None


@dataclass(frozen=True)
class Difference:
    """How far the second model is above the first, on the same prompts."""

    first: str
    second: str
    model: Estimate
    circuit: Estimate
    faithfulness: Estimate


@dataclass(frozen=True)
class ComparedModel:
    """A model of a comparison, and how far it is above those before it.

    answers: what it answers right, packed, so that models that come later can be paired with it.
    """

    figures: ModelFigures
    differences: tuple[Difference, ...]
    answers: str


@dataclass(frozen=True)
class Comparison:
    """One circuit in many models, and all pairs of them, in the order in which they were given."""

    circuit: str
    models: tuple[ModelFigures, ...]
    differences: tuple[Difference, ...]


@dataclass(frozen=True)
class GroupOverlap:
    """Heads that two circuits share in a group, and those in only one of them.

    precision: share of the found heads that are expected; recall: share of the expected ones that
    are found. NaN of no heads.
    """

    shared: tuple[Head, ...]
    only_found: tuple[Head, ...]
    only_expected: tuple[Head, ...]
    precision: float
    recall: float


@dataclass(frozen=True)
class Transplanted:
    """What the target does with some sites out of the source.

    change: its accuracy above the untouched target's; recovery: the share of the gap between
    source and target that is closed.
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


@dataclass(frozen=True)
class HeadMap:
    """Each single head transplanted: [n_layers][n_heads] at every token, by the token's name."""

    source: str
    target: str
    part: str
    gap: Estimate
    heads: Mapping[str, tuple[tuple[Transplanted, ...], ...]]


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


@dataclass(frozen=True)
class Edge:
    """How much of the answer flows from one head to one of the next group.

    receiver: None for the logits, which A writes into; weight: (p_patched − p_clean) / p_clean of
    the right answer, negative where the path matters.
    """

    group: str
    sender: Head
    receiver: Head | None
    weight: Estimate


@dataclass(frozen=True)
class Edges:
    """The weight of every edge of a circuit that a model can have."""

    model: str
    circuit: str
    edges: tuple[Edge, ...]

    @property
    def clear(self) -> tuple[Edge, ...]:
        """The edges whose weights are clear among all that were measured."""
        chosen = clear_among([edge.weight for edge in self.edges])
        return tuple(compress(self.edges, chosen))


def choices_of(models: Sequence[str], parts: Sequence[Any]) -> dict[str, ForcedChoice]:
    """What the parts of a result say of each of its models beside guessing, as far as they do."""
    found: dict[str, ForcedChoice | None] = {}
    for model, part in zip([*models, *[""] * len(parts)], parts, strict=False):
        match part:
            case AccuracyReport() | FaithfulnessReport():
                found[model] = part.forced_choice
            case ComparedModel():
                found[model] = part.figures.forced_choice
            case Cmap():
                found |= zip(models, (part.source_choice, part.target_choice), strict=True)
            case Stage() if model:
                found[model] = part.forced_choice
    return {model: choice for model, choice in found.items() if choice}
