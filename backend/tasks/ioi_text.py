"""How sentences of indirect object identification are written, and where their words stand.

NumPy and text: no torch.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.core.errors import UserError
from backend.tasks.ioi_words import NAMES, OBJECTS, PLACES, TEMPLATES
from backend.tasks.prompts import Ints, PromptSet
from backend.tasks.task import Task
from backend.tasks.vocabulary import single_tokens, tokenized, tokens_at

Texts = NDArray[np.str_]

_NAME_CONTEXTS = (("When ", " and"), ("and ", " went"), ("the bank, ", " gave"), ("a book to ", ""))
_PLACE_CONTEXTS = (("went to the ", ","),)
_OBJECT_CONTEXTS = (("gave a ", " to"),)
_LEAST_NAMES = 5
"""Two in a prompt and three others in its counterfactual."""


@dataclass(frozen=True)
class Vocabulary:
    """Words that are one token each for a tokenizer, with their ids, and templates that align."""

    names: Mapping[str, int]
    places: Mapping[str, int]
    objects: Mapping[str, int]
    templates: tuple[str, ...]

    @property
    def note(self) -> str:
        """What the prompts leave out, in a sentence; empty when they have all."""
        counts = [
            f"{len(everything) - len(kept)} of {len(everything)} {kind}"
            for kind, everything, kept in (
                ("names", NAMES, self.names),
                ("places", PLACES, self.places),
                ("objects", OBJECTS, self.objects),
                ("sentences", TEMPLATES, self.templates),
            )
            if len(kept) < len(everything)
        ]
        return (
            f"The prompts leave out {' and '.join(counts)}: this tokenizer does not write them in "
            "as many tokens as the others."
            if counts
            else ""
        )


def usable_vocabulary(tokenizer: Any) -> Vocabulary:
    """The words that are the same one token wherever prompts have them, and aligned templates."""
    names = single_tokens(tokenizer, NAMES, _NAME_CONTEXTS)
    places = single_tokens(tokenizer, PLACES, _PLACE_CONTEXTS)
    objects = single_tokens(tokenizer, OBJECTS, _OBJECT_CONTEXTS)
    if not (names and places and objects):
        return Vocabulary(names, places, objects, ())
    name, place, item = (next(iter(words)) for words in (names, places, objects))
    templates = _aligned_templates(tokenizer, (name, name, place, name, item))
    return Vocabulary(names, places, objects, templates)


def _aligned_templates(tokenizer: Any, words: Sequence[str]) -> tuple[str, ...]:
    """Those of the most common length and places of `words`, and without an unknown word."""
    filled = [_fill(template, words) for template in TEMPLATES]
    rows = tokenized(tokenizer, [text for text, _ in filled])
    shapes: dict[str, tuple[int, ...]] = {}
    for template, (_, ends), (ids, spans) in zip(TEMPLATES, filled, rows, strict=True):
        # A start token may be the unknown one, too, but has no characters.
        told = [token for token, (start, end) in zip(ids, spans, strict=True) if end > start]
        if tokenizer.unk_token_id not in told:
            slots = tokens_at(np.array([spans]), np.array([ends]))[0]
            shapes[template] = (len(ids), *slots.tolist())
    counted = Counter(shapes.values()).most_common(1)
    return tuple(template for template, shape in shapes.items() if shape == counted[0][0])


def enough_words(tokenizer: Any) -> Vocabulary:
    """The usable vocabulary; raises UserError if it is too small for prompts."""
    vocabulary = usable_vocabulary(tokenizer)
    for kind, all_of_them, needed in (
        ("names", NAMES, _LEAST_NAMES),
        ("places", PLACES, 1),
        ("objects", OBJECTS, 1),
    ):
        if len(getattr(vocabulary, kind)) < needed:
            raise UserError(
                f"This tokenizer writes only {len(getattr(vocabulary, kind))} of the "
                f"{len(all_of_them)} {kind} as one token each, and {needed} are needed. Choose a "
                "model whose tokenizer has them, or another task."
            )
    if not vocabulary.templates:
        raise UserError(
            "This tokenizer does not know the words of any of the task’s sentences. Choose a model "
            "that was trained on English text, or another task."
        )
    return vocabulary


def encode(
    tokenizer: Any,
    vocabulary: Vocabulary,
    task: Task,
    drawn: Mapping[str, NDArray[Any]],
    seed: int,
) -> PromptSet:
    """The prompts as tokens, with their names located; `drawn` says what is in them.

    Raises UserError when the tokenizer splits their words.
    """
    io, s1, s2 = drawn["names"].T
    io_first, templates = drawn["io_first"], drawn["templates"]
    words = np.stack(
        [
            np.where(io_first, io, s1),
            np.where(io_first, s1, io),
            drawn["places"],
            s2,
            drawn["objects"],
        ],
        axis=1,
    )
    filled = [_fill(*row) for row in zip(templates.tolist(), words.tolist(), strict=True)]
    texts = tuple(text for text, _ in filled)
    rows = tokenized(tokenizer, texts)
    tokens_of = {**vocabulary.names, **vocabulary.places, **vocabulary.objects}
    if len({len(ids) for ids, _ in rows}) != 1:
        raise _misaligned()
    input_ids = np.array([ids for ids, _ in rows], dtype=np.int64)
    spans = np.array([characters for _, characters in rows], dtype=np.int64)
    slots = tokens_at(spans, np.array([ends for _, ends in filled]))
    written = np.take_along_axis(input_ids, slots, axis=1)
    if (slots != slots[0]).any() or (written != _ids(words, tokens_of)).any():
        raise _misaligned()
    first, second, place, third, item = slots.T
    named = {
        "io": np.where(io_first, first, second),
        "s1": np.where(io_first, second, first),
        "s1_plus_1": np.where(io_first, second, first) + 1,
        "s2": third,
        "end": np.full(len(texts), input_ids.shape[1] - 1),
    }
    choice_ids = _ids(drawn["names"][:, [0, 2]], vocabulary.names)
    roles = {**named, "place": place, "object": item}
    return PromptSet(
        task,
        texts,
        input_ids,
        answer_ids=choice_ids[:, 0].copy(),
        choice_ids=choice_ids,
        positions=named,
        roles={name: tokens[:, None] for name, tokens in roles.items()},
        spans=spans,
        drawn=drawn,
        seed=seed,
    )


def _fill(template: str, words: Sequence[str]) -> tuple[str, list[int]]:
    """A template with its words, in order, and the last character of each word."""
    text, ends = "", []
    *between, last = re.split(r"\{\w+\}", template)
    for before, word in zip(between, words, strict=True):
        text += before + word
        ends.append(len(text) - 1)
    return text + last, ends


def _ids(words: Texts, tokens: Mapping[str, int]) -> Ints:
    return np.vectorize(tokens.__getitem__, otypes=[np.int64])(words)


def _misaligned() -> UserError:
    return UserError(
        "This tokenizer splits the words of these sentences in a way that moves the named tokens. "
        "Choose a model whose tokenizer writes names, places and objects as one token each."
    )
