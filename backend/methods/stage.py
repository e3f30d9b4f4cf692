"""One stage of discovery by path patching: every head as a sender to the heads found before.

Undefined figures are NaN (Prakash et al., circuit discovery).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from backend.core.heads import Head
from backend.core.metrics import Score
from backend.core.progress import Plan, Progress, Report, Step
from backend.core.statistics import false_discovery, p_below_zero, student
from backend.engine.costs import Scale
from backend.methods.asking import scored_stage
from backend.methods.method import Figure, Finished, Method, Unfinished
from backend.methods.plans import chosen_step, scale_of
from backend.methods.requests import score_name
from backend.tasks.chance import ForcedChoice
from backend.tasks.circuit import Circuit
from backend.tasks.prompts import Prompts
from backend.tasks.task import Group

if TYPE_CHECKING:
    from torch import Tensor

    from backend.engine.path_patching.run_pairs import RunPairs

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


@dataclass(frozen=True)
class StageRequest:
    """One stage of discovery: every head as a sender of this group to these receivers."""

    model: str
    prompts: Prompts
    group: str
    receivers: tuple[Head, ...]
    score: Score = Score.probability

    def __post_init__(self) -> None:
        Circuit.of(self.prompts.task, {self.group: self.receivers})  # raises for an unknown group


@dataclass(frozen=True, eq=False)
class Stage:
    """The scores of one stage of discovery, over its prompts; negative where a head matters.

    group: its key; mean, standard_error [n_layers, n_heads]; receivers, the heads it feeds; n,
    prompts; clean_probability, of the right answer with nothing patched, mean over prompts;
    centred_error [n_layers, n_heads], the standard error of `centred`; forced_choice, on the first
    prompts of the seed, right or wrong. What a file of an older version lacks is 0, NaN and None.
    """

    group: str
    mean: NDArray[np.float64]
    standard_error: NDArray[np.float64]
    receivers: tuple[Head, ...]
    n: int = 0
    clean_probability: float = float("nan")
    centred_error: NDArray[np.float64] | None = None
    forced_choice: ForcedChoice | None = None
    score: Score = Score.probability

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
        """Whether the model is so sure that the score hardly shows what a head does.

        Never with the change of the logit difference, which has no upper end.
        """
        return self.score is Score.probability and self.clean_probability >= SATURATED

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

    @property
    def choices(self) -> tuple[ForcedChoice | None]:
        """How the model does beside guessing."""
        return (self.forced_choice,)


def stage_step(scale: Scale, n: int, group: Group, receiving: Collection[int]) -> Step:
    """One stage of discovery on `n` prompts, with receivers in these layers."""
    cost = 2 * scale.runs(n) + n * sum(scale.senders(group, receiving).values())
    return Step(f"Stage {group.key}, {group.name}", cost)


def _plan(request: StageRequest) -> Plan:
    scale, n = scale_of(request.model, request.prompts), request.prompts.n
    group = request.prompts.task.group(request.group)
    receiving = {head.layer for head in request.receivers}
    return [[chosen_step(scale, n), stage_step(scale, n, group, receiving)]]


def _work(
    request: StageRequest, _: Finished, report: Report, unfinished: Unfinished
) -> Iterator[Stage]:
    def scores(pairs: RunPairs, told: Progress) -> Tensor:
        from backend.engine.path_patching.scores import scores_of

        given = pairs, request.group, request.receivers, told
        return scores_of(*given, kept_in=unfinished(0), score=request.score)

    yield scored_stage(request, report, _plan(request), scores)


def _rows(request: StageRequest, _: int, part: Stage) -> Iterator[Figure]:
    mean, error = part.mean, part.standard_error
    for place in abs(mean).argsort(axis=None)[::-1].tolist():
        head = Head(*divmod(place, mean.shape[1]))
        score = student(float(mean[head]), float(error[head]), request.prompts.n)
        yield Figure(str(head), score_name(part.score), score)


def _settings(request: StageRequest) -> str:
    into = f", into {', '.join(map(str, request.receivers))}" if request.receivers else ""
    return f"stage {request.group}{into}"


METHOD = Method(
    "stage",
    "Discover, one stage",
    StageRequest,
    lambda _: (Stage,),
    _plan,
    _work,
    _rows,
    _settings,
)
