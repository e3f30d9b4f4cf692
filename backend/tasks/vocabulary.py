"""The words that prompts are made of: those that a tokenizer writes as one token each."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_OBJECT_CONTEXTS = (
    ("The ", " is in Box"),
    ("in Box F, the ", " is in Box"),
    ("Box F contains the ", ""),
)
_LABEL_CONTEXTS = (("is in Box ", ", the"), ("is in Box ", ". Box"), (". Box ", " contains the"))


@dataclass(frozen=True)
class Vocabulary:
    """The objects and labels that are one token each for a tokenizer, with their token ids."""

    objects: Mapping[str, int]
    labels: Mapping[str, int]

    @property
    def dropped_objects(self) -> tuple[str, ...]:
        """The paper's objects that no prompt has."""
        return tuple(word for word in object_words() if word not in self.objects)

    @property
    def dropped_labels(self) -> tuple[str, ...]:
        """The letters that label no box."""
        return tuple(letter for letter in string.ascii_uppercase if letter not in self.labels)

    @property
    def note(self) -> str:
        """How many words the prompts leave out, in a sentence; empty when they have all."""
        counts = [
            f"{len(dropped)} of {len(dropped) + len(kept)} {kind}"
            for kind, dropped, kept in (
                ("objects", self.dropped_objects, self.objects),
                ("labels", self.dropped_labels, self.labels),
            )
            if dropped
        ]
        return (
            f"The prompts leave out {' and '.join(counts)}: this tokenizer does not write them as "
            "one token each."
            if counts
            else ""
        )


@cache
def object_words() -> tuple[str, ...]:
    """The paper's 85 object words."""
    return tuple((Path(__file__).parent / "objects.txt").read_text().split())


def usable_vocabulary(tokenizer: Any) -> Vocabulary:
    """The paper's objects and labels that are the same one token wherever prompts have them.

    An object also as the answer, after “contains the”.
    """
    return Vocabulary(
        single_tokens(tokenizer, object_words(), _OBJECT_CONTEXTS),
        single_tokens(tokenizer, string.ascii_uppercase, _LABEL_CONTEXTS),
    )


def single_tokens(
    tokenizer: Any, words: Sequence[str], contexts: Sequence[tuple[str, str]]
) -> dict[str, int]:
    """Token ids of those words that are the same one token in all contexts (before, after)."""
    first, *others = (
        _single_tokens_between(tokenizer, before, words, after) for before, after in contexts
    )
    return {
        word: token
        for word, token in first.items()
        if all(found.get(word) == token for found in others)
    }


def _single_tokens_between(
    tokenizer: Any, before: str, words: Sequence[str], after: str
) -> dict[str, int]:
    """Token ids of those words that are exactly one known token between these two texts."""
    tokens, lengths = {}, {}
    start = len(before)
    for word, (ids, spans) in zip(
        words, tokenized(tokenizer, [before + word + after for word in words]), strict=True
    ):
        end = start + len(word)
        touching = [
            (token, before[a:].strip(), b)
            for token, (a, b) in zip(ids, spans, strict=True)
            if a < end and b > start
        ]
        # The word, maybe with the space before it, and nothing else.
        whole = [rest for _, *rest in touching] == [["", end]]
        if whole and touching[0][0] != tokenizer.unk_token_id:
            tokens[word], lengths[word] = touching[0][0], len(ids)
    # One token for the word but another for the space before it would move what follows.
    shortest = min(lengths.values(), default=0)
    return {word: token for word, token in tokens.items() if lengths[word] == shortest}


def tokenized(
    tokenizer: Any, texts: Sequence[str]
) -> list[tuple[list[int], list[tuple[int, int]]]]:
    """Each text's token ids and their characters, unpadded, and up to its last character.

    A start token belongs to the prompt; an end token would come between it and its answer.
    """
    encoded = tokenizer(list(texts), return_offsets_mapping=True, padding=False, truncation=False)
    rows = []
    for ids, spans in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
        end = max((i for i, (a, b) in enumerate(spans) if b > a), default=-1) + 1
        rows.append((ids[:end], spans[:end]))
    return rows


def next_tokens(tokenizer: Any, text: str, words: Sequence[str]) -> list[int | None]:
    """The one token with which a text goes on if it goes on with each word; None if it is not one,
    or not known."""
    (before, _), *after = tokenized(tokenizer, [text, *(f"{text} {word}" for word in words)])
    return [
        ids[-1] if ids[:-1] == before and ids[-1] != tokenizer.unk_token_id else None
        for ids, _ in after
    ]


def tokens_at(spans: NDArray[Any], characters: NDArray[Any]) -> NDArray[np.int64]:
    """The tokens in which characters [n, k] are, by tokens' spans [n, seq, 2]: [n, k]."""
    starts, stops = spans[:, None, :, 0], spans[:, None, :, 1]
    inside = (starts <= characters[..., None]) & (characters[..., None] < stops)
    tokens: NDArray[np.int64] = inside.shape[-1] - 1 - inside[..., ::-1].argmax(-1)
    return tokens
