"""Where the heads of a circuit attend, from their group's token, in the mean over prompts.

Each head's attention weights at its group's token are added up by the role of the token that they
go to, in every prompt, whether it is answered right or wrong; they sum to 1. Where a head attends
says what it can read there, not that the model uses it: attention knockout cuts it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from backend.core.heads import Head
from backend.core.kept import Kept
from backend.core.progress import Plan, Progress, Report, Step, silent, step_of
from backend.core.runtime import at_work
from backend.core.statistics import Estimate, mean_share
from backend.methods.asking import loaded, not_done
from backend.methods.method import Command, Figure, Finished, Method, Unfinished
from backend.methods.plans import scale_of
from backend.models import catalogue
from backend.tasks.circuit import Circuit
from backend.tasks.prompts import N_PROMPTS, Prompts

if TYPE_CHECKING:
    from torch import Tensor

    from backend.models.loading import LoadedModel


@dataclass(frozen=True)
class AttentionRequest:
    """Where the heads of a circuit attend, in these models."""

    models: tuple[str, ...]
    circuit: Circuit
    prompts: Prompts


@dataclass(frozen=True)
class HeadAttention:
    """Mean attention of a head from its group's token to each target, in the targets' order."""

    group: str
    head: Head
    by_target: tuple[Estimate, ...]


@dataclass(frozen=True)
class Attention:
    """Where every head of a circuit attends in a model."""

    targets: tuple[str, ...]
    heads: tuple[HeadAttention, ...]


def attention(
    model: LoadedModel,
    circuit: Circuit,
    prompts: Prompts,
    progress: Progress = silent,
    kept_in: Kept | None = None,
) -> Attention:
    """Mean attention of the circuit's heads; finished batches are kept in a folder, if any.

    Raises UserError when the circuit has heads that the model does not have.
    """
    import torch

    from backend.engine import checkpoints
    from backend.engine.attention import attention_by_target
    from backend.engine.memory import memory_errors_explained, prompt_batches

    circuit.check(model.shape, catalogue.label(model.name))
    drawn, task = prompts.sample(model.tokenizer), prompts.task
    batches = prompt_batches(model.model, *drawn.input_ids.shape)

    def of_batch(rows: slice) -> Tensor:
        progress(rows.start, prompts.n)
        by_token = attention_by_target(model.model, drawn, rows)
        of_heads = [
            by_token[task.group(key).position][head.layer, :, head.index]
            for key, head in circuit.members
        ]
        return torch.stack(of_heads, 1).cpu()

    blocks = [
        checkpoints.Block(
            checkpoints.name_of(rows),
            (rows.stop - rows.start, len(circuit.members), len(task.targets)),
            torch.float64,
            partial(of_batch, rows),
        )
        for rows in batches
    ]
    with at_work(model.runtime), memory_errors_explained(model.model, batches[0].stop):
        found = checkpoints.tensors(kept_in, blocks)
    masses = torch.cat(found).numpy()
    progress(prompts.n, prompts.n)
    return Attention(
        task.targets,
        tuple(
            HeadAttention(key, head, tuple(mean_share(each) for each in masses[:, number].T))
            for number, (key, head) in enumerate(circuit.members)
        ),
    )


def _plan(request: AttentionRequest) -> Plan:
    def step(name: str) -> Step:
        cost = scale_of(name, request.prompts).runs(request.prompts.n)
        return Step(f"Reading attention of {catalogue.label(name)}", cost)

    return [[step(name)] for name in request.models]


def _work(
    request: AttentionRequest, done: Finished, report: Report, unfinished: Unfinished
) -> Iterator[Attention]:
    plan = _plan(request)
    for place, name in not_done(request.models, done):
        model = loaded(name, report, plan, place)
        told = step_of(report, plan, place, 0)
        yield attention(model, request.circuit, request.prompts, told, unfinished(place))


def _rows(request: AttentionRequest, place: int, part: Attention) -> Iterator[Figure]:
    model = catalogue.label(request.models[place])
    for each in part.heads:
        for target, mass in zip(part.targets, each.by_target, strict=True):
            yield Figure(f"{model}, {each.group} {each.head}", f"attention to {target}", mass)


METHOD = Method(
    "attention",
    "Attention",
    AttentionRequest,
    lambda request: (Attention,) * len(request.models),
    _plan,
    _work,
    _rows,
    command=Command(
        "where the heads of a circuit attend, by the role of the token",
        "attention base chat --circuit base",
        N_PROMPTS,
    ),
)
