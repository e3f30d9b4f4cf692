"""A quick preview of a stage of discovery: path patching in which few tokens run again.

Every head is run as a sender, as in the stage itself, and receivers receive what they do there; but
of each prompt only the tokens run again that see most of the change, and what goes through others
is added to first order (`backend.engine.path_patching.quick`). Stages whose group is at the last
tokens, or writes into the logits, lose nothing by that. No circuit is made of it
(`backend.methods.preview`).
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

N_TOKENS = 4


@dataclass(frozen=True)
class QuickRequest:
    """A preview of one stage: every head as a sender of this group to these receivers.

    n_tokens: at most so many tokens of each prompt run again, two or more.
    """

    model: str
    prompts: Prompts
    group: str
    receivers: tuple[Head, ...]
    score: Score = Score.probability
    n_tokens: int = N_TOKENS

    def __post_init__(self) -> None:
        Circuit.of(self.prompts.task, {self.group: self.receivers})  # raises for an unknown group


def _plan(request: QuickRequest) -> Plan:
    scale, n = scale_of(request.model, request.prompts), request.prompts.n
    group = request.prompts.task.group(request.group)
    receiving = {head.layer for head in request.receivers}
    senders = n * sum(scale.senders(group, receiving, request.n_tokens).values())
    cost = 2 * scale.runs(n) + senders
    if not scale.reruns_all(group, request.n_tokens):
        for n_tokens in (None, request.n_tokens):
            cost += scale.gradients(n, group, receiving, 0, n_tokens)
    return [
        [chosen_step(scale, n), Step(f"Quick preview of stage {group.key}, {group.name}", cost)]
    ]


def _work(
    request: QuickRequest, _: Finished, report: Report, unfinished: Unfinished
) -> Iterator[Preview]:
    def scores(pairs: RunPairs, told: Progress) -> Tensor:
        from backend.engine.path_patching.quick import quick_scores_of

        given = pairs, request.group, request.receivers, request.n_tokens
        return quick_scores_of(*given, told, unfinished(0), request.score)

    yield Preview(scored_stage(request, report, _plan(request), scores))


def _rows(request: QuickRequest, _: int, part: Preview) -> Iterator[Figure]:
    return estimates(part)


def _settings(request: QuickRequest) -> str:
    into = f", into {', '.join(map(str, request.receivers))}" if request.receivers else ""
    return f"stage {request.group}{into}, {how(request.n_tokens)}"


def how(n_tokens: int) -> str:
    """How scores are estimated, in words."""
    return f"runs of at most {n_tokens} tokens, gradients for the rest"


METHOD = Method(
    "quick",
    "Discover, quick preview",
    QuickRequest,
    lambda _: (Preview,),
    _plan,
    _work,
    _rows,
    _settings,
)
