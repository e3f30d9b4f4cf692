"""A `Task` of what the file of an own task says."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from functools import lru_cache, partial
from hashlib import sha256
from typing import Any

import numpy as np

from backend.core.errors import UserError
from backend.core.serialize import to_json
from backend.tasks.own.filling import (
    TEMPLATE,
    Rows,
    is_new,
    obeys,
    random_rows,
    redrawn,
    taken,
)
from backend.tasks.own.form import END, Form, positions_of
from backend.tasks.own.reading import read
from backend.tasks.own.vocabulary import Vocabulary, vocabulary_of
from backend.tasks.own.writing import Line, fill, lines, prompt_set
from backend.tasks.prompts import PromptSet, check_size, generators
from backend.tasks.task import Position, Role, Task

_BLOCK = 256
"""Fillings drawn at a time: always as many, so that the first prompts of a seed stay the same."""
_RAREST = 1000
"""Fillings of which one must be allowed."""
_TRIES = 100


def task_of(form: Form) -> Task:
    """The task; its prompts are drawn evenly from all fillings that the file allows."""

    @lru_cache(maxsize=4)
    def vocabulary(tokenizer: Any) -> Vocabulary:
        return vocabulary_of(form, tokenizer)

    def drawn(tokenizer: Any, n: int, seed: int, purpose: str, anew: Collection[str]) -> PromptSet:
        check_size(n, seed)
        rows, prompts = _drawn(form, vocabulary(tokenizer), tokenizer, n, seed, purpose, anew)
        return prompt_set(task, form, prompts, rows, seed)

    def sample(tokenizer: Any, n: int, seed: int = 0) -> PromptSet:
        return drawn(tokenizer, n, seed, "prompts", ())

    def reference(tokenizer: Any, n: int, seed: int = 0) -> PromptSet:
        return drawn(tokenizer, n, seed, "reference", form.reference)

    def counterfactual(tokenizer: Any, prompts: PromptSet, seed: int | None = None) -> PromptSet:
        seed = prompts.seed if seed is None else seed
        before = dict(prompts.drawn)
        rows, changed = _changed(form, vocabulary(tokenizer), tokenizer, before, seed)
        return prompt_set(task, form, changed, rows, seed)

    def note(tokenizer: Any) -> str:
        try:
            return vocabulary(tokenizer).note
        except UserError:
            return ""  # drawing prompts says what is wrong

    task = Task(
        name=form.name,
        title=form.title,
        source=form.source,
        text=form.text,
        words=form.words,
        positions=tuple(
            Position(
                token.name, token.where, f"{token.column} “{{}}”", 1 if token.at == END else None
            )
            for token in positions_of(form.templates, form.tokens, form.groups)
        ),
        groups=form.groups,
        roles=_roles(form),
        options=(),
        sample=sample,
        counterfactual=counterfactual,
        reference=reference,
        length=lambda: _length(form),
        note=note,
        edges=form.edges,
        read=partial(read, form),
        content=content_of(form),
    )
    return task


def content_of(form: Form) -> str:
    """A fingerprint of what decides about prompts and circuits; not of words for readers alone."""
    decides = {
        "templates": form.templates,
        "slots": form.slots,
        "answer": (form.answer, *form.competitors),
        "anew": (form.counterfactual, form.reference),
        "tokens": [
            (each.name, each.at, each.occurrence, each.after, each.is_first, each.words)
            for each in form.tokens
        ],
        "groups": [(each.key, each.position, each.component, each.into) for each in form.groups],
    }
    text = json.dumps(to_json(decides), sort_keys=True)
    return sha256(text.encode()).hexdigest()[:16]


def check_fills(form: Form) -> None:
    """Raise UserError if hardly any filling is allowed, whatever the tokenizer."""
    pools = {name: slot.pool for name, slot in form.slots.items()}
    rng = np.random.default_rng(0)
    for anew, what in ((), "sentence"), (form.reference, "reference sentence"):
        rows = random_rows(form, pools, range(len(form.templates)), rng, 4 * _RAREST, anew)
        allowed = obeys(form, rows, anew)
        if not allowed.sum() * _RAREST > len(allowed):
            raise UserError(
                f"The field “slots” allows hardly any {what}: words that must differ, or numbers "
                "that must lie apart, hardly ever do. Write more words, or wider ranges."
            )


def _drawn(
    form: Form,
    vocabulary: Vocabulary,
    tokenizer: Any,
    n: int,
    seed: int,
    purpose: str,
    anew: Collection[str],
) -> tuple[Rows, list[Line]]:
    """The first `n` allowed fillings of a stream of random ones."""
    (rng,) = generators(seed, purpose, 1)
    kept: list[Rows] = []
    prompts: list[Line] = []
    n_drawn = 0
    while len(prompts) < n:
        rows = random_rows(form, vocabulary.pools, vocabulary.templates, rng, _BLOCK, anew)
        rows = taken(rows, obeys(form, rows, anew))
        found = lines(form, tokenizer, vocabulary.shape, rows)
        kept.append(taken(rows, np.array([line is not None for line in found], dtype=bool)))
        prompts += [line for line in found if line]
        n_drawn += _BLOCK
        if len(prompts) * _RAREST < n_drawn and n_drawn > 4 * _RAREST:
            raise _too_rare(form, "")
    together = {name: np.concatenate([each[name] for each in kept])[:n] for name in kept[0]}
    return together, prompts[:n]


def _changed(
    form: Form, vocabulary: Vocabulary, tokenizer: Any, before: Rows, seed: int
) -> tuple[Rows, list[Line]]:
    """For each row the first allowed filling of a stream of random ones of its own."""
    found: list[Line | None] = [None] * len(before[TEMPLATE])
    rows = {name: words.copy() for name, words in before.items()}
    for attempt in range(_TRIES):
        rngs = generators(seed, f"counterfactual {attempt}", len(form.counterfactual))
        other = redrawn(form, before, vocabulary.pools, rngs)
        allowed = obeys(form, other, form.counterfactual) & is_new(form, other, before)
        waiting = np.flatnonzero(allowed & np.array([line is None for line in found]))
        proposed = lines(form, tokenizer, vocabulary.shape, taken(other, waiting))
        for row, line in zip(waiting.tolist(), proposed, strict=True):
            if line:
                found[row] = line
                for name in rows:
                    rows[name][row] = other[name][row]
        if None not in found:
            break
    else:
        raise _too_rare(form, "counterfactual ")
    return rows, [line for line in found if line]


def _too_rare(form: Form, kind: str) -> UserError:
    return UserError(
        f"{form.title}: with this tokenizer, hardly any {kind}sentence is as the file asks: of one "
        "length, and its answer and competitors different tokens. Choose another model, or give "
        "the file more words."
    )


def _roles(form: Form) -> tuple[Role, ...]:
    """Every token that has a name; where groups work, in the colour of the first of them."""
    of = {group.position: group.key for group in reversed(form.groups)}
    return tuple(
        Role(token.name, token.words, of.get(token.name), "" if token.at == END else token.words)
        for token in form.tokens
    )


def _length(form: Form) -> int:
    """Tokens in a prompt, about: its words, digits and marks."""
    rows = {name: np.array([slot.pool[-1]]) for name, slot in form.slots.items()}
    prompt, _, _ = fill(form, {TEMPLATE: np.array([0]), **rows}, 0)
    return len(re.findall(r"\d|[^\W\d]+|[^\w\s]", prompt))
