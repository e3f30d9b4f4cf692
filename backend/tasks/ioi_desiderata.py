"""What heads of indirect object identification may carry, as tests.

Name movers carry the *answer*. What S-Inhibition heads hand on to them, which of the two names to
avoid, can be said in two ways (Wang et al., section 3.2 and the appendix on S-Inhibition): by the
*name* of the subject, their token signal, or by its *position*, the place of the two at which it
was the first time, their position signal. As in the paper the alternate prompt keeps, inverts or
takes away one or the other: in “name” and “position” one is inverted and the other one kept, so
that heads that carry both answer by the stronger one. Its indirect object is always another name,
which is what name movers would answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from backend.tasks.desiderata import Desideratum, Pairs
from backend.tasks.ioi_text import encode, enough_words
from backend.tasks.prompts import PromptSet, distinct_words, generators


@dataclass(frozen=True)
class Change:
    """How the alternate prompt differs from the base.

    subject: who its subject is, the base's, the base's indirect object, or another; same_place:
    whether it is first where the base's subject is.
    """

    subject: Literal["same", "indirect object", "other"]
    same_place: bool


def pairs(
    tokenizer: Any, base: PromptSet, seed: int, change: Change, marked: tuple[str, ...]
) -> Pairs:
    """The same sentences with other names; expected is the base's subject."""
    alternate = _alternate(tokenizer, base, seed, change)
    return Pairs(base, alternate, base.choice_ids[:, 1].copy(), marked)


def answer_pairs(tokenizer: Any, base: PromptSet, seed: int) -> Pairs:
    """The same sentences with other names in the same order; expected is the alternate's answer."""
    alternate = _alternate(tokenizer, base, seed, Change("other", same_place=True))
    return Pairs(base, alternate, alternate.answer_ids.copy(), ("io",))


def _alternate(tokenizer: Any, base: PromptSet, seed: int, change: Change) -> PromptSet:
    vocabulary = enough_words(tokenizer)
    (rng,) = generators(seed, f"desideratum {change.subject} {change.same_place}", 1)
    others = distinct_words(rng, vocabulary.names, len(base), 2, base.drawn["names"])
    io, subject, _ = base.drawn["names"].T
    subjects = {"same": subject, "indirect object": io, "other": others[:, 1]}
    named = subjects[change.subject]
    io_first = base.drawn["io_first"]
    drawn = {
        **base.drawn,
        "names": np.stack([others[:, 0], named, named], 1),
        "io_first": io_first if change.same_place else ~io_first,
    }
    return encode(tokenizer, vocabulary, base.task, drawn, seed)


def _test(
    name: str, label: str, variable: str, text: str, change: Change, control: bool = False
) -> Desideratum:
    marked = ("s1",) if variable == "position" else ("s1", "s2")
    draw = partial(pairs, change=change, marked=marked)
    return Desideratum(name, label, variable, text, draw, control=control)


DESIDERATA = (
    Desideratum(
        "answer",
        "Answer",
        "answer",
        "The alternate has two other names in the same order. Expected is the alternate’s own "
        "answer.",
        answer_pairs,
    ),
    _test(
        "name",
        "Name",
        "name",
        "In the alternate the base’s indirect object is the name that comes twice, first at the "
        "place of the base’s subject. Expected is the base’s subject, as the one that is not to be "
        "avoided by name.",
        Change("indirect object", same_place=True),
    ),
    _test(
        "position",
        "Position",
        "position",
        "In the alternate the base’s subject comes twice, first at the place of the base’s "
        "indirect object. Expected is the base’s subject, as the one at the place that is not to "
        "be avoided.",
        Change("same", same_place=False),
    ),
    _test(
        "name_and_position",
        "Name and position",
        "name",
        "In the alternate the base’s indirect object is the name that comes twice, first at its "
        "own place. Expected is the base’s subject, both by name and by position.",
        Change("indirect object", same_place=False),
    ),
    _test(
        "position_of_another",
        "Position of another name",
        "position",
        "The alternate has two other names, and its subject comes first at the place of the base’s "
        "indirect object. Expected is the base’s subject. It may also come of there being no name "
        "to avoid: see the control.",
        Change("other", same_place=False),
    ),
    _test(
        "name_of_another",
        "Another name, same position",
        "position",
        "The alternate has two other names in the same order: there is no name to avoid, and the "
        "position is kept. The base’s subject should not be the answer.",
        Change("other", same_place=True),
        control=True,
    ),
)
