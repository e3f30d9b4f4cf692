"""Tests of what heads carry: which sentences they compare, and the answers read off the texts."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.core.errors import UserError
from backend.tasks.desiderata import Pairs
from backend.tasks.ioi import IOI
from tests import planted_ioi, tiny
from tests.tasks.test_ioi import tokenizer_of

names = pytest.mark.parametrize("name", [each.name for each in IOI.desiderata])
NAMED = re.compile(r"\w+ (\w+) and (\w+) .*, (\w+) \w+ a \w+ to")
NEW = {
    "answer": ("other", "same place"),
    "name": ("indirect object", "same place"),
    "position": ("subject", "other place"),
    "name_and_position": ("indirect object", "other place"),
    "position_of_another": ("other", "other place"),
    "name_of_another": ("other", "same place"),
}
"""Who is the subject of the alternate, and whether it comes first where the base's does."""


def said(text: str) -> tuple[str, str, bool]:
    """Who is the indirect object and who the subject, and whether the subject comes first."""
    found = NAMED.fullmatch(text)
    assert found
    first, second, third = found.groups()
    assert third in (first, second)
    return (second, first, True) if third == first else (first, second, False)


def drawn(name: str, n: int, seed: int, tokenizer: Any) -> Pairs:
    base = IOI.sample(tokenizer, n, seed)
    return IOI.desideratum(name).draw(tokenizer, base, seed)


def check(name: str, pairs: Pairs, tokenizer: Any) -> None:
    """What differs between base and alternate is what the test is about, and the answer follows."""
    for i, (base, other) in enumerate(zip(pairs.base.texts, pairs.alternate.texts, strict=True)):
        (io, subject, s_first), (new_io, new_subject, new_s_first) = said(base), said(other)
        who = {io: "indirect object", subject: "subject"}.get(new_subject, "other")
        place = "same place" if new_s_first == s_first else "other place"
        assert (who, place) == NEW[name]
        assert new_io not in (io, subject)
        renamed = {io: "x", subject: "x", new_io: "x", new_subject: "x"}
        frame, new_frame = (
            [renamed.get(word, word) for word in re.findall(r"\w+|,", text)]
            for text in (base, other)
        )
        assert frame == new_frame
        expected = tokenizer.decode([pairs.expected_ids[i]]).strip()
        assert expected == (new_io if name == "answer" else subject)
        assert pairs.expected_ids[i] != pairs.base.answer_ids[i]
        words = pairs.alternate.words(i)
        tokens = {key: of[i] for key, of in pairs.alternate.positions.items()}
        named = {key: words[token] for key, token in tokens.items() if key != "s1_plus_1"}
        assert named == {"io": new_io, "s1": new_subject, "s2": new_subject, "end": "to"}
        assert tokens["s1_plus_1"] == tokens["s1"] + 1


@names
@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 2**31 - 1))
def test_alternates_change_one_thing_and_the_answer_follows(name: str, seed: int) -> None:
    tokenizer = planted_ioi.tokenizer()
    check(name, drawn(name, 8, seed, tokenizer), tokenizer)


@names
def test_the_expected_token_is_the_one_that_would_follow(name: str) -> None:
    tokenizer = tokenizer_of("Llama-3")
    pairs = drawn(name, 8, 3, tokenizer)
    check(name, pairs, tokenizer)
    for i, text in enumerate(pairs.base.texts):
        token = pairs.expected_ids[i]
        word = tokenizer.decode([token]).strip()
        assert tokenizer(f"{text} {word}")["input_ids"] == [*pairs.base.input_ids[i], token]


@names
def test_both_places_come_as_often(name: str) -> None:
    pairs = drawn(name, 400, 0, planted_ioi.tokenizer())
    first = [said(text)[2] for text in pairs.alternate.texts]
    assert 150 < sum(first) < 250


@names
def test_same_seed_same_pairs_and_more_pairs_begin_alike(name: str) -> None:
    tokenizer = planted_ioi.tokenizer()
    few, many = drawn(name, 10, 3, tokenizer), drawn(name, 40, 3, tokenizer)
    assert few.alternate.texts == many.alternate.texts[:10]
    assert few.alternate.texts != drawn(name, 10, 4, tokenizer).alternate.texts


@names
def test_a_tokenizer_without_names_is_told(name: str) -> None:
    base = IOI.sample(planted_ioi.tokenizer(), 3)
    with pytest.raises(UserError, match="writes only 0 of"):
        IOI.desideratum(name).draw(tiny.word_tokenizer(), base, 0)
