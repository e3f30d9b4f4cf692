"""Direct logit attribution: which parts of a model write the answer, and which against it.

The logit difference at the last token, the right answer's logit less the mean of its competitors',
is a sum over what the embedding, every head, every MLP and the biases add to the residual stream,
read through the final norm with its scale held at what it is on each prompt (Elhage et al., 2021;
Wang et al., 2023, section 3.1). Every prompt's parts are kept, so that sums over heads and
differences between models have intervals over prompts.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from backend.core.errors import UserError
from backend.core.heads import Head
from backend.core.kept import Kept
from backend.core.progress import Plan, Progress, Report, Step, silent, step_of
from backend.core.runtime import at_work
from backend.core.statistics import Estimate, clear_among, mean_estimate
from backend.methods.asking import loaded, not_done
from backend.methods.method import Command, Figure, Finished, Method, Unfinished
from backend.methods.plans import scale_of
from backend.models import catalogue
from backend.tasks.chance import ForcedChoice, forced_choice
from backend.tasks.prompts import N_PROMPTS, Prompts

if TYPE_CHECKING:
    from backend.models.loading import LoadedModel

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LogitAttributionRequest:
    """Which parts of each model write the answer."""

    models: tuple[str, ...]
    prompts: Prompts


@dataclass(frozen=True, eq=False)
class Parts:
    """What each part adds to the logit difference of n prompts, in logits.

    heads [n, n_layers, n_heads]; attention_biases, mlps [n, n_layers]; embedding, bias [n], the
    bias that of final norm and unembedding; difference [n], what they sum to.
    """

    heads: Floats
    attention_biases: Floats
    mlps: Floats
    embedding: Floats
    bias: Floats
    difference: Floats

    def of_heads(self, chosen: Collection[Head]) -> Floats:
        """What these heads add together: [n]."""
        return sum((self.heads[:, head.layer, head.index] for head in chosen), 0 * self.difference)


@dataclass(frozen=True)
class LogitAttribution:
    """What each part of a model adds to the logit difference, mean over prompts, in logits.

    heads: by layer; attention_biases, mlps: by layer, the biases that of the output projection (and
    of a norm after it); embedding, with that of positions; bias, of final norm and unembedding;
    gap, the most by which the sum of all parts misses the difference on a prompt; cap: what the
    model keeps its logits below, if anything, and these are those before; texts, answers: the
    prompts and their right answers; by_prompt: the parts of each prompt, packed (see `parts_of`).
    """

    difference: Estimate
    embedding: Estimate
    heads: tuple[tuple[Estimate, ...], ...]
    attention_biases: tuple[Estimate, ...]
    mlps: tuple[Estimate, ...]
    bias: Estimate
    gap: float
    cap: float | None
    texts: tuple[str, ...]
    answers: tuple[str, ...]
    by_prompt: str
    forced_choice: ForcedChoice | None = None

    @property
    def choices(self) -> tuple[ForcedChoice | None]:
        """How the model does beside guessing."""
        return (self.forced_choice,)

    @property
    def clear(self) -> frozenset[Head]:
        """The heads whose mean contributions differ clearly from nothing, among all heads."""
        names = [Head(layer, i) for layer, row in enumerate(self.heads) for i in range(len(row))]
        chosen = clear_among([each for row in self.heads for each in row])
        return frozenset(head for head, is_clear in zip(names, chosen, strict=True) if is_clear)


def logit_attribution(
    model: LoadedModel, prompts: Prompts, progress: Progress = silent, kept_in: Kept | None = None
) -> LogitAttribution:
    """What each part of a model adds to the logit difference on these prompts.

    Finished batches are kept in a folder, if there is one, and taken from there. Raises UserError
    for a model that cannot be taken apart.
    """
    from backend.engine.architectures import logit_cap
    from backend.engine.logit_attribution import direct_contributions

    drawn = prompts.sample(model.tokenizer)
    with at_work(model.runtime):
        found = direct_contributions(model.model, drawn, progress, kept_in)
    parts = Parts(
        *(
            getattr(found, name).numpy()
            for name in ("heads", "attention_biases", "mlps", "embedding", "bias", "difference")
        )
    )
    words = [model.tokenizer.decode([token]).strip() for token in drawn.answer_ids.tolist()]
    return LogitAttribution(
        mean_estimate(parts.difference),
        mean_estimate(parts.embedding),
        tuple(tuple(map(mean_estimate, layer)) for layer in np.moveaxis(parts.heads, 0, -1)),
        tuple(map(mean_estimate, parts.attention_biases.T)),
        tuple(map(mean_estimate, parts.mlps.T)),
        mean_estimate(parts.bias),
        found.gap,
        logit_cap(model.model),
        drawn.texts,
        tuple(words),
        packed(parts),
        forced_choice(found.forced.numpy(), drawn.n_choices),
    )


def packed(parts: Parts) -> str:
    """The parts of every prompt as text, four bytes each."""
    n = len(parts.difference)
    table = np.concatenate([each.reshape(n, -1) for each in vars(parts).values()], 1)
    return b64encode(table.astype("<f4").tobytes()).decode()


def parts_of(found: LogitAttribution) -> Parts:
    """What `packed` made text of. Raises UserError for any other text."""
    n, n_layers, n_heads = len(found.texts), len(found.heads), len(found.heads[0])
    sizes = np.cumsum([n_layers * n_heads, n_layers, n_layers, 1, 1])
    try:
        table = np.frombuffer(b64decode(found.by_prompt, validate=True), "<f4")
        table = table.astype(np.float64).reshape(n, sizes[-1] + 1)
    except ValueError as error:
        raise UserError("The saved parts are damaged. Delete the result, run again.") from error
    heads, biases, mlps, *others = np.split(table, sizes, 1)
    return Parts(
        heads.reshape(n, n_layers, n_heads), biases, mlps, *(each[:, 0] for each in others)
    )


def _plan(request: LogitAttributionRequest) -> Plan:
    return [
        [
            Step(
                f"Attributing the logits of {catalogue.label(name)}",
                scale_of(name, request.prompts).runs(request.prompts.n),
            )
        ]
        for name in request.models
    ]


def _work(
    request: LogitAttributionRequest, done: Finished, report: Report, unfinished: Unfinished
) -> Iterator[LogitAttribution]:
    plan = _plan(request)
    for place, name in not_done(request.models, done):
        model = loaded(name, report, plan, place)
        told = step_of(report, plan, place, 0)
        yield logit_attribution(model, request.prompts, told, unfinished(place))


def _rows(request: LogitAttributionRequest, place: int, part: LogitAttribution) -> Iterator[Figure]:
    model, parts = catalogue.label(request.models[place]), parts_of(part)
    yield Figure(model, "logit difference", part.difference)
    yield Figure(model, "embedding", part.embedding)
    yield Figure(model, "all heads", mean_estimate(parts.heads.sum((1, 2))))
    yield Figure(model, "all MLPs", mean_estimate(parts.mlps.sum(1)))
    of_heads = {
        f"L{layer}.{index}": estimate
        for layer, row in enumerate(part.heads)
        for index, estimate in enumerate(row)
    }
    for name, estimate in sorted(of_heads.items(), key=lambda item: -abs(item[1].value)):
        yield Figure(model, name, estimate)
    for layer, estimate in enumerate(part.mlps):
        yield Figure(model, f"MLP of L{layer}", estimate)
    for layer, estimate in enumerate(part.attention_biases):
        if estimate.value:
            yield Figure(model, f"bias of attention, L{layer}", estimate)
    if part.bias.value:
        yield Figure(model, "bias of final norm and unembedding", part.bias)


def _remarks(request: LogitAttributionRequest, parts: Finished) -> Iterator[str]:
    for name, part in zip(request.models, parts, strict=False):
        capped = " before the cap" if part.cap else ""
        yield (
            f"{catalogue.label(name)}: the parts sum to the logit difference{capped}, to within "
            f"{part.gap:.2g} on every prompt; {len(part.clear)} heads are clear"
        )


METHOD = Method(
    "logit-attribution",
    "Direct logit attribution",
    LogitAttributionRequest,
    lambda request: (LogitAttribution,) * len(request.models),
    _plan,
    _work,
    _rows,
    command=Command(
        "which heads and MLPs write the answer into the logits, and which against it",
        "logit-attribution base arithmetic-full",
        N_PROMPTS,
        remarks=_remarks,
    ),
)
