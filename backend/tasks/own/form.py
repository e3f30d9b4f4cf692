"""What the file of an own task says, as a value.

Templates are sentences with slots that end in the answer; slots are filled with words from lists,
with numbers, or with what another slot's word stands for.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import inf

from backend.tasks.attention_edges import AttentionEdge
from backend.tasks.task import Group, Words

END = "end"
"""Where a token is that is the last of its prompt."""
_SLOT = re.compile(r"\{(.*?)\}")


@dataclass(frozen=True)
class Relation:
    """A number lies above (sign 1) or below (-1) that of another slot, by least to most."""

    sign: int
    other: str
    least: int
    most: int


@dataclass(frozen=True)
class Slot:
    """A place for a word.

    pool: the words that it may have; like: the list that they are from, of which no two slots draw
    the same word, empty for numbers; of: the slot that it follows, empty for one that is drawn; by:
    its word for each word of that slot, None for the same word; several_tokens: whether its words
    may be of several tokens, as many each.
    """

    name: str
    pool: tuple[str, ...]
    like: str = ""
    of: str = ""
    by: Mapping[str, str] | None = None
    relations: tuple[Relation, ...] = ()
    several_tokens: bool = False


@dataclass(frozen=True)
class Token:
    """A token that has a name: of a slot's n-th word the last one, the first, or one so many after
    the last; or the last of the prompt.

    words: what it is called; where: “at the country”; column: what stands above its column.
    """

    name: str
    at: str
    occurrence: int
    after: int
    is_first: bool
    words: str
    where: str
    column: str


@dataclass(frozen=True)
class Form:
    """An own task as its file has it; templates end in the answer's slot.

    counterfactual, reference: slots that are drawn anew there, also if they follow another with the
    same word.
    """

    name: str
    title: str
    source: str
    text: str
    words: Words
    templates: tuple[str, ...]
    slots: Mapping[str, Slot]
    answer: str
    competitors: tuple[str, ...]
    counterfactual: tuple[str, ...]
    reference: tuple[str, ...]
    tokens: tuple[Token, ...]
    groups: tuple[Group, ...]
    edges: tuple[AttentionEdge, ...]


def slots_in(template: str) -> list[str]:
    """The slots of a template, in order."""
    return _SLOT.findall(template)


def without_slots(template: str) -> str:
    """What is left of a template."""
    return _SLOT.sub("", template)


def between(template: str) -> list[str]:
    """What stands before each slot of a template, and after the last one."""
    return _SLOT.split(template)[::2]


def place_in(template: str, token: Token) -> tuple[float, int]:
    """Where a token stands among the words of a template's slots; to be compared."""
    if token.at == END:
        return inf, 0
    slots = [place for place, slot in enumerate(slots_in(template)) if slot == token.at]
    return slots[token.occurrence - 1], -1 if token.is_first else token.after


def positions_of(
    templates: Sequence[str], tokens: Sequence[Token], groups: Sequence[Group]
) -> list[Token]:
    """The tokens at which groups work, as they follow each other in the first template."""
    worked_at = {group.position for group in groups}
    at = [token for token in tokens if token.name in worked_at]
    return sorted(at, key=lambda token: place_in(templates[0], token))


def needed_words(slots: Mapping[str, Slot], anew: Collection[str]) -> Counter[str]:
    """How many different words of each list a prompt has, with a counterfactual of these slots."""
    return Counter(slot.like for slot in slots.values() if slot.like and not slot.of) + Counter(
        slots[name].like for name in anew if slots[name].like
    )
