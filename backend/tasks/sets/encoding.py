"""The rows of a set as a tokenizer writes them: those that fit together, and why others do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backend.tasks.sets.rows import Misfit, Row
from backend.tasks.task import Task
from backend.tasks.vocabulary import next_tokens, tokenized, tokens_at

Encoded = tuple[list[int], list[tuple[int, int]]]


@dataclass(frozen=True, eq=False)
class Fitting:
    """A row as tokens: choices, the answer first; tokens, those with names; other, its
    counterfactual, if it has one, of as many tokens."""

    row: Row
    ids: Sequence[int]
    spans: Sequence[tuple[int, int]]
    choices: Sequence[int]
    tokens: Mapping[str, int]
    other: Encoded | None


def fitting(task: Task, rows: Sequence[Row], tokenizer: Any) -> tuple[list[Fitting], list[Misfit]]:
    """The rows with as many tokens and competitors as most have, and what is wrong with others."""
    read = [_encoded(task, row, tokenizer) for row in rows]
    good = [each for each in read if isinstance(each, Fitting)]
    misfits = [each for each in read if isinstance(each, Misfit)]
    shapes = Counter((len(each.ids), len(each.choices)) for each in good)
    if shapes:
        (length, n_choices), _ = shapes.most_common(1)[0]
        for each in good:
            if len(each.ids) != length:
                reason = f"its prompt has {len(each.ids)} tokens, and most have {length}"
                misfits.append(Misfit(each.row.number, reason))
            elif len(each.choices) != n_choices:
                reason = f"it has {len(each.choices) - 1} competitors, and most have "
                misfits.append(Misfit(each.row.number, f"{reason}{n_choices - 1}"))
        good = [each for each in good if (len(each.ids), len(each.choices)) == (length, n_choices)]
    return good, sorted(misfits, key=lambda misfit: misfit.number)


def _encoded(task: Task, row: Row, tokenizer: Any) -> Fitting | Misfit:
    words = (row.answer, *row.competitors)
    ((ids, spans),) = tokenized(tokenizer, [row.text])
    choices = []
    following = next_tokens(tokenizer, row.text, [word.strip() for word in words])
    for word, token in zip(words, following, strict=True):
        if token is None:
            what = "answer" if word is row.answer else "competitor"
            return Misfit(row.number, f"its {what} “{word[:40]}” is not one token of this model")
        choices.append(token)
    if len({*choices}) < len(choices):
        return Misfit(row.number, "two of its answer and competitors are the same")
    tokens = _named(task, row, spans)
    order = [tokens[name] for name in task.position_names]
    if order != sorted(order):
        names = ", ".join(task.position_names)
        return Misfit(row.number, f"its tokens do not follow each other in the order {names}")
    other = None
    if row.counterfactual is not None:
        (other,) = tokenized(tokenizer, [row.counterfactual])
        if len(other[0]) != len(ids):
            reason = f"its counterfactual has {len(other[0])} tokens, and its prompt {len(ids)}"
            return Misfit(row.number, reason)
    return Fitting(row, ids, spans, choices, tokens, other)


def _named(task: Task, row: Row, spans: Sequence[tuple[int, int]]) -> dict[str, int]:
    """The last token of each word that has a name, and the end."""
    ends = [position.name for position in task.positions if position.tail == 1]
    found = dict.fromkeys(ends, len(spans) - 1)
    if row.spans:
        letters = np.array([[end - 1 for _, end in row.spans.values()]])
        at = tokens_at(np.array([spans]), letters)[0].tolist()
        found |= dict(zip(row.spans, at, strict=True))
    return found
