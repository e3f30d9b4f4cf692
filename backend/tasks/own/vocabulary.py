"""Which words and sentences of an own task a tokenizer writes as its prompts need them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from backend.core.errors import UserError
from backend.tasks.own.filling import Rows, random_rows
from backend.tasks.own.form import Form, Slot, between, needed_words, slots_in
from backend.tasks.own.writing import Shape, most_common, pieces, shapes

_TRIES = 8
"""Fillings of each sentence that are looked at: some numbers may run together."""
_NEAR = 24
"""Letters around a word that may change how it falls into tokens."""


@dataclass(frozen=True)
class Vocabulary:
    """What can be used of a task.

    pools: words of each slot that can be drawn; templates: sentences, by number; shape: of all
    prompts; note: what is left out, in a sentence, or nothing.
    """

    pools: Mapping[str, tuple[str, ...]]
    templates: tuple[int, ...]
    shape: Shape
    note: str


def vocabulary_of(form: Form, tokenizer: Any) -> Vocabulary:
    """Words of one token each, or as many as most where a slot may have several; and sentences that
    are as long as most, with their words at the same places.

    Raises UserError if these are too few.
    """
    pools = usable_pools(form, tokenizer)
    needed = needed_words(form.slots, form.counterfactual)
    for name, pool in pools.items():
        slot = form.slots[name]
        least = needed[slot.like] if slot.like else 2
        if len(pool) < least:
            raise UserError(
                f"{form.title}: this tokenizer writes only {len(pool)} of {len(slot.pool)} words "
                f"for “{name}” as the prompts need them, and {least} are needed. Choose a model "
                "whose tokenizer has them, or another task."
            )
    every = [_probes(form, pools, place) for place in range(len(form.templates))]
    found = [shapes(form, tokenizer, rows) for rows in every]
    shape = most_common([shape for each in found for shape in each])
    if shape is None:
        raise UserError(
            f"{form.title}: this tokenizer does not know the words of any sentence. Choose a model "
            "that was trained on such text, or another task."
        )
    templates = tuple(place for place, each in enumerate(found) if shape in each)
    return Vocabulary(pools, templates, shape, _note(form, pools, templates))


def usable_pools(form: Form, tokenizer: Any) -> dict[str, tuple[str, ...]]:
    """The words of each slot that can be drawn, as far as those that follow them can be used."""
    usable = {name: _usable(form, tokenizer, slot) for name, slot in form.slots.items()}

    def goes(slot: Slot, word: str) -> bool:
        return word in usable[slot.name] and all(
            goes(other, word if other.by is None else other.by[word])
            for other in form.slots.values()
            if other.of == slot.name
        )

    return {
        name: tuple(word for word in slot.pool if goes(slot, word))
        for name, slot in form.slots.items()
        if slot.by is None
    }


def _usable(form: Form, tokenizer: Any, slot: Slot) -> frozenset[str]:
    """The words that fall into as many tokens as most, wherever the slot is."""
    found = [pieces(tokenizer, before, slot.pool, after) for before, after in _contexts(form, slot)]
    signs: dict[str, tuple[tuple[int, int], ...] | None] = {}
    for word in slot.pool:
        sign = tuple(each[word] for each in found if word in each)
        is_one = all(n == 1 for n, _ in sign)
        signs[word] = sign if len(sign) == len(found) and (is_one or slot.several_tokens) else None
    common = most_common([*signs.values()])
    return frozenset(word for word, sign in signs.items() if sign is not None and sign == common)


def _contexts(form: Form, slot: Slot) -> list[tuple[str, str]]:
    """What stands before and after the slot's word, with the first words in all other slots."""
    found = []
    for template in form.templates:
        slots, texts = slots_in(template), between(template)
        for place, name in enumerate(slots):
            is_answer = place == len(slots) - 1
            if name == slot.name or (is_answer and slot.name in form.competitors):
                before = "".join(
                    f"{text}{form.slots[other].pool[0]}"
                    for text, other in zip(texts[:place], slots[:place], strict=True)
                )
                after = "".join(
                    f"{text}{form.slots[other].pool[0]}"
                    for text, other in zip(
                        texts[place + 1 : -2], slots[place + 1 : -1], strict=True
                    )
                )
                rest = "" if is_answer else texts[-2].rstrip()
                found.append((_end(before + texts[place]), _start(after + rest)))
    return list(dict.fromkeys(found))


def _end(text: str) -> str:
    """The last words of a text."""
    return text if len(text) <= _NEAR else text[text.rfind(" ", 0, -_NEAR) + 1 :]


def _start(text: str) -> str:
    """The first words of a text."""
    end = text.find(" ", _NEAR)
    return text if end < 0 else text[:end]


def _probes(form: Form, pools: Mapping[str, Sequence[str]], template: int) -> Rows:
    return random_rows(form, pools, [template], np.random.default_rng(0), _TRIES, ())


def _note(form: Form, pools: Mapping[str, Sequence[str]], templates: Sequence[int]) -> str:
    left_out = {  # once for slots with the same words
        (form.slots[name].pool, pool): name
        for name, pool in reversed([*pools.items()])
        if len(pool) < len(form.slots[name].pool)
    }
    counts = [
        f"{len(all_of_them) - len(pool)} of {len(all_of_them)} words for “{name}”"
        for (all_of_them, pool), name in reversed([*left_out.items()])
    ]
    if len(templates) < len(form.templates):
        left = len(form.templates) - len(templates)
        counts.append(f"{left} of {len(form.templates)} sentences")
    return (
        f"The prompts leave out {' and '.join(counts)}: this tokenizer does not write them in as "
        "many tokens as the others."
        if counts
        else ""
    )
