"""The generator: what every prompt must be, for every seed, size and tokenizer."""

from __future__ import annotations

import string
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from backend.core.errors import UserError
from backend.tasks.entity_tracking import (
    counterfactual_prompts,
    reference_prompts,
    sample_prompts,
)
from backend.tasks.prompts import select
from backend.tasks.vocabulary import object_words, usable_vocabulary
from tests.tiny import word_tokenizer

TOKENIZER = word_tokenizer()
boxes = st.integers(2, 10)
seeds = st.integers(0, 2**31 - 1)


def byte_level_tokenizer(known: tuple[str, ...]) -> PreTrainedTokenizerFast:
    """Like a Llama's: spaces belong to words, and words outside `known` fall apart."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: token for token, symbol in enumerate(alphabet)}
    merges: list[tuple[str, str]] = []
    for word in known:
        parts = ["Ġ", *word]
        while len(parts) > 1:
            merges.append((parts[0], parts[1]))
            parts[:2] = ["".join(parts[:2])]
            vocabulary.setdefault(parts[0], len(vocabulary))
    tokenizer = Tokenizer(models.BPE(vocabulary, list(dict.fromkeys(merges))))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


@settings(deadline=None, max_examples=30)
@given(n_boxes=boxes, seed=seeds)
def test_prompts_say_where_things_are(n_boxes: int, seed: int) -> None:
    prompts = sample_prompts(TOKENIZER, 8, seed, n_boxes)
    for i in range(len(prompts)):
        words = prompts.words(i)
        context, question = prompts.texts[i].split(". ")
        told = {part.split()[-1]: part.split()[1] for part in context.lower().split(", ")}
        label = question.split()[1]
        answer = told[label.lower()]
        assert len(told) == n_boxes == len(set(told.values()))
        assert question == f"Box {label} contains the"
        assert TOKENIZER.decode([prompts.answer_ids[i]]) == answer
        tokens = {position: prompts.positions[position][i] for position in prompts.positions}
        assert words[tokens["correct_object"]] == answer
        assert words[tokens["query_label"]] == label
        assert words[tokens["prev_query_label"]] == label
        assert tokens["last"] == len(words) - 1
        assert tokens["query_label"] == len(words) - 3
        assert tokens["prev_query_label"] < tokens["query_label"]


@settings(deadline=None, max_examples=30)
@given(n_boxes=boxes, seed=seeds)
def test_counterfactuals_share_nothing_that_counts(n_boxes: int, seed: int) -> None:
    prompts = sample_prompts(TOKENIZER, 8, seed, n_boxes)
    other = counterfactual_prompts(TOKENIZER, prompts)
    assert other.input_ids.shape == prompts.input_ids.shape
    assert (other.drawn["query"] != prompts.drawn["query"]).all()
    for i in range(len(prompts)):
        assert not set(other.drawn["objects"][i]) & set(prompts.drawn["objects"][i])
        assert not set(other.drawn["labels"][i]) & set(prompts.drawn["labels"][i])
        assert other.drawn["query_labels"][i] not in {
            *other.drawn["labels"][i],
            *prompts.drawn["labels"][i],
        }
        assert other.words(i)[other.positions["query_label"][i]] == other.drawn["query_labels"][i]
        assert other.positions["prev_query_label"][i] in other.roles["label"][i]


def test_counterfactuals_read_every_label_position() -> None:
    other = counterfactual_prompts(TOKENIZER, sample_prompts(TOKENIZER, 700))
    counts = Counter(other.positions["prev_query_label"].tolist())
    assert chisquare(list(counts.values())).pvalue > 1e-4
    assert set(counts) == set(other.roles["label"][0].tolist())


def test_queries_are_uniform() -> None:
    counts = np.bincount(sample_prompts(TOKENIZER, 2100).drawn["query"], minlength=7)
    assert chisquare(counts).pvalue > 1e-4


def test_same_seed_same_prompts_and_more_prompts_begin_alike() -> None:
    few, many = sample_prompts(TOKENIZER, 10, seed=3), sample_prompts(TOKENIZER, 50, seed=3)
    assert few.texts == many.texts[:10]
    assert few.texts != sample_prompts(TOKENIZER, 10, seed=4).texts


def test_reference_prompts_are_others_and_ask_for_an_absent_label() -> None:
    prompts = sample_prompts(TOKENIZER, 50, seed=5)
    reference = reference_prompts(TOKENIZER, 50, seed=5)
    assert not set(prompts.texts) & set(reference.texts)
    for labels, asked in zip(
        reference.drawn["labels"], reference.drawn["query_labels"], strict=True
    ):
        assert asked not in labels


def test_a_prompt_set_cannot_be_changed() -> None:
    prompts = sample_prompts(TOKENIZER, 3)
    with pytest.raises(ValueError, match="read-only"):
        prompts.input_ids[0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        prompts.positions["last"][0] = 1
    with pytest.raises(AttributeError):
        prompts.seed = 1  # type: ignore[misc]


def test_select_keeps_whole_prompts() -> None:
    prompts = sample_prompts(TOKENIZER, 6)
    chosen = select(prompts, np.array([False, True, False, False, True, False]))
    assert chosen.texts == (prompts.texts[1], prompts.texts[4])
    for position in prompts.positions:
        assert (chosen.positions[position] == prompts.positions[position][[1, 4]]).all()
    assert (chosen.answer_ids == prompts.answer_ids[[1, 4]]).all()


def test_roles_name_the_tokens_that_count() -> None:
    prompts = sample_prompts(TOKENIZER, 1, n_boxes=3)
    by_role = Counter(prompts.roles_of(0))
    assert by_role["object"] == by_role["label"] == 2
    for role in ("correct_object", "prev_query_label", "query_label", "last"):
        assert by_role[role] == 1


def test_split_words_are_dropped_and_positions_still_align() -> None:
    frame = ("is", "in", "Box", "contains", "the")
    known = object_words()[::3]
    tokenizer = byte_level_tokenizer(frame + known + tuple(string.ascii_uppercase))
    assert set(usable_vocabulary(tokenizer).objects) == set(known)
    prompts = sample_prompts(tokenizer, 20)
    assert set(prompts.drawn["objects"].ravel()) <= set(known)
    assert prompts.words(0)[prompts.positions["correct_object"][0]] in known


def test_too_few_one_token_words_is_said_with_the_number() -> None:
    frame = ("is", "in", "Box", "contains", "the")
    few = byte_level_tokenizer(frame + object_words()[:5] + tuple(string.ascii_uppercase))
    with pytest.raises(UserError, match=r"only 5 of the objects .* 7 are needed.*fewer boxes"):
        sample_prompts(few, 1)
    labels = byte_level_tokenizer(frame + object_words() + tuple("ABCDEFGH"))
    with pytest.raises(UserError, match=r"only 8 of the labels .* 15 are needed"):
        counterfactual_prompts(labels, sample_prompts(labels, 1))


@pytest.mark.parametrize("n_boxes", [-1, 0, 1, 11, 100])
def test_a_wrong_number_of_boxes_is_refused(n_boxes: int) -> None:
    with pytest.raises(UserError, match=f"2 to 10, not {n_boxes}"):
        sample_prompts(TOKENIZER, 1, n_boxes=n_boxes)


def test_no_prompts_is_refused() -> None:
    with pytest.raises(UserError, match="At least one prompt"):
        sample_prompts(TOKENIZER, 0)
