"""What is read off the logits at the last token: right or wrong is decided here, and only here.

A model answers with its most probable token; of two that are equally probable, the one with the
lower id. Vocabularies have up to 256,000 words: logits are read where they are, a few rows at a
time, and what is kept are the tokens that were asked for and the top few.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from backend.core.metrics import Metric
from backend.engine.finite import check_finite
from backend.tasks.prompts import PromptSet

N_TOP = 16
_BLOCK = 128
_NUMBERS_AT_ONCE = 1 << 19
"""Few enough to stay in a processor's cache while they are read."""

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Answers:
    """What a run answered on each of n prompts.

    correct [n]: the right answer is first among all tokens; forced [n]: it is ahead of those it
    competes with, which is what can be guessed; probability [n] and rank [n] (1 = first) of
    the right answer; logit_difference [n], its logit less the mean logit of the others. Of some
    tokens the probability is kept: top_ids, top [n, k], best first, and choice_ids,
    choices [n, k].
    """

    correct: NDArray[np.bool_]
    forced: NDArray[np.bool_]
    probability: Floats
    rank: Ints
    logit_difference: Floats
    top_ids: Ints
    top: Floats
    choice_ids: Ints
    choices: Floats

    def probability_of(self, prompt: int, token: int) -> float:
        """NaN if it is not kept: then it is at most that of the last of `top`."""
        ids = np.concatenate([self.top_ids[prompt], self.choice_ids[prompt]])
        known = np.concatenate([self.top[prompt], self.choices[prompt]])[ids == token]
        return float(known[0]) if len(known) else float("nan")


def answered(logits: Tensor) -> Tensor:
    """The tokens with which logits [..., n, vocab] answer: [..., n].

    Raises UserError where they are not finite.
    """
    return check_finite(logits, prompts=-2).argmax(-1)


def right(logits: Tensor, answer_ids: Tensor) -> Tensor:
    """Whether logits [..., n, vocab] answer right, with `answer_ids` [n]: [..., n].

    Raises UserError where they are not finite.
    """
    return answered(logits) == answer_ids.to(logits.device)


@torch.no_grad()
def measured(logits: Tensor, answer_ids: Tensor, choice_ids: Tensor, metric: Metric) -> Tensor:
    """A metric of logits [k, n, vocab], with right answers [n] and `choice_ids` [n, m]: [k, n].

    Bools for accuracy, else float64. Raises UserError where logits are not finite.
    """
    if metric is Metric.accuracy:
        return right(logits, answer_ids)
    by_prompt, answer_ids = logits.transpose(0, 1), answer_ids.to(logits.device)
    if metric is Metric.probability:
        return log_probability(by_prompt, answer_ids).exp().T
    return logit_difference(by_prompt, answer_ids, choice_ids.to(logits.device)).T


def log_probability(logits: Tensor, answer_ids: Tensor) -> Tensor:
    """Of the right answers [n], read off logits [n, k, vocab]: [n, k], in float64.

    Raises UserError where they are not finite.
    """
    ids = answer_ids[:, None, None].expand(-1, logits.shape[1], 1)
    right_ones = check_finite(logits).gather(-1, ids)[..., 0]
    return right_ones.double() - _log_normaliser(_exact(logits))


def logit_difference(logits: Tensor, answer_ids: Tensor, choice_ids: Tensor) -> Tensor:
    """Of right answers [n], read off logits [n, k, vocab]: [n, k], in logits, in float64.

    The right answer's logit less the mean of its competitors': the other `choice_ids` [n, m].
    Raises UserError where logits are not finite.
    """
    check_finite(logits)
    answer, choices = (
        logits.gather(-1, ids[:, None].expand(-1, logits.shape[1], -1))
        for ids in (answer_ids[:, None], choice_ids)
    )
    return _ahead_of_others(answer[..., 0], choices)


def _ahead_of_others(answer: Tensor, choices: Tensor) -> Tensor:
    """Logits [...] less the mean of the others in [..., m], among which they are: [...]."""
    others = choices.double().sum(-1) - answer.double()
    return answer.double() - others / (choices.shape[-1] - 1)


def is_ahead(values: Tensor, ids: Tensor, answer: Tensor, answer_id: Tensor) -> Tensor:
    """Whether each of logits [n, k], of tokens `ids`, comes before that of a token [n, 1]."""
    return (values > answer) | ((values == answer) & (ids < answer_id))


def ranks(logits: Tensor, ids: Tensor) -> Tensor:
    """Where tokens `ids` [n, k] stand among logits [n, vocab], 1 is first: [n, k].

    Raises UserError where logits are not finite.
    """
    check_finite(logits)
    every = torch.arange(logits.shape[-1], device=logits.device)[None]
    ahead = [
        is_ahead(logits, every, logits.gather(-1, one), one).sum(-1) for one in ids.split(1, 1)
    ]
    return torch.stack(ahead, 1) + 1


@torch.no_grad()
def read_answers(logits: Iterable[Tensor], prompts: PromptSet) -> Answers:
    """Read the answers off logits, which come in blocks [some, vocab] of prompts, in order.

    Raises UserError where they are not finite.
    """
    read, start = [], 0
    for block in logits:
        for some in check_finite(block).split(max(1, _NUMBERS_AT_ONCE // block.shape[-1])):
            rows = slice(start, start + len(some))
            asked = (prompts.answer_ids[rows], prompts.choice_ids[rows])
            read.append(_read(_exact(some), *(torch.tensor(ids).to(some.device) for ids in asked)))
            start = rows.stop
    return Answers(*(torch.cat(each).cpu().numpy() for each in zip(*read, strict=True)))


def _read(logits: Tensor, answer_ids: Tensor, choice_ids: Tensor) -> tuple[Tensor, ...]:
    """The fields of `Answers`, of logits [n, vocab], the right ids [n] and the choices' [n, k]."""
    normaliser = _log_normaliser(logits)[:, None]
    asked = answer_ids[:, None]
    answer, choices = logits.gather(-1, asked), logits.gather(-1, choice_ids)
    top, top_ids, rank = _ranked(logits, answer, asked)
    return (
        top_ids[:, 0] == answer_ids,
        ~is_ahead(choices, choice_ids, answer, asked).any(-1),
        (answer.double() - normaliser).exp()[:, 0],
        rank,
        _ahead_of_others(answer[:, 0], choices),
        top_ids,
        (top.double() - normaliser).exp(),
        choice_ids,
        (choices.double() - normaliser).exp(),
    )


def _exact(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _log_normaliser(logits: Tensor) -> Tensor:
    """log Σ exp of logits [..., vocab]: [...], in float64; the exponentials are in their dtype."""
    highest = logits.amax(-1, keepdim=True)
    total = (logits - highest).exp_().sum(-1)
    return highest[..., 0].double() + total.double().log()


def _ranked(logits: Tensor, answer: Tensor, answer_id: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The highest `N_TOP` of logits [n, vocab], their ids, and the answer's rank [n].

    Looked at are only blocks of neighbours that hold a number that is high enough.
    """
    n, n_tokens = logits.shape
    missing = -n_tokens % _BLOCK
    padded = pad(logits, (0, missing), value=-torch.inf) if missing else logits
    blocks = padded.unflatten(-1, (-1, _BLOCK))
    highest, inside = blocks.amax(-1), torch.arange(_BLOCK, device=logits.device)
    rows, some = (highest >= answer).nonzero(as_tuple=True)
    ids = some[:, None] * _BLOCK + inside
    ahead = is_ahead(blocks[rows, some], ids, answer[rows], answer_id[rows]).sum(-1)
    rank = ahead.new_ones(n).index_add(0, rows, ahead)
    ids = (_highest(highest, N_TOP)[..., None] * _BLOCK + inside).flatten(1)
    ids = ids.gather(-1, _highest(padded.gather(-1, ids), N_TOP))
    top, places = padded.gather(-1, ids).sort(dim=-1, descending=True, stable=True)
    k = min(N_TOP, n_tokens)
    return top[:, :k], ids.gather(-1, places)[:, :k], rank


def _highest(values: Tensor, k: int) -> Tensor:
    """Where the `k` highest of values [n, m] are, and all that equal the last: in order."""
    least = values.topk(min(k, values.shape[-1])).values[:, -1:]
    n_there = int((values >= least).sum(-1).max())
    return values.topk(n_there).indices.sort(dim=-1).values
