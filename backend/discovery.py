"""Find a circuit: path patching backwards from the logits, group by group.

A is what feeds the logits, B what feeds A's queries, C what feeds B's values, D what feeds C's
values. The strongest heads of a stage are the receivers of the next (Prakash et al., circuit
discovery).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from backend.circuit import Circuit, Group, Head, Site
from backend.faithfulness import Backdrop, circuits_right
from backend.path_patching import Progress, scores_of
from backend.run_pairs import RunPairs

StageProgress = Callable[[Group, int, int], None]
"""(stage, steps done, steps of this stage); may raise to cancel."""


@dataclass(frozen=True, eq=False)
class Stage:
    """The scores of one stage, over its prompts; negative where a head matters.

    mean, standard_error [n_layers, n_heads]; receivers, the heads of the group after this one.
    """

    mean: Tensor
    standard_error: Tensor
    receivers: tuple[Head, ...]

    @property
    def centred(self) -> Tensor:
        """Scores less the median of their layer, what any head there does: [n_layers, n_heads]."""
        return self.mean - self.mean.quantile(0.5, dim=1, keepdim=True)

    def strongest(
        self, k: int, least_effect: float = 0.0, centred: bool = False
    ) -> tuple[Head, ...]:
        """At most `k` heads, the most negative first, all with scores below -`least_effect`."""
        scores = self.centred if centred else self.mean
        order = scores.flatten().argsort(stable=True)[:k].tolist()
        heads = [Head(*divmod(place, scores.shape[1])) for place in order]
        return tuple(head for head in heads if scores[head] < -least_effect)


@dataclass(frozen=True, eq=False)
class Discovery:
    """What path patching found on `n_prompts` prompts, stage by stage."""

    stages: Mapping[Group, Stage]
    n_prompts: int

    def circuit(
        self,
        sizes: Mapping[Group, int],
        name: str,
        provenance: Mapping[str, Any],
        centred: bool = False,
    ) -> Circuit:
        """The strongest heads of each group, with scores and receivers in the provenance.

        A head that is among the strongest in both A and B counts as B, as in the
        paper's circuits.
        """
        groups = {
            group: stage.strongest(sizes[group], centred=centred)
            for group, stage in self.stages.items()
        }
        groups[Group.A] = tuple(head for head in groups[Group.A] if head not in groups[Group.B])
        found: dict[str, Any] = {
            "n_prompts": self.n_prompts,
            "ranked_by": "score less the median of its layer" if centred else "score",
            "sizes": {group.name: sizes[group] for group in Group},
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


def discover(
    pairs: RunPairs,
    n_receivers: Mapping[Group, int],
    least_effect: float = 0.0,
    progress: StageProgress = lambda stage, done, total: None,
    centred: bool = False,
) -> Discovery:
    """Run the four stages; `n_receivers` says how many heads of A, B and C the next one feeds.

    Only heads with a score below -`least_effect` can be receivers; a stage that has none scores
    zero throughout.
    """
    stages: dict[Group, Stage] = {}
    receivers: tuple[Head, ...] = ()
    for group in (Group.A, Group.B, Group.C, Group.D):
        stages[group] = find_stage(pairs, group, receivers, partial(progress, group))
        receivers = stages[group].strongest(n_receivers.get(group, 0), least_effect, centred)
    return Discovery(stages, pairs.n_prompts)


def find_stage(
    pairs: RunPairs,
    group: Group,
    receivers: tuple[Head, ...],
    progress: Progress = lambda done, total: None,
) -> Stage:
    """One stage: every head as a sender to these receivers."""
    scores = scores_of(pairs, group, receivers, progress)
    return Stage(scores.mean(0), scores.std(0) / len(scores) ** 0.5, receivers)


def circuit_accuracies(
    backdrop: Backdrop, circuits: Sequence[Collection[Site]], answer_ids: Tensor
) -> Tensor:
    """Share of right answers [n_circuits] of each circuit alone; `answer_ids` [n]."""
    return torch.cat([*circuits_right(backdrop, circuits, answer_ids)]).double().mean(-1)


def prune(
    backdrop: Backdrop, circuit: Circuit, answer_ids: Tensor, least_accuracy: float
) -> Circuit:
    """Drop, one by one, the member whose loss costs least, while accuracy stays high enough.

    Of members that cost the same, the first in reading order goes. A circuit that is not accurate
    enough to begin with is returned as it is.
    """
    while circuit.members:
        smaller = [
            circuit.keep(member for member in circuit.members if member != dropped)
            for dropped in circuit.members
        ]
        accuracies = circuit_accuracies(backdrop, [each.sites for each in smaller], answer_ids)
        best = int(accuracies.argmax())
        if accuracies[best] < least_accuracy:
            break
        circuit = smaller[best]
    return circuit
