"""Copying scores: which heads write the word that they attend to, and which against it.

For each word that is an answer, as it stands in a prompt after the first layer, a head's
output-value circuit writes something, as if the head attended to nothing else. Its copying score is
the share of the words that are among the five highest logits of that alone; its negative copying
score the same of the negative (Wang et al., 2023, section 3.1 and appendix A, who find over 95 %
for name movers and less than 20 % for an average head). Each word counts once, where it first
stands in a prompt; intervals are over words.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from backend.core.errors import UserError
from backend.core.heads import Head
from backend.core.progress import Plan, Progress, Report, Step, silent, step_of
from backend.core.runtime import at_work
from backend.core.statistics import Estimate, clear_among, mean_share, share_above
from backend.methods.asking import loaded, not_done
from backend.methods.method import Command, Figure, Finished, Method, Unfinished
from backend.methods.plans import scale_of
from backend.models import catalogue
from backend.tasks.prompts import N_PROMPTS, Prompts

if TYPE_CHECKING:
    from backend.models.loading import LoadedModel

TOP = 5
"""Of the highest logits, as in the paper."""
_EXPECTED_WORDS = 100
_UNEMBEDDING = 0.5
"""What reading one vector as logits, twice, costs beside a token that passes a layer, about."""


@dataclass(frozen=True)
class CopyingRequest:
    """Which heads of each model copy."""

    models: tuple[str, ...]
    prompts: Prompts


@dataclass(frozen=True, eq=False)
class Copying:
    """Where each word stands in what each head makes of it, and in the negative of that.

    copied, opposed [n_layers * n_heads, n_words], 1 is first, layer by layer; words; n_heads, in a
    layer; n_tokens, in the vocabulary.
    """

    copied: NDArray[np.float64]
    opposed: NDArray[np.float64]
    words: tuple[str, ...]
    n_heads: int
    n_tokens: int

    @property
    def chance(self) -> float:
        """The score of a head that writes any of these words, whatever it attends to.

        That of one that writes any token is TOP / n_tokens, less than this.
        """
        return min(1.0, TOP / len(self.words))

    @property
    def heads(self) -> tuple[Head, ...]:
        """Of all rows."""
        return tuple(Head(*divmod(row, self.n_heads)) for row in range(len(self.copied)))

    def scores(self, opposed: bool = False) -> tuple[Estimate, ...]:
        """The copying score of each head, or the negative one, and whether it is above chance."""
        ranks = self.opposed if opposed else self.copied
        return tuple(share_above(row <= TOP, self.chance) for row in ranks)

    def clear(self, opposed: bool = False) -> frozenset[Head]:
        """The heads whose scores are above chance, among all heads and both scores."""
        both = clear_among([*self.scores(), *self.scores(opposed=True)])
        chosen = both[len(self.heads) :] if opposed else both[: len(self.heads)]
        return frozenset(
            head for head, is_clear in zip(self.heads, chosen, strict=True) if is_clear
        )


def copying(model: LoadedModel, prompts: Prompts, progress: Progress = silent) -> Copying:
    """What every head of a model makes of the answers of these prompts.

    Raises UserError where no answer stands in its prompt, and for a model that cannot be taken
    apart.
    """
    from backend.engine.copying import copying_ranks, words_in

    drawn = prompts.sample(model.tokenizer)
    words = words_in(drawn)
    if len(words.token_ids) < TOP:
        raise UserError(
            f"These prompts have only {len(words.token_ids)} answers, and copying is scored by the "
            f"{TOP} highest logits. Choose more prompts."
        )
    with at_work(model.runtime):
        found = copying_ranks(model.model, drawn, words, progress)
    n_words = len(words.token_ids)
    return Copying(
        found.copied.reshape(-1, n_words).astype(np.float64),
        found.opposed.reshape(-1, n_words).astype(np.float64),
        tuple(model.tokenizer.decode([token]).strip() for token in words.token_ids.tolist()),
        found.copied.shape[1],
        found.n_tokens,
    )


def _plan(request: CopyingRequest) -> Plan:
    def cost(name: str) -> float:
        scale = scale_of(name, request.prompts)
        words = min(_EXPECTED_WORDS, request.prompts.n)
        return words * (scale.length + _UNEMBEDDING * scale.n_layers * scale.n_heads)

    return [
        [Step(f"Reading what heads of {catalogue.label(name)} make of words", cost(name))]
        for name in request.models
    ]


def _work(
    request: CopyingRequest, done: Finished, report: Report, _: Unfinished
) -> Iterator[Copying]:
    plan = _plan(request)
    for place, name in not_done(request.models, done):
        model = loaded(name, report, plan, place)
        yield copying(model, request.prompts, step_of(report, plan, place, 0))


def _rows(request: CopyingRequest, place: int, part: Copying) -> Iterator[Figure]:
    model = catalogue.label(request.models[place])
    for opposed, what in ((False, "copying score"), (True, "negative copying score")):
        scores = part.scores(opposed)
        mean = mean_share(np.array([score.value for score in scores]))
        yield Figure(f"{model}, average head", what, mean)
        ranked = zip(part.heads, scores, strict=True)
        for head, score in sorted(ranked, key=lambda item: -item[1].value):
            yield Figure(f"{model}, {head}", what, score)


def _remarks(request: CopyingRequest, parts: Finished) -> Iterator[str]:
    for name, part in zip(request.models, parts, strict=False):
        yield (
            f"{catalogue.label(name)}: {len(part.words)} words; chance {part.chance:.3f} for a "
            f"head that writes any of them, {TOP / part.n_tokens:.3f} if it writes any token; "
            f"clear: {_names(part.clear())}; negative: {_names(part.clear(opposed=True))}"
        )


def _names(heads: frozenset[Head]) -> str:
    return ", ".join(map(str, sorted(heads))) or "none"


METHOD = Method(
    "copying",
    "Copying scores",
    CopyingRequest,
    lambda request: (Copying,) * len(request.models),
    _plan,
    _work,
    _rows,
    command=Command(
        "which heads write the word that they attend to, and which against it",
        "copying base arithmetic-full",
        N_PROMPTS,
        remarks=_remarks,
    ),
)
