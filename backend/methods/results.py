"""What the methods find, as plain values for tables, pages and JSON (no torch).

Groups are keyed by their letter and heads are [layer, index], so that every result survives
`dataclasses.asdict` and JSON. Figures that are undefined are NaN.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import compress
from typing import NamedTuple

from backend.core.heads import Head
from backend.core.metrics import Score
from backend.core.statistics import Estimate, clear_among
from backend.tasks.chance import ForcedChoice

_ROUNDING = 1e-12


class WrongAnswer(NamedTuple):
    """What a model says instead of the right answer, and on how many prompts."""

    word: str
    n: int


@dataclass(frozen=True)
class AccuracyReport:
    """How well a model does the task, and what it says instead of the right answer.

    competitor: share of prompts answered with one that it competes with; instead: the most frequent
    wrong answers. What a file of an older version lacks is None, and nothing.
    """

    accuracy: Estimate
    probability: Estimate
    rank: Estimate
    logit_difference: Estimate
    forced_choice: ForcedChoice | None = None
    competitor: Estimate | None = None
    instead: tuple[WrongAnswer, ...] = ()


@dataclass(frozen=True)
class FaithfulnessReport:
    """How much of a model its circuit does alone (Prakash et al., circuit evaluation)."""

    model: Estimate
    circuit: Estimate
    faithfulness: Estimate
    n_reference: int
    forced_choice: ForcedChoice | None = None


@dataclass(frozen=True)
class RandomCircuits:
    """How well random circuits of the same sizes do.

    mean: over prompts and draws, its interval over prompts; spread: standard deviation of the
    draws; accuracies: of each draw, or the mean of another metric.
    """

    mean: Estimate
    spread: float
    accuracies: tuple[float, ...]


@dataclass(frozen=True)
class Knockout:
    """What is left without one whole group, by the metric, and how far it is above that with it."""

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

    receiver: None for the logits; weight: the mean score, negative where the path matters.
    """

    group: str
    sender: Head
    receiver: Head | None
    weight: Estimate


@dataclass(frozen=True)
class Edges:
    """The weight of every edge of a circuit that a model can have, by one score."""

    model: str
    circuit: str
    edges: tuple[Edge, ...]
    score: Score = Score.probability

    @property
    def clear(self) -> tuple[Edge, ...]:
        """The edges whose weights are clear among all that were measured."""
        chosen = clear_among([edge.weight for edge in self.edges])
        return tuple(compress(self.edges, chosen))
