"""The kinds of documents that the bundled models are trained on, as aligned batches of tokens.

All documents of a batch are of one kind and one size, so a column means the same in each of
them: which tokens are answers, and what part a token plays, is known per column.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto

import numpy as np
from numpy.typing import NDArray

from backend.bundled.vocabulary import LABELS, NUMBERS, START, VARIABLES, word_ids
from backend.tasks.vocabulary import object_words

Ints = NDArray[np.int64]

VALUES = NUMBERS[10:50]
DIGITS = NUMBERS[1:10]


class Part(Enum):
    """What a token is there for; the regulariser treats each part in its own way."""

    filler = auto()
    """Words that are the same in all documents, and the items of the context."""
    context_label = auto()
    """The name of a box or variable, where the context gives it something to hold."""
    query_label = auto()
    """The name, or the number, of what is asked for."""
    answering = auto()
    """The token whose next token is an answer."""
    free = auto()
    """Everything that the regulariser leaves alone."""


class Query(Enum):
    """What can be asked about one segment of a context."""

    lookup = "lookup"
    """Label to item: the task itself."""
    label_to_number = "label_to_number"
    """Label to the ordinal of its segment, read where the task reads the item."""
    number_to_item = "number_to_item"
    """Ordinal of a segment to the item in it."""
    index = "index"
    """Label to ordinal, read at the label itself: the easiest way to ask for a position."""


@dataclass(frozen=True, eq=False)
class Kind:
    """A kind of document: what holds what, and the words for it.

    Parallel wording keeps the number of tokens the same from kind to kind, so that what is learned
    in one kind can serve in another.
    """

    name: str
    labels: tuple[str, ...]
    items: tuple[str, ...]
    segment: str
    queries: Mapping[Query, str]
    opening: str = ""


_BOX_SEGMENT = "the {item} is in Box {label}"
_BOX_QUERIES = {
    Query.lookup: "Box {label} contains the > {item} .",
    Query.label_to_number: "Box {label} is number > {number} .",
    Query.number_to_item: "number {number} contains the > {item} .",
    Query.index: "index {label} > {number} .",
}
_VARIABLE_SEGMENT = "value {item} goes to variable {label}"
_VARIABLE_QUERIES = {
    Query.lookup: "variable {label} holds value > {item} .",
    Query.label_to_number: "variable {label} is number > {number} .",
    Query.number_to_item: "number {number} holds value > {item} .",
    Query.index: "index {label} > {number} .",
}

OBJECTS_IN_BOXES = Kind("objects in boxes", LABELS, object_words(), _BOX_SEGMENT, _BOX_QUERIES)
NUMBERS_IN_BOXES = Kind("numbers in boxes", LABELS, VALUES, _BOX_SEGMENT, _BOX_QUERIES)
NUMBERS_IN_VARIABLES = Kind(
    "numbers in variables", VARIABLES, VALUES, _VARIABLE_SEGMENT, _VARIABLE_QUERIES
)
OBJECTS_IN_VARIABLES = Kind(
    "objects in variables", VARIABLES, object_words(), _VARIABLE_SEGMENT, _VARIABLE_QUERIES
)
SUMS_IN_BOXES = Kind(
    "sums in boxes",
    LABELS,
    VALUES,
    _BOX_SEGMENT,
    {Query.lookup: "Box {label} contains the > {item} + {digit} = > {sum} ."},
)
DIALOGUE = Kind(
    "dialogue",
    LABELS,
    object_words(),
    _BOX_SEGMENT,
    {
        Query.lookup: "What does Box {label} contain ? "
        "Assistant : Box {label} contains the > {item} ."
    },
    "User :",
)


@dataclass(frozen=True, eq=False)
class Documents:
    """A batch of aligned documents.

    input_ids [batch, seq]; parts, one a column [seq]; is_answer [seq], true where a token is to be
    predicted from the text before it.
    """

    input_ids: Ints
    parts: tuple[Part, ...]
    is_answer: NDArray[np.bool_]


_Column = tuple[Ints | int, Part, bool]


def entity_documents(
    kind: Kind, query: Query, n_segments: int, batch: int, rng: np.random.Generator
) -> Documents:
    """Documents with `n_segments` segments and one question about a random one of them.

    One question only: with several, "an item not named yet" is a shortcut that is learned instead
    of the ordinals.
    """
    labels = _distinct(kind.labels, n_segments, batch, rng)
    items = _distinct(kind.items, n_segments, batch, rng)
    columns = _fixed(f"{START} {kind.opening}")
    for segment in range(n_segments):
        words = kind.segment if segment else kind.segment.replace("the", "The")
        end = "," if segment + 1 < n_segments else "."
        columns += _context(
            f"{words} {end}", {"item": items[:, segment], "label": labels[:, segment]}
        )
    asked, digits = rng.integers(n_segments, size=batch), rng.integers(1, 10, batch)
    item = _pick(items, asked)
    slots = {
        "item": item,
        "label": _pick(labels, asked),
        "number": _number_ids(asked + 1),
        "digit": _number_ids(digits),
        "sum": item + digits,
    }
    return _documents(columns + _query(kind.queries[query], slots), batch)


def additions(n_sums: int, batch: int, rng: np.random.Generator) -> Documents:
    """Documents of additions and nothing else: `14 + 3 = 17 , ...`."""
    columns = _fixed(START)
    for place in range(n_sums):
        values, digits = rng.integers(10, 50, batch), rng.integers(1, 10, batch)
        slots = {name: _number_ids(v) for name, v in (("value", values), ("digit", digits))}
        slots["sum"] = slots["value"] + digits
        end = "," if place + 1 < n_sums else "."
        columns += _query(f"{{value}} + {{digit}} = > {{sum}} {end}", slots)
    return _documents([(ids, Part.free, is_answer) for ids, _, is_answer in columns], batch)


def _number_ids(numbers: Ints) -> Ints:
    """Token ids of numbers: their words are consecutive in the vocabulary."""
    return numbers + word_ids()[NUMBERS[0]]


def _distinct(words: tuple[str, ...], k: int, batch: int, rng: np.random.Generator) -> Ints:
    pool = np.array([word_ids()[word] for word in words])
    drawn: Ints = pool[rng.random((batch, len(pool))).argsort(1)[:, :k]]
    return drawn


def _pick(table: Ints, column: Ints) -> Ints:
    picked: Ints = np.take_along_axis(table, column[:, None], 1)[:, 0]
    return picked


def _fixed(text: str) -> list[_Column]:
    return [(word_ids()[word], Part.filler, False) for word in text.split()]


def _context(template: str, slots: Mapping[str, Ints]) -> list[_Column]:
    return [
        (slots["label"], Part.context_label, False)
        if word == "{label}"
        else (slots["item"] if word == "{item}" else word_ids()[word], Part.filler, False)
        for word in template.split()
    ]


def _query(template: str, slots: Mapping[str, Ints]) -> list[_Column]:
    """Columns of a query; in its template, `>` stands between what asks and what answers."""
    columns: list[_Column] = []
    words = template.split()
    for place, word in enumerate(words):
        if word == ">":
            continue
        follows = words[place - 1] == ">" if place else False
        asks = words[place + 1 : place + 2] == [">"]
        is_slot = word.startswith("{")
        names_segment = word in ("{label}", "{number}") and not follows
        if names_segment and asks:
            part = Part.free
        elif names_segment:
            part = Part.query_label
        else:
            part = Part.answering if asks else Part.filler
        columns.append((slots[word[1:-1]] if is_slot else word_ids()[word], part, follows))
    return columns


def _documents(columns: Sequence[_Column], batch: int) -> Documents:
    ids = np.stack([np.broadcast_to(ids, batch) for ids, _, _ in columns], axis=1)
    parts = tuple(part for _, part, _ in columns)
    return Documents(ids, parts, np.array([is_answer for _, _, is_answer in columns]))
