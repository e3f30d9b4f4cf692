"""Words for the slots of an own task: drawn evenly from all fillings that are allowed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.tasks.own.form import Form, Slot

Rows = dict[str, NDArray[Any]]
"""The word of each slot [n], by its name, and under TEMPLATE which sentence it is [n]."""
TEMPLATE = "template"
Mask = NDArray[np.bool_]


def drawn_slots(form: Form, anew: Collection[str]) -> list[str]:
    """Slots that are drawn; those that follow another are, too, if they are named in `anew`."""
    return [name for name, slot in form.slots.items() if not slot.of or name in anew]


def random_rows(
    form: Form,
    pools: Mapping[str, Sequence[str]],
    templates: Sequence[int],
    rng: np.random.Generator,
    n: int,
    anew: Collection[str],
) -> Rows:
    """`n` fillings at random, allowed or not, of words in the pools of slots that are drawn."""
    names = drawn_slots(form, anew)
    sizes = [len(templates), *(len(pools[name]) for name in names)]
    places = rng.integers(0, sizes, size=(n, len(sizes))).T
    rows = {TEMPLATE: np.array(templates)[places[0]]}
    rows |= {
        name: np.array(pools[name])[chosen] for name, chosen in zip(names, places[1:], strict=True)
    }
    return followed(form, rows)


def followed(form: Form, rows: Rows) -> Rows:
    """The rows with the words of slots that follow others, as far as they are not there."""
    full = dict(rows)
    for slot in form.slots.values():
        if slot.name not in full:
            full[slot.name] = _word_for(slot, full[slot.of])
    return full


def redrawn(
    form: Form,
    rows: Rows,
    pools: Mapping[str, Sequence[str]],
    rngs: Sequence[np.random.Generator],
) -> Rows:
    """The rows with other words at random, allowed or not, in the slots of the counterfactual.

    Each of them has its own random numbers.
    """
    kept = {name: rows[name] for name in (TEMPLATE, *drawn_slots(form, ()))}
    for name, rng in zip(form.counterfactual, rngs, strict=True):
        places = rng.integers(0, len(pools[name]), size=len(rows[name]))
        kept[name] = np.array(pools[name])[places]
    return followed(form, kept)


def obeys(form: Form, rows: Rows, anew: Collection[str]) -> Mask:
    """Whether drawn words of one list differ, and numbers lie as they have to: [n]."""
    good = np.ones(len(rows[TEMPLATE]), dtype=bool)
    for one, other in combinations(drawn_slots(form, anew), 2):
        if form.slots[one].like and form.slots[one].like == form.slots[other].like:
            good &= rows[one] != rows[other]
    for slot in form.slots.values():
        for relation in slot.relations:
            apart = rows[slot.name].astype(int) - rows[relation.other].astype(int)
            good &= (relation.least <= relation.sign * apart) & (
                relation.sign * apart <= relation.most
            )
    return good


def is_new(form: Form, rows: Rows, before: Rows) -> Mask:
    """Whether no word that was drawn anew is one that the row had before, in this list: [n]."""
    good = np.ones(len(rows[TEMPLATE]), dtype=bool)
    for name in form.counterfactual:
        like = form.slots[name].like
        others = [each for each in form.slots if like and form.slots[each].like == like] or [name]
        for other in others:
            good &= rows[name] != before[other]
    return good


def taken(rows: Mapping[str, NDArray[Any]], which: NDArray[Any]) -> Rows:
    """Some of the rows."""
    return {name: words[which] for name, words in rows.items()}


def _word_for(slot: Slot, words: NDArray[Any]) -> NDArray[Any]:
    if slot.by is None:
        return words
    return np.array([slot.by[word] for word in words.tolist()])
