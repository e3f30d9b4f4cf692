"""The generator on every kind of tokenizer that models on the hub come with."""

from __future__ import annotations

import string
from typing import Any

import numpy as np
import pytest
from tokenizers import AddedToken, processors

from backend.core.errors import UserError
from backend.tasks.entity_tracking import (
    counterfactual_prompts,
    reference_prompts,
    sample_prompts,
)
from backend.tasks.prompts import PromptSet
from backend.tasks.vocabulary import object_words, usable_vocabulary
from tests import trained

FEW_OBJECTS, FEW_LABELS = object_words()[::2], "BDFHJLNPRTVXZACEG"
STARTS = {
    "SentencePiece": "<s>",
    "SentencePiece without a prefix": "<s>",
    "SentencePiece as a normaliser": "<s>",
    "Gemma": "<bos>",
    "Llama-3": "<|begin_of_text|>",
}

styles = pytest.mark.parametrize("style", trained.STYLES)


def decoded(tokenizer: Any, token: int) -> str:
    """One token as the text it stands for, by the tokenizer itself."""
    return tokenizer.decode([token]).strip()


def check(tokenizer: Any, prompts: PromptSet) -> None:
    """Every named position holds, decoded by itself, what the text has there."""
    for i, text in enumerate(prompts.texts):
        context, question = text.split(". ")
        told = [part.split() for part in context.split(", ")]

        def at(tokens: Any, row: int = i) -> list[str]:
            return [decoded(tokenizer, prompts.input_ids[row, token]) for token in tokens]

        assert at(prompts.roles["object"][i]) == [words[1] for words in told]
        assert at(prompts.roles["label"][i]) == [words[-1] for words in told]
        named = {position: at([tokens[i]])[0] for position, tokens in prompts.positions.items()}
        assert named["query_label"] == question.split()[1]
        assert named["last"] == "the"
        assert named["correct_object"] == told[prompts.drawn["query"][i]][1]
        assert prompts.positions["last"][i] == prompts.input_ids.shape[1] - 1
        assert tokenizer.decode(prompts.input_ids[i], skip_special_tokens=True).strip() == text


@styles
def test_every_style_keeps_all_words_and_says_where_they_are(style: str) -> None:
    tokenizer = trained.STYLES[style]()
    vocabulary = usable_vocabulary(tokenizer)
    assert (len(vocabulary.objects), len(vocabulary.labels)) == (85, 26)
    assert vocabulary.note == ""
    prompts = sample_prompts(tokenizer, 12, seed=1)
    check(tokenizer, prompts)
    for others in (counterfactual_prompts(tokenizer, prompts), reference_prompts(tokenizer, 12)):
        check(tokenizer, others)
        assert others.input_ids.shape == prompts.input_ids.shape


@styles
def test_a_prompt_starts_as_its_tokenizer_starts_every_text(style: str) -> None:
    tokenizer = trained.STYLES[style]()
    prompts = sample_prompts(tokenizer, 3)
    for row in prompts.input_ids.tolist():
        tokens = tokenizer.convert_ids_to_tokens(row)
        special = [token for token in tokens if token in tokenizer.all_special_tokens]
        expected = [STARTS[style]] if style in STARTS else []
        assert special == tokens[: len(expected)] == expected


@styles
def test_the_answer_is_the_token_that_would_follow(style: str) -> None:
    tokenizer = trained.STYLES[style]()
    prompts = sample_prompts(tokenizer, 12)
    for i, text in enumerate(prompts.texts):
        answer = prompts.drawn["objects"][i, prompts.drawn["query"][i]]
        continued = tokenizer(f"{text} {answer}")["input_ids"]
        assert continued == [*prompts.input_ids[i], prompts.answer_ids[i]]


@styles
def test_words_that_fall_apart_are_dropped_and_counted(style: str) -> None:
    tokenizer = trained.STYLES[style](objects=FEW_OBJECTS, labels=FEW_LABELS)
    prompts = sample_prompts(tokenizer, 40)
    check(tokenizer, prompts)
    check(tokenizer, counterfactual_prompts(tokenizer, prompts))
    vocabulary = usable_vocabulary(tokenizer)
    assert set(vocabulary.objects) == set(FEW_OBJECTS)
    assert set(vocabulary.dropped_objects) == set(object_words()) - set(FEW_OBJECTS)
    assert set(vocabulary.dropped_labels) == set(string.ascii_uppercase) - set(FEW_LABELS)
    assert "leave out 42 of 85 objects and 9 of 26 labels" in vocabulary.note
    assert set(prompts.drawn["objects"].ravel()) <= set(FEW_OBJECTS)
    assert set(prompts.drawn["labels"].ravel()) <= set(FEW_LABELS)


@styles
def test_too_few_words_are_said_with_their_number(style: str) -> None:
    tokenizer = trained.STYLES[style](objects=object_words()[:5])
    with pytest.raises(UserError, match=r"only 5 of the objects .* 7 are needed.*fewer boxes"):
        sample_prompts(tokenizer, 1)
    assert len(sample_prompts(tokenizer, 2, n_boxes=5)) == 2


def merging(merged: str, **words: Any) -> Any:
    """A SentencePiece tokenizer that also has `merged` as one piece, across word and mark."""
    tokenizer = trained.sentencepiece(**words)
    tokenizer.add_tokens([AddedToken(merged, normalized=False)])
    return tokenizer


@pytest.mark.parametrize("merged", ["I,", "I.", "I contains"])
def test_a_label_that_merges_with_what_follows_costs_only_itself(merged: str) -> None:
    tokenizer = merging(merged)
    assert usable_vocabulary(tokenizer).dropped_labels == ("I",)
    prompts = sample_prompts(tokenizer, 300, n_boxes=10)
    check(tokenizer, counterfactual_prompts(tokenizer, prompts))


@pytest.mark.parametrize("merged", ["The cup", "the cup", "cup is"])
def test_an_object_that_merges_with_its_neighbours_costs_only_itself(merged: str) -> None:
    tokenizer = merging(merged)
    assert usable_vocabulary(tokenizer).dropped_objects == ("cup",)
    check(tokenizer, sample_prompts(tokenizer, 100))


def test_a_frame_word_of_two_tokens_moves_no_position() -> None:
    tokenizer = merging("contain")
    prompts = sample_prompts(tokenizer, 5)
    check(tokenizer, prompts)
    assert (prompts.positions["query_label"] < prompts.input_ids.shape[1] - 3).all()


def test_an_end_token_does_not_come_between_prompt_and_answer() -> None:
    to_json, ending = trained.sentencepiece(), trained.sentencepiece()
    ending._tokenizer.post_processor = processors.TemplateProcessing(
        "<s> $A </s>", None, [("<s>", 1), ("</s>", 2)]
    )
    assert ending("the")["input_ids"][-1] == 2
    assert (
        sample_prompts(ending, 5).input_ids.tolist()
        == sample_prompts(to_json, 5).input_ids.tolist()
    )


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_and_truncation_of_a_tokenizer_change_nothing(side: str) -> None:
    to_json, padding = trained.sentencepiece(), trained.sentencepiece()
    padding.pad_token, padding.padding_side, padding.truncation_side = "</s>", side, side
    padding._tokenizer.enable_padding(direction=side, pad_id=2, pad_token="</s>", length=80)
    padding._tokenizer.enable_truncation(max_length=20)
    assert np.array_equal(
        sample_prompts(padding, 5).input_ids, sample_prompts(to_json, 5).input_ids
    )
