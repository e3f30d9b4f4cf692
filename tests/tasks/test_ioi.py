"""Indirect object identification: what every prompt must be, for every seed and tokenizer."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise
from string import ascii_lowercase
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, chisquare

from backend.core.errors import UserError
from backend.tasks.ioi import IOI
from backend.tasks.ioi_text import Vocabulary, usable_vocabulary
from backend.tasks.ioi_words import NAMES, OBJECTS, PLACES, TEMPLATES
from backend.tasks.prompts import PromptSet
from tests import planted_ioi, tiny, trained

seeds = st.integers(0, 2**31 - 1)
styles = pytest.mark.parametrize("style", trained.STYLES)
SENTENCE = re.compile(
    r"\w+ (\w+) and (\w+) \w+ \w+ the (\w+), (\w+) \w+ a (\w+) to",
)


def texts_of_every_word() -> list[str]:
    """What has every word of the task as prompts have it, and no mark that could merge with one."""
    fill = {"first": "Ann", "second": "Bo", "third": "Bo", "place": "bank", "object": "book"}
    filled = (template.format(**fill) for template in TEMPLATES)
    parts = [f" {part.strip()}" for text in filled for part in text.split(",")]
    starts = [
        f"{mark}{template.split()[0]}" for template in TEMPLATES for mark in ("", *ascii_lowercase)
    ]
    return [*parts, *(f" {word}" for word in (*NAMES, *PLACES, *OBJECTS)), *starts, ","]


def tokenizer_of(style: str, without: frozenset[str] = frozenset()) -> Any:
    """A tokenizer of this style, trained on texts without these words."""
    words = {text: re.findall(r"\w+", text) for text in texts_of_every_word()}
    seen = [text for text, of in words.items() if not without & {*of, *(word[1:] for word in of)}]
    return trained.STYLES[style](corpus=3 * seen)


def check(tokenizer: Any, prompts: PromptSet, n_names: int) -> None:
    """Every named token holds, decoded by itself, what the text has there."""
    for i, text in enumerate(prompts.texts):
        found = SENTENCE.fullmatch(text)
        assert found, text
        first, second, place, third, thing = found.groups()
        assert len({first, second, third}) == n_names
        assert third in (first, second) or n_names == 3
        io, s1 = (first, second) if prompts.drawn["io_first"][i] else (second, first)
        assert third == s1 or n_names == 3
        told = {"io": io, "s1": s1, "s2": third, "end": "to", "place": place, "object": thing}
        for name, word in told.items():
            (token,) = prompts.roles[name][i]
            assert tokenizer.decode(prompts.input_ids[i, [token]]).strip() == word
            assert prompts.words(i)[token] == word
        for name in ("io", "s1", "s1_plus_1", "s2", "end"):
            assert prompts.positions[name][i] == prompts.roles[name][i, 0]
        assert prompts.positions["s1_plus_1"][i] == prompts.positions["s1"][i] + 1
        assert prompts.positions["end"][i] == prompts.input_ids.shape[1] - 1
        choices = [tokenizer.decode([token]).strip() for token in prompts.choice_ids[i]]
        assert choices == [io, third]
        assert prompts.answer_ids[i] == prompts.choice_ids[i, 0]
        assert {first, second, third} <= set(NAMES)
        assert place in PLACES
        assert thing in OBJECTS


def test_templates_are_many_of_one_skeleton_and_all_words_distinct() -> None:
    assert len({*TEMPLATES}) >= 15
    skeleton = re.compile(
        r"\w+ \{first\} and \{second\} \w+ \w+ the \{place\}, \{third\} \w+ a \{object\} to"
    )
    assert all(skeleton.fullmatch(template) for template in TEMPLATES)
    words = [*NAMES, *PLACES, *OBJECTS]
    assert len(set(words)) == len(words)
    assert min(len(NAMES) / 5, len(PLACES), len(OBJECTS)) >= 20
    assert not any(thing[0] in "aeiou" for thing in OBJECTS)


@styles
def test_every_style_keeps_all_words_and_says_where_they_are(style: str) -> None:
    tokenizer = tokenizer_of(style)
    assert usable_vocabulary(tokenizer).note == "" == IOI.note(tokenizer)
    prompts = IOI.sample(tokenizer, 40, 1)
    check(tokenizer, prompts, 2)
    for others in (IOI.counterfactual(tokenizer, prompts), IOI.reference(tokenizer, 40, 1)):
        check(tokenizer, others, 3)
        assert others.input_ids.shape == prompts.input_ids.shape
    for i, text in enumerate(prompts.texts):
        continued = tokenizer(f"{text} {prompts.drawn['names'][i, 0]}")["input_ids"]
        assert continued == [*prompts.input_ids[i], prompts.answer_ids[i]]


@styles
def test_what_falls_apart_is_left_out_and_counted(style: str) -> None:
    apart = frozenset({*NAMES[2::3], *PLACES[::4], *OBJECTS[::3], "delivered", "described"})
    assert not apart & {"bank", "book"}
    tokenizer = tokenizer_of(style, apart)
    vocabulary = usable_vocabulary(tokenizer)
    assert not apart & {*vocabulary.names, *vocabulary.places, *vocabulary.objects}
    prompts = IOI.sample(tokenizer, 60, 2)
    check(tokenizer, prompts, 2)
    check(tokenizer, IOI.counterfactual(tokenizer, prompts), 3)
    left = {re.search(r", \w+ (\w+) a", text)[1] for text in prompts.texts}  # type: ignore[index]
    assert len(left) > 8
    assert not left & apart
    assert "leave out 42 of 127 names and 7 of 28 places and 11 of 32 objects and 2 of 18" in (
        vocabulary.note
    )


def test_sentences_of_another_length_than_most_are_left_out() -> None:
    tokenizer = tokenizer_of("Llama-3", frozenset({"When"}))
    prompts = IOI.sample(tokenizer, 100)
    assert not any(text.startswith("When") for text in prompts.texts)
    kept = usable_vocabulary(tokenizer).templates
    assert kept == tuple(each for each in TEMPLATES if not each.startswith("When"))


def test_a_start_token_that_is_also_the_unknown_one_hides_no_sentence() -> None:
    tokenizer = tokenizer_of("Llama-3")
    tokenizer.unk_token = tokenizer.bos_token
    assert usable_vocabulary(tokenizer).note == ""


def test_a_tokenizer_without_names_is_refused_with_their_number() -> None:
    with pytest.raises(UserError, match=r"only 0 of the 127 names .* 5 are needed.*another task"):
        IOI.sample(tiny.word_tokenizer(), 1)
    few = tokenizer_of("GPT-2", frozenset(NAMES[4:]))
    with pytest.raises(UserError, match=r"only 4 of the 127 names"):
        IOI.reference(few, 1)


def test_a_tokenizer_that_knows_no_sentence_is_refused() -> None:
    words = ["When", "and", "went", ",", "the", "gave", "a", "to", *NAMES, *PLACES, *OBJECTS]
    with pytest.raises(UserError, match=r"does not know the words of any .*another task"):
        IOI.sample(planted_ioi.tokenizer(("<unk>", *words)), 1)


TOKENIZER = planted_ioi.tokenizer()


@settings(deadline=None, max_examples=25)
@given(seed=seeds, n=st.integers(1, 30))
def test_prompts_of_every_seed_align_and_start_alike(seed: int, n: int) -> None:
    prompts, more = IOI.sample(TOKENIZER, n, seed), IOI.sample(TOKENIZER, 30, seed)
    check(TOKENIZER, prompts, 2)
    assert prompts.texts == more.texts[:n]
    assert IOI.reference(TOKENIZER, n, seed).texts == IOI.reference(TOKENIZER, 30, seed).texts[:n]
    others, all_others = (IOI.counterfactual(TOKENIZER, each) for each in (prompts, more))
    assert others.texts == all_others.texts[:n]
    check(TOKENIZER, others, 3)
    for i in range(n):
        assert not {*prompts.drawn["names"][i]} & {*others.drawn["names"][i]}
        changed = np.flatnonzero(prompts.input_ids[i] != others.input_ids[i])
        named = [prompts.positions[name][i] for name in ("io", "s1", "s2")]
        assert changed.tolist() == sorted(named)
    for name, tokens in prompts.positions.items():
        assert np.array_equal(tokens, others.positions[name])


def test_orders_sentences_and_words_come_evenly_and_independently() -> None:
    drawn = IOI.sample(TOKENIZER, 4000, 7).drawn
    assert binomtest(int(drawn["io_first"].sum()), 4000).pvalue > 1e-3
    for name in ("templates", "places", "objects"):
        counts = Counter(drawn[name].tolist())
        assert chisquare([*counts.values()]).pvalue > 1e-3
        assert len(counts) == len({"templates": TEMPLATES, "places": PLACES}.get(name, OBJECTS))
    for column in (0, 1):
        counts = Counter(drawn["names"][:, column].tolist())
        assert set(counts) == set(planted_ioi.PEOPLE)
        assert chisquare([*counts.values()]).pvalue > 1e-3
    codes = [
        np.unique(array.reshape(4000, -1)[:, 0], return_inverse=True)[1] for array in drawn.values()
    ]
    correlated = np.corrcoef(codes)[np.triu_indices(len(codes), 1)]
    assert abs(correlated).max() < 0.08


def test_purposes_and_seeds_share_no_stream() -> None:
    sets = [IOI.sample(TOKENIZER, 50, seed) for seed in (0, 1)]
    sets += [IOI.reference(TOKENIZER, 50, 0), IOI.counterfactual(TOKENIZER, sets[0])]
    sets += [IOI.counterfactual(TOKENIZER, sets[0], seed=5)]
    for one, other in pairwise(sets):
        same = (one.drawn["names"][:, 0] == other.drawn["names"][:, 0]).mean()
        assert same < 0.4
    assert len({each.texts for each in sets}) == len(sets)


def test_positions_of_the_task_stand_in_this_order_in_every_prompt() -> None:
    prompts = IOI.sample(TOKENIZER, 20)
    tokens = np.stack([prompts.positions[name] for name in IOI.position_names])
    assert (np.diff(tokens, axis=0) > 0).all()
    for position in IOI.positions:
        if position.tail:
            assert (
                prompts.input_ids.shape[1] - prompts.positions[position.name] == position.tail
            ).all()
    assert IOI.length() == prompts.input_ids.shape[1]


def test_groups_are_told_apart_by_colour_and_by_shape() -> None:
    assert len({group.colour for group in IOI.groups}) == len(IOI.groups)
    assert len({group.shape for group in IOI.groups}) == len(IOI.groups)
    assert [(group.key, group.component, group.into) for group in IOI.groups] == [
        ("NM", "logits", ()),
        ("SI", "q", ("NM",)),
        ("IN", "v", ("SI",)),
        ("PT", "k", ("IN",)),
    ]


def test_tokens_have_the_role_that_they_play() -> None:
    prompts = IOI.sample(TOKENIZER, 6)
    for i in range(6):
        told = Counter(role for role in prompts.roles_of(i) if role)
        assert told == dict.fromkeys(("io", "s1", "s1_plus_1", "s2", "place", "object", "end"), 1)
    assert IOI.targets[:4] == ("IO", "S2", "S1", "S1 + 1")


def test_nothing_is_left_out_in_silence() -> None:
    nothing = Vocabulary({}, {}, {}, ())
    assert "127 of 127 names and 28 of 28 places and 32 of 32 objects and 18 of 18" in nothing.note
