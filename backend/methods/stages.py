"""Discovery, stage by stage: what was found for each group, what is kept, what comes next.

Importing this module imports no torch. Undefined figures are NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from backend.core.heads import Head, Site
from backend.core.metrics import Score
from backend.methods.stage import LEAST_EFFECT_WHEN_SATURATED, NO_TEST, Stage
from backend.tasks.circuit import Circuit
from backend.tasks.task import Group, Task

DEFAULT_FDR = 0.05


@dataclass(frozen=True)
class Criteria:
    """Which heads of a stage are kept.

    sizes: at most so many of each group, by its key, the strongest; as many as the task says of
    groups that are not there; centred: whether they are ranked by the score less the median of
    their layer; fdr: the share of those that are clear which may be so by luck; least_effect: what
    the score must be below, less than zero.
    """

    sizes: Mapping[str, int] = field(default_factory=dict)
    centred: bool = False
    fdr: float = DEFAULT_FDR
    least_effect: float = 0.0

    def size(self, group: Group) -> int:
        """At most so many heads are kept of it."""
        return self.sizes.get(group.key, group.size)

    def kept(self, group: Group, stage: Stage) -> tuple[Head, ...]:
        """The heads of a group's stage that are kept, the strongest first."""
        strongest = stage.strongest(self.size(group), centred=self.centred, fdr=self.fdr)
        if not self.least_effect:
            return strongest
        return tuple(head for head in strongest if stage.mean[head] < -self.least_effect)


def next_stage(
    task: Task, stages: Sequence[Stage], criteria: Criteria
) -> tuple[Group, tuple[Head, ...]] | None:
    """The group to look for after these, and what it feeds; None when there is none left.

    A group whose receiving groups keep no head has nothing to feed, and is passed over.
    """
    found = {stage.group: stage for stage in stages}
    places = [task.keys.index(key) for key in found]
    for group in task.groups[max(places, default=-1) + 1 :]:
        receivers = receivers_of(task, group, found, criteria)
        if receivers or group.component == "logits":
            return group, receivers
    return None


def receivers_of(
    task: Task, group: Group, found: Mapping[str, Stage], criteria: Criteria
) -> tuple[Head, ...]:
    """The heads that a group feeds: those kept in the groups that it writes into, each once."""
    kept = (criteria.kept(task.group(key), found[key]) for key in group.into if key in found)
    return tuple(dict.fromkeys(head for heads in kept for head in heads))


def stages_in_order(
    task: Task,
    criteria: Criteria,
    ask: Callable[[Group, tuple[Head, ...]], Stage],
    done: Sequence[Stage] = (),
    until: str | None = None,
) -> Iterator[Stage]:
    """Discovery after the stages that are done: `ask` for one group after the other.

    `until` is the key of the last group asked for; all are, unless it is given.

    The heads kept in a group are the receivers of those that write into it (Prakash et al., circuit
    discovery).
    """
    stages, last = list(done), task.keys.index(until or task.keys[-1])
    while found := next_stage(task, stages, criteria):
        if task.keys.index(found[0].key) > last:
            return
        stages.append(ask(*found))
        yield stages[-1]


def n_valid(task: Task, stages: Sequence[Stage], criteria: Criteria) -> int:
    """How many stages, from the first on, have the receivers that these criteria ask for."""
    for place, stage in enumerate(stages):
        expected = next_stage(task, stages[:place], criteria)
        if expected is None or (stage.group, stage.receivers) != (expected[0].key, expected[1]):
            return place
    return len(stages)


@dataclass(frozen=True, eq=False)
class Discovery:
    """What path patching found on `n_prompts` prompts, stage by stage.

    Groups that had nothing to feed have no stage.
    """

    task: Task
    stages: tuple[Stage, ...]
    n_prompts: int

    def circuit(self, criteria: Criteria, name: str, provenance: Mapping[str, Any]) -> Circuit:
        """The heads of each group that are kept, with scores and receivers in the provenance.

        A head that is kept in two groups at one token counts as the one found later, as B and not
        A in the paper's circuits.
        """
        groups = {stage.group: self.task.group(stage.group) for stage in self.stages}
        kept = {stage.group: criteria.kept(groups[stage.group], stage) for stage in self.stages}
        taken: set[Site] = set()
        nodes: set[tuple[str, Head]] = set()
        for stage in reversed(self.stages):
            position = groups[stage.group].position
            sites = {Site(head, position) for head in kept[stage.group]} - taken
            nodes |= {(stage.group, site.head) for site in sites}
            taken |= sites
        found: dict[str, Any] = {
            "n_prompts": self.n_prompts,
            "score": (self.stages[0].score if self.stages else Score.probability).name,
            "ranked_by": "score less the median of its layer" if criteria.centred else "score",
            "sizes": {group.key: criteria.size(group) for group in self.task.groups},
            "false_discovery_rate": criteria.fdr,
            "clean_probability": {
                stage.group: _or_none(stage.clean_probability) for stage in self.stages
            },
            "heads": {
                stage.group: [_scored(stage, head) for head in kept[stage.group]]
                for stage in self.stages
            },
            "receivers": {
                stage.group: [[*head] for head in stage.receivers] for stage in self.stages
            },
            "scores": {stage.group: stage.mean.tolist() for stage in self.stages},
            "standard_errors": {
                stage.group: stage.standard_error.tolist() for stage in self.stages
            },
        }
        return Circuit(self.task, frozenset(nodes), name, {**provenance, **found})


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


def remark(group: Group, stage: Stage, criteria: Criteria) -> str | None:
    """What must be known of a stage's scores and of what it keeps; None if nothing."""
    is_tested, said = criteria.fdr < NO_TEST, []
    if stage.is_saturated:
        only = f"Only those below −{LEAST_EFFECT_WHEN_SATURATED:g} count. " if is_tested else ""
        said.append(
            "The score is saturated: the right answer has a probability of "
            f"{stage.clean_probability:.4f} with nothing patched, and heads that matter may hardly "
            f"change it. {only}Score by the change of the logit difference instead."
        )
    if not criteria.kept(group, stage):
        said.append(
            f"No head is clear among the {stage.n_tried} that were tried (false discovery rate "
            f"{criteria.fdr:g}, n = {stage.n}): none is kept."
            if is_tested
            else "No head has a negative score: none is kept."
        )
    return " ".join(said) or None


def nothing_to_feed(group: Group) -> str:
    """Why a stage is not run when the groups that it writes into keep no head."""
    empty = " and ".join(group.into)
    verb = "keeps" if len(group.into) == 1 else "keep"
    return f"Not run: {empty} {verb} no head, so there is nothing to feed."
