"""The entity-tracking task: prompts whose tokens align, and their counterfactuals.

`The apple is in Box F, the computer is in Box Q. Box F contains the` -> `apple`
(Prakash et al., ICLR 2024, experimental setup). Everything here is NumPy and text: no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.core.circuit import Position
from backend.core.errors import UserError
from backend.tasks.vocabulary import Vocabulary, tokenized, usable_vocabulary

MIN_BOXES, MAX_BOXES = 2, 10
MAX_PROMPTS, MAX_SEED = 100_000, 2**31 - 1
_PER_PROMPT = (
    "input_ids",
    "answer_ids",
    "object_ids",
    "objects",
    "labels",
    "query",
    "query_labels",
    "spans",
)
Ints = NDArray[np.int64]
Words = NDArray[np.str_]


class Role(Enum):
    """What a token is in the prompt; a token has the most specific role that fits."""

    filler = "filler"
    object = "object"
    correct_object = "correct object"
    label = "label"
    prev_query_label = "label asked for, first time"
    query_label = "label asked for"
    last = "last token"


@dataclass(frozen=True, eq=False)
class PromptSet:
    """Prompts of one shape as one immutable value; every array is read-only.

    input_ids [n, seq]; answer_ids [n]; object_ids [n, n_boxes]; objects, labels [n, n_boxes];
    query [n], the index of the box asked for; query_labels [n], the label in the question;
    positions: Position -> token index [n]; spans [n, seq, 2], each token's characters in its text;
    vocabulary, the words that were drawn from.
    """

    texts: tuple[str, ...]
    input_ids: Ints
    answer_ids: Ints
    object_ids: Ints
    objects: Words
    labels: Words
    query: Ints
    query_labels: Words
    positions: Mapping[Position, Ints]
    object_positions: Ints
    label_positions: Ints
    spans: Ints
    vocabulary: Vocabulary
    seed: int

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def n_boxes(self) -> int:
        """Boxes in each prompt."""
        return self.objects.shape[1]

    def words(self, prompt: int) -> list[str]:
        """The tokens of one prompt as text, special tokens as empty strings: [seq]."""
        text = self.texts[prompt]
        return [text[start:end].strip() for start, end in self.spans[prompt]]

    def roles(self, prompt: int) -> list[Role]:
        """The role of every token of one prompt: [seq]."""
        roles = [Role.filler] * self.input_ids.shape[1]
        for token in self.object_positions:
            roles[token] = Role.object
        for token in self.label_positions:
            roles[token] = Role.label
        for position in Position:
            roles[self.positions[position][prompt]] = Role[position.name]
        return roles


def sample_prompts(tokenizer: Any, n: int, n_boxes: int = 7, seed: int = 0) -> PromptSet:
    """`n` prompts with distinct objects, distinct labels and a uniform query.

    The first prompts of a seed are the same for every `n`. Raises UserError for a number of boxes
    outside 2 to 10 and for a tokenizer that leaves too few one-token objects or labels.
    """
    check_size(n, n_boxes, seed)
    vocabulary = usable_vocabulary(tokenizer)
    objects_rng, labels_rng, query_rng = _generators(seed, "prompts")
    objects = _draw(objects_rng, vocabulary.objects, "objects", n, n_boxes)
    labels = _draw(labels_rng, vocabulary.labels, "labels", n, n_boxes)
    query = query_rng.integers(n_boxes, size=n)
    return _encode(tokenizer, vocabulary, objects, labels, query, _pick(labels, query), query, seed)


def counterfactual_prompts(
    tokenizer: Any, prompts: PromptSet, seed: int | None = None
) -> PromptSet:
    """The path-patching counterfactual of each prompt (Prakash et al., circuit discovery).

    Other objects, other labels and another query index; the label in the question is one that
    does not occur in the prompt. As it has no previous occurrence, `prev_query_label` is a random
    label of the prompt, which is what stage D patches from. The seed is the prompts' own unless
    given. Raises UserError when the tokenizer leaves too few words for two prompts.
    """
    seed = prompts.seed if seed is None else seed
    n, n_boxes = len(prompts), prompts.n_boxes
    vocabulary = usable_vocabulary(tokenizer)
    objects_rng, labels_rng, query_rng = _generators(seed, "counterfactual")
    objects = _draw(objects_rng, vocabulary.objects, "objects", n, n_boxes, prompts.objects)
    drawn = _draw(labels_rng, vocabulary.labels, "labels", n, n_boxes + 1, prompts.labels)
    labels, absent = drawn[:, :n_boxes], drawn[:, n_boxes]
    shift, previous = query_rng.integers((1, 0), (n_boxes, n_boxes), size=(n, 2)).T
    query = (prompts.query + shift) % n_boxes
    return _encode(tokenizer, vocabulary, objects, labels, query, absent, previous, seed)


def reference_prompts(tokenizer: Any, n: int, n_boxes: int = 7, seed: int = 0) -> PromptSet:
    """Prompts over which head outputs are averaged for a knock-out.

    They are drawn independently of the prompts of every seed, and ask for a label that does not
    occur in them (Prakash et al., circuit evaluation).
    """
    check_size(n, n_boxes, seed)
    vocabulary = usable_vocabulary(tokenizer)
    objects_rng, labels_rng, query_rng = _generators(seed, "reference")
    objects = _draw(objects_rng, vocabulary.objects, "objects", n, n_boxes)
    drawn = _draw(labels_rng, vocabulary.labels, "labels", n, n_boxes + 1)
    query = query_rng.integers(n_boxes, size=n)
    labels, absent = drawn[:, :n_boxes], drawn[:, n_boxes]
    return _encode(tokenizer, vocabulary, objects, labels, query, absent, query, seed)


def select(prompts: PromptSet, keep: NDArray[np.bool_]) -> PromptSet:
    """The prompts for which `keep` [n] is true."""
    rows = np.flatnonzero(keep)
    per_prompt = {name: getattr(prompts, name)[rows] for name in _PER_PROMPT}
    return _frozen_set(
        **per_prompt,
        texts=tuple(prompts.texts[row] for row in rows),
        positions={name: tokens[rows] for name, tokens in prompts.positions.items()},
        object_positions=prompts.object_positions,
        label_positions=prompts.label_positions,
        vocabulary=prompts.vocabulary,
        seed=prompts.seed,
    )


def check_size(n: int, n_boxes: int, seed: int) -> None:
    """Raise UserError if there are no such prompts."""
    if not MIN_BOXES <= n_boxes <= MAX_BOXES:
        raise UserError(
            f"A prompt can have {MIN_BOXES} to {MAX_BOXES} boxes, not {n_boxes}. "
            "Choose a number in that range."
        )
    if n < 1:
        raise UserError(f"At least one prompt is needed, not {n}. Ask for more prompts.")
    if n > MAX_PROMPTS:
        raise UserError(f"At most {MAX_PROMPTS} prompts can be drawn, not {n}. Ask for fewer.")
    if not 0 <= seed <= MAX_SEED:
        raise UserError(f"A seed is a number from 0 to {MAX_SEED}, not {seed}. Choose another.")


def _generators(seed: int, purpose: str) -> list[np.random.Generator]:
    """Independent streams for objects, labels and queries, never shared between purposes."""
    purpose_key = int.from_bytes(purpose.encode())
    return [np.random.default_rng([seed, purpose_key, stream]) for stream in range(3)]


def _draw(
    rng: np.random.Generator,
    words: Mapping[str, int],
    kind: str,
    n: int,
    k: int,
    excluded: Words | None = None,
) -> Words:
    """`n` rows of `k` distinct words, none of them among the row's `excluded` ones: [n, k]."""
    needed = k + (0 if excluded is None else excluded.shape[1])
    if len(words) < needed:
        raise UserError(
            f"This tokenizer writes only {len(words)} of the {kind} as one token each, and "
            f"{needed} are needed. Choose fewer boxes or another model."
        )
    pool = np.array(list(words))
    order = rng.random((n, len(pool)))
    if excluded is not None:
        order[(pool[None, :, None] == excluded[:, None, :]).any(-1)] = 2.0
    drawn: Words = pool[order.argsort(axis=1)[:, :k]]
    return drawn


def _pick(table: Any, column: Ints) -> Any:
    return np.take_along_axis(table, column[:, None], axis=1)[:, 0]


def _encode(
    tokenizer: Any,
    vocabulary: Vocabulary,
    objects: Words,
    labels: Words,
    query: Ints,
    query_labels: Words,
    previous: Ints,
    seed: int,
) -> PromptSet:
    """Tokenize, and locate every object and label; `previous` [n] is the box read by stage D."""
    texts = tuple(
        _text(*row) for row in zip(objects.tolist(), labels.tolist(), query_labels, strict=True)
    )
    rows = tokenized(tokenizer, texts)
    if len({len(ids) for ids, _ in rows}) != 1:
        raise UserError(
            "This tokenizer gives prompts of different lengths, so their positions do not align. "
            "Choose a model whose tokenizer writes every object and label as one token."
        )
    input_ids = np.array([ids for ids, _ in rows], dtype=np.int64)
    spans = np.array([characters for _, characters in rows], dtype=np.int64)
    object_positions, label_positions, query_label = _locate(
        texts[0], spans[0], objects[0], labels[0]
    )
    object_ids = _ids(objects, vocabulary.objects)
    aligned = (
        (input_ids[:, object_positions] == object_ids).all()
        and (input_ids[:, label_positions] == _ids(labels, vocabulary.labels)).all()
        and (input_ids[:, query_label] == _ids(query_labels, vocabulary.labels)).all()
        and (spans[:, -1, 1] == [len(text) for text in texts]).all()
    )
    if not aligned:
        raise UserError(
            "This tokenizer splits the prompt's words in a way that moves the named positions. "
            "Choose a model whose tokenizer writes every object and label as one token."
        )
    n = len(texts)
    return _frozen_set(
        texts=texts,
        input_ids=input_ids,
        answer_ids=_pick(object_ids, query),
        object_ids=object_ids,
        objects=objects,
        labels=labels,
        query=query,
        query_labels=query_labels,
        positions={
            Position.last: np.full(n, input_ids.shape[1] - 1),
            Position.query_label: np.full(n, query_label),
            Position.prev_query_label: label_positions[previous],
            Position.correct_object: object_positions[query],
        },
        object_positions=object_positions,
        label_positions=label_positions,
        spans=spans,
        vocabulary=vocabulary,
        seed=seed,
    )


def _text(objects: list[str], labels: list[str], query_label: str) -> str:
    boxes = ", ".join(f"the {o} is in Box {b}" for o, b in zip(objects, labels, strict=True))
    return f"T{boxes[1:]}. Box {query_label} contains the"


def _locate(text: str, spans: Ints, objects: Words, labels: Words) -> tuple[Ints, Ints, int]:
    """Token indices of the context's objects and labels [n_boxes] and of the query's label."""

    def token_at(character: int) -> int:
        return int(np.flatnonzero((spans[:, 0] <= character) & (character < spans[:, 1]))[-1])

    object_positions = [token_at(text.index(f"he {word} is in") + 3) for word in objects]
    label_positions = [token_at(text.index(f" Box {label}") + 5) for label in labels]
    query_label = token_at(text.rindex(" Box ") + 5)
    return np.array(object_positions), np.array(label_positions), query_label


def _ids(words: Words, vocabulary: Mapping[str, int]) -> Ints:
    return np.vectorize(vocabulary.__getitem__, otypes=[np.int64])(words)


def _frozen_set(*, positions: Mapping[Position, Ints], **fields: Any) -> PromptSet:
    arrays = [value for value in fields.values() if isinstance(value, np.ndarray)]
    for array in (*arrays, *positions.values()):
        array.setflags(write=False)
    return PromptSet(**fields, positions=MappingProxyType(dict(positions)))
