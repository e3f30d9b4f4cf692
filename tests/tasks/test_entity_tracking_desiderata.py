"""Each test of what heads carry: its prompts written out anew, its answers read off the texts."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from backend.bundled.vocabulary import make_tokenizer
from backend.core.errors import UserError
from backend.tasks.desiderata import Pairs
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.prompts import Prompts, PromptSet
from tests import trained
from tests.tiny import word_tokenizer

MORE_WORDS = (
    *("There", "are", "a", "bunch", "of", "boxes", "containing", "objects"),
    *("these", "contained", "there", "three", "additional", "and", "not", "PP", "BB", "AA"),
)
TOKENIZER = word_tokenizer((*string.ascii_uppercase, *MORE_WORDS))
BUNDLED_CANNOT = {
    "random_text_start": "“There”, “are”, “boxes”, “bunch”, “containing”, “objects”, “of”",
    "random_text_end": "“are”, “boxes”, “bunch”, “containing”, “objects”, “of”, “these”",
    "add_tokens_btw_box_and_obj": "“contained”",
    "add_box_before_correct_segment": "“PP”, “BB”, “AA”",
    "altered_box_obj_association": "“not”",
}
NAMES = [each.name for each in ENTITY_TRACKING.desiderata]
names = pytest.mark.parametrize("name", NAMES)

Segment = tuple[str, str]
"""An object and a label."""


def plain(segments: list[Segment]) -> list[str]:
    return [f"the {thing} is in Box {label}" for thing, label in segments]


def with_queried(form: str) -> Callable[[list[Segment], int], str]:
    def written(segments: list[Segment], k: int) -> str:
        parts = plain(segments)
        parts[k] = form.replace("apple", segments[k][0]).replace("F", segments[k][1])
        return ", ".join(parts)

    return written


def as_usual(segments: list[Segment], k: int) -> str:
    return ", ".join(plain(segments))


BUNCH = "a bunch of boxes containing objects"
CONTEXTS: dict[str, Callable[[list[Segment], int], str]] = {
    "random_text_start": lambda segments, k: f"There are {BUNCH}, {as_usual(segments, k)}",
    "random_text_end": lambda segments, k: f"{as_usual(segments, k)}, these are {BUNCH}",
    "add_tokens_btw_box_and_obj": with_queried("the apple is contained in the Box F"),
    "add_box_before_correct_segment": with_queried(
        "there are three additional boxes, Box PP, Box BB and Box AA, the apple is in Box F"
    ),
    "altered_box_obj_order": with_queried("Box F contains the apple"),
    "altered_box_obj_association": with_queried("the apple is not in Box F"),
    "no_comma": lambda segments, k: " ".join(plain(segments)),
    "add_comma": lambda segments, k: ", ".join(
        f"the {thing}, is in Box {label}" for thing, label in segments
    ),
}
"""The context of the alternate prompt, where it is not as usual."""


def said(text: str) -> tuple[list[Segment], int]:
    """What a prompt says is where, and which segment it asks for."""
    context, question = text.split(". ")
    told = re.finditer(
        r"the (\w+),? is (?:not |contained )?in (?:the )?Box (\w)\b|Box (\w) contains the (\w+)",
        context[0].lower() + context[1:] if context.startswith("The ") else context,
    )
    segments = [(each[1] or each[4], each[2] or each[3]) for each in told]
    label = re.fullmatch(r"Box (\w) contains the", question)
    assert label
    (asked,) = (k for k, (_, at) in enumerate(segments) if at == label[1])
    return segments, asked


def drawn(name: str, n: int, seed: int, n_boxes: int = 7, tokenizer: Any = TOKENIZER) -> Pairs:
    base = Prompts(ENTITY_TRACKING, n, seed, (n_boxes,)).sample(tokenizer)
    return ENTITY_TRACKING.desideratum(name).draw(tokenizer, base, seed)


def expected_of(name: str, base: str, alternate: str) -> str:
    """The answer if the variable is carried, read off two texts; what must differ does."""
    told, asked = said(base)
    other, at = said(alternate)
    objects, labels = (dict(enumerate(each)) for each in zip(*told, strict=True))
    label = other[at][1]
    others = {thing for thing, _ in other}
    assert not others & {*objects.values()}
    shared = {at for _, at in other} & {*labels.values()}
    at -= name == "add_seg_start"
    assert at != asked
    if name == "label":
        (place,) = (k for k in labels if labels[k] == label)
        assert shared == {label}
        assert place not in (asked, at)
        return objects[place]
    assert not shared
    if name == "object":
        return other[at][0]
    return objects[(at + 1) % len(objects) if name == "incorrect_segment" else at]


@names
@settings(deadline=None, max_examples=10)
@given(n_boxes=st.integers(3, 8), seed=st.integers(0, 2**31 - 1))
def test_pairs_are_as_told(name: str, n_boxes: int, seed: int) -> None:
    pairs = drawn(name, 6, seed, n_boxes)
    assert pairs.base.texts == Prompts(ENTITY_TRACKING, 6, seed, (n_boxes,)).sample(TOKENIZER).texts
    extra = name in ("add_seg_start", "add_seg_end")
    for i, (base, alternate) in enumerate(
        zip(pairs.base.texts, pairs.alternate.texts, strict=True)
    ):
        segments, k = said(alternate)
        assert len(segments) == n_boxes + extra == len({*segments})
        context = CONTEXTS.get(name, as_usual)(segments, k)
        assert alternate == f"{context[0].upper()}{context[1:]}. Box {segments[k][1]} contains the"
        expected = expected_of(name, base, alternate)
        assert TOKENIZER.decode([pairs.expected_ids[i]]) == expected
        told, asked = said(base)
        assert expected != told[asked][0]
        at_tokens(pairs.alternate, i, segments, k)


def at_tokens(prompts: PromptSet, row: int, segments: list[Segment], k: int) -> None:
    """The named tokens of a prompt hold what its text has there, and every object its own."""
    words = prompts.words(row)
    named = {name: words[tokens[row]] for name, tokens in prompts.positions.items()}
    thing, label = segments[k]
    assert named == {
        "last": "the",
        "query_label": label,
        "prev_query_label": label,
        "correct_object": thing,
    }
    assert prompts.positions["last"][row] == len(words) - 1
    assert prompts.positions["query_label"][row] == len(words) - 3
    assert prompts.positions["prev_query_label"][row] < len(words) - 3
    assert [words[token] for token in prompts.roles["object"][row]] == [one for one, _ in segments]
    assert [words[token] for token in prompts.roles["label"][row]] == [one for _, one in segments]


@names
@pytest.mark.parametrize("style", ["SentencePiece", "Llama-3"])
def test_the_expected_token_is_the_one_that_stands_in_the_prompt(name: str, style: str) -> None:
    words = (*string.ascii_uppercase, "PP", "BB", "AA")
    tokenizer = trained.STYLES[style](labels=words)
    if (name, style) == ("altered_box_obj_order", "Llama-3"):
        # “Box” at the very start is another token, or several: prompts would not align.
        with pytest.raises(UserError, match="different lengths"):
            drawn(name, 8, 3, tokenizer=tokenizer)
        return
    pairs = drawn(name, 8, 3, tokenizer=tokenizer)
    where = pairs.alternate if name == "object" else pairs.base
    for i, (base, alternate) in enumerate(
        zip(pairs.base.texts, pairs.alternate.texts, strict=True)
    ):
        expected = expected_of(name, base, alternate)
        token = pairs.expected_ids[i]
        assert tokenizer.decode([token]).strip() == expected
        assert token in where.input_ids[i]
        continued = tokenizer(f"{base} {expected}")["input_ids"]
        assert continued == [*pairs.base.input_ids[i], token]


@names
def test_the_bundled_tokenizer_says_which_words_it_lacks(name: str) -> None:
    if name in BUNDLED_CANNOT:
        with pytest.raises(UserError, match=BUNDLED_CANNOT[name]) as raised:
            drawn(name, 5, 0, tokenizer=make_tokenizer())
        assert "Choose another test" in str(raised.value)
    else:
        assert len(drawn(name, 5, 0, tokenizer=make_tokenizer()).alternate) == 5


def test_additional_boxes_have_one_token_each() -> None:
    with pytest.raises(UserError, match="does not write “PP”, “BB”, “AA” as one token each"):
        drawn("add_box_before_correct_segment", 5, 0, tokenizer=trained.sentencepiece())


@pytest.mark.parametrize("name", ["object", "label", "position"])
def test_every_index_is_asked_for_alike(name: str) -> None:
    pairs = drawn(name, 2100, 1)
    for prompts in (pairs.base, pairs.alternate):
        counts = Counter(said(text)[1] for text in prompts.texts)
        assert chisquare([counts[k] for k in range(7)]).pvalue > 1e-4


@names
def test_same_seed_same_pairs_and_more_pairs_begin_alike(name: str) -> None:
    few, many = drawn(name, 10, 3), drawn(name, 40, 3)
    assert few.alternate.texts == many.alternate.texts[:10]
    assert few.expected_ids.tolist() == many.expected_ids[:10].tolist()
    assert few.alternate.texts != drawn(name, 10, 4).alternate.texts


@pytest.mark.parametrize("name", ["label", "incorrect_segment"])
def test_two_boxes_are_too_few_for_some(name: str) -> None:
    with pytest.raises(UserError, match="needs at least 3 boxes, and there are 2"):
        drawn(name, 5, 0, n_boxes=2)


def test_words_that_run_out_are_told() -> None:
    with pytest.raises(UserError, match="21 are needed"):
        drawn("add_seg_end", 5, 0, 10, word_tokenizer(string.ascii_uppercase[:20]))


def test_the_eleven_are_of_group_b_and_one_is_a_control() -> None:
    main, rest = ENTITY_TRACKING.desiderata[:3], ENTITY_TRACKING.desiderata[3:]
    assert [each.variable for each in main] == ["object", "label", "position"]
    assert all(not each.groups and not each.control for each in main)
    assert len(rest) == 11
    assert all(each.groups == ("B",) and each.variable == "position" for each in rest)
    assert [each.name for each in rest if each.control] == ["incorrect_segment"]
