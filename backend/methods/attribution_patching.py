"""A preview of a stage of discovery: attribution patching, checked by exact path patching.

Every head's score as a sender, to first order: what path patching measures head by head is taken to
be linear in each head's output, so that one backward pass has all of them (Nanda, 2023; Syed et
al., 2023; with gradients integrated over some steps, Hanna et al., 2024). See
`backend.engine.path_patching.attribution_patching` for what exactly is approximated. A preview is
never a circuit: it says which heads to measure exactly first (`backend.methods.chosen_senders`),
and `backend.methods.agreement` says how far it can be trusted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend.core.heads import Head
from backend.core.metrics import Score
from backend.core.progress import Plan, Progress, Report, Step
from backend.methods.asking import scored_stage
from backend.methods.method import Figure, Finished, Method, Unfinished
from backend.methods.plans import chosen_step, scale_of
from backend.methods.preview import Preview, estimates
from backend.tasks.circuit import Circuit
from backend.tasks.prompts import Prompts

if TYPE_CHECKING:
    from torch import Tensor

    from backend.engine.path_patching.run_pairs import RunPairs

MOST_STEPS = 100


@dataclass(frozen=True)
class AttributionRequest:
    """A preview of one stage: every head as a sender of this group to these receivers.

    steps: over how many points gradients are integrated; 0 for the gradient at the clean run.
    """

    model: str
    prompts: Prompts
    group: str
    receivers: tuple[Head, ...]
    score: Score = Score.probability
    steps: int = 0

    def __post_init__(self) -> None:
        Circuit.of(self.prompts.task, {self.group: self.receivers})  # raises for an unknown group


def _plan(request: AttributionRequest) -> Plan:
    scale, n = scale_of(request.model, request.prompts), request.prompts.n
    group = request.prompts.task.group(request.group)
    receiving = {head.layer for head in request.receivers}
    cost = 2 * scale.runs(n) + scale.gradients(n, group, receiving, request.steps)
    return [[chosen_step(scale, n), Step(f"Preview of stage {group.key}, {group.name}", cost)]]


def _work(
    request: AttributionRequest, _: Finished, report: Report, unfinished: Unfinished
) -> Iterator[Preview]:
    def scores(pairs: RunPairs, told: Progress) -> Tensor:
        from backend.engine.path_patching.attribution_patching import attributions_of

        given = pairs, request.group, request.receivers, told, unfinished(0)
        return attributions_of(*given, request.score, request.steps)

    yield Preview(scored_stage(request, report, _plan(request), scores), request.steps)


def _rows(request: AttributionRequest, _: int, part: Preview) -> Iterator[Figure]:
    return estimates(part)


def _settings(request: AttributionRequest) -> str:
    into = f", into {', '.join(map(str, request.receivers))}" if request.receivers else ""
    return f"stage {request.group}{into}, {how(request.steps)}"


def how(steps: int) -> str:
    """How gradients are taken, in words."""
    return f"gradients integrated over {steps} steps" if steps else "first order"


METHOD = Method(
    "attribution-patching",
    "Discover, preview",
    AttributionRequest,
    lambda _: (Preview,),
    _plan,
    _work,
    _rows,
    _settings,
)
