"""How a tokenizer writes the sentences of an own task, and where the tokens with names stand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from backend.tasks.own.filling import TEMPLATE, Rows
from backend.tasks.own.form import END, Form, between, positions_of, slots_in
from backend.tasks.prompts import PromptSet
from backend.tasks.task import Task
from backend.tasks.vocabulary import tokenized, tokens_at

Span = tuple[int, int]


@dataclass(frozen=True)
class Shape:
    """What all prompts of a set have alike: how many tokens, and which first and last ones their
    slots' words have, in order."""

    length: int
    places: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Line:
    """A prompt as tokens: choices, the answer first; tokens, those with names."""

    text: str
    ids: Sequence[int]
    spans: Sequence[Span]
    choices: Sequence[int]
    tokens: Mapping[str, int]


def lines(form: Form, tokenizer: Any, shape: Shape, rows: Rows) -> list[Line | None]:
    """The prompt of each row; None where it is not of this shape.

    None as well where the answer and its competitors are not different tokens after the prompt, and
    where a token with a name is missing or at another place among the others.
    """
    filled = [fill(form, rows, row) for row in range(len(rows[TEMPLATE]))]
    if not filled:
        return []
    choices = (form.answer, *form.competitors)
    continued = [
        f"{prompt}{space}{rows[slot][row]}"
        for row, (prompt, space, _) in enumerate(filled)
        for slot in choices
    ]
    encoded = tokenized(tokenizer, [prompt for prompt, _, _ in filled])
    with_choices = iter(tokenized(tokenizer, continued))
    found = []
    for row, ((text, _, letters), (ids, spans)) in enumerate(zip(filled, encoded, strict=True)):
        following = [ids for ids, _ in islice(with_choices, len(choices))]
        slots = _slots_at(spans, letters)
        tokens = _named(form, form.templates[rows[TEMPLATE][row]], slots, len(ids))
        after = [
            _first_after(ids, whole, form.slots[slot].several_tokens)
            for whole, slot in zip(following, choices, strict=True)
        ]
        fits = (
            shape == Shape(len(ids), tuple(sorted(slots)))
            and _is_known(tokenizer, ids, spans)
            and _is_in_order(form, tokens, len(ids))
            and len({*after} - {None}) == len(choices)
        )
        chosen = [token for token in after if token is not None]
        found.append(Line(text, ids, spans, chosen, tokens) if fits else None)
    return found


def shapes(form: Form, tokenizer: Any, rows: Rows) -> list[Shape | None]:
    """The shape of each row's prompt; None where it has an unknown word."""
    filled = [fill(form, rows, row) for row in range(len(rows[TEMPLATE]))]
    encoded = tokenized(tokenizer, [prompt for prompt, _, _ in filled])
    return [
        Shape(len(ids), tuple(sorted(_slots_at(spans, letters))))
        if _is_known(tokenizer, ids, spans)
        else None
        for (_, _, letters), (ids, spans) in zip(filled, encoded, strict=True)
    ]


def fill(form: Form, rows: Rows, row: int) -> tuple[str, str, list[Span]]:
    """A prompt without its answer, what stands before that, and the first and last letter of each
    word."""
    template = form.templates[rows[TEMPLATE][row]]
    *before, last, _ = between(template)
    text, letters = "", []
    for words, slot in zip(before, slots_in(template), strict=False):
        start = len(text) + len(words)
        text += f"{words}{rows[slot][row]}"
        letters.append((start, len(text) - 1))
    whole = text + last
    prompt = whole.rstrip()
    return prompt, whole[len(prompt) :], letters


def pieces(
    tokenizer: Any, before: str, words: Sequence[str], after: str
) -> dict[str, tuple[int, int]]:
    """Of words between two texts: of how many tokens each is, and how many the whole has.

    Left out are words with tokens that hold something else, and unknown ones.
    """
    found = {}
    start = len(before)
    for word, (ids, spans) in zip(
        words, tokenized(tokenizer, [before + word + after for word in words]), strict=True
    ):
        end = start + len(word)
        own = [
            (token, a, b) for token, (a, b) in zip(ids, spans, strict=True) if a < end and b > start
        ]
        # The space before the word may be of its first token.
        is_whole = own and not before[own[0][1] :].strip() and own[-1][2] == end
        if is_whole and tokenizer.unk_token_id not in [token for token, _, _ in own]:
            found[word] = len(own), len(ids)
    return found


def most_common(shapes: Sequence[Any]) -> Any:
    """The shape that most have, the first of several; None if there is none."""
    known = Counter(shape for shape in shapes if shape is not None)
    return known.most_common(1)[0][0] if known else None


def prompt_set(task: Task, form: Form, prompts: Sequence[Line], rows: Rows, seed: int) -> PromptSet:
    """The prompts as one value, with the rows that they are made of."""
    choice_ids = np.array([line.choices for line in prompts], dtype=np.int64)
    tokens = {
        token.name: np.array([line.tokens[token.name] for line in prompts], dtype=np.int64)
        for token in form.tokens
    }
    return PromptSet(
        task,
        tuple(line.text for line in prompts),
        np.array([line.ids for line in prompts], dtype=np.int64),
        answer_ids=choice_ids[:, 0].copy(),
        choice_ids=choice_ids,
        positions=tokens,
        roles={name: at[:, None] for name, at in tokens.items()},
        spans=np.array([line.spans for line in prompts], dtype=np.int64),
        drawn=rows,
        seed=seed,
    )


def _slots_at(spans: Sequence[Span], letters: Sequence[Span]) -> list[Span]:
    """The first and the last token of each word, by its first and last letter."""
    if not letters:
        return []
    at = tokens_at(np.array([spans]), np.array([letters]).reshape(1, -1))
    return [(first, last) for first, last in at.reshape(-1, 2).tolist()]


def _named(form: Form, template: str, slots: Sequence[Span], length: int) -> dict[str, int]:
    """Where the tokens with names are, by where the words of a template's slots are."""
    words = slots_in(template)[:-1]
    found = {}
    for token in form.tokens:
        if token.at == END:
            found[token.name] = length - 1
        else:
            places = [at for at, slot in zip(slots, words, strict=True) if slot == token.at]
            first, last = places[token.occurrence - 1]
            found[token.name] = first if token.is_first else last + token.after
    return found


def _first_after(prompt: Sequence[int], whole: Sequence[int], several: bool) -> int | None:
    """The token that follows the prompt in the whole; None if that is not so."""
    rest = whole[len(prompt) :]
    is_so = [*whole[: len(prompt)]] == [*prompt] and (len(rest) == 1 or (several and rest))
    return rest[0] if is_so else None


def _is_known(tokenizer: Any, ids: Sequence[int], spans: Sequence[Span]) -> bool:
    # A start token may be the unknown one, too, but has no characters.
    return tokenizer.unk_token_id not in [
        token for token, (start, end) in zip(ids, spans, strict=True) if end > start
    ]


def _is_in_order(form: Form, tokens: Mapping[str, int], length: int) -> bool:
    at = [tokens[token.name] for token in positions_of(form.templates, form.tokens, form.groups)]
    return at == sorted(at) and max(tokens.values()) < length
