"""Training the adapters of SmolLM2, on tiny models: texts, steps, early stopping, answers."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from backend.bundled.smollm2 import training
from backend.bundled.smollm2.recipes import BOXES, RECIPES
from backend.bundled.smollm2.texts import (
    FORMS,
    Texts,
    arithmetic,
    boxes,
    held_out_arithmetic,
    is_held_out,
)
from backend.bundled.smollm2.train import save
from backend.bundled.smollm2.training import (
    Training,
    answer_logits,
    optimizer_of,
    right_texts,
    train,
    train_step,
    with_adapter,
)
from backend.core.errors import UserError
from backend.core.names import plain_name
from tests import tiny
from tests.circuits import TOKENIZER

READ = {
    "+": lambda a, b: a + b,
    "plus": lambda a, b: a + b,
    "sum": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "minus": lambda a, b: a - b,
    "difference": lambda a, b: a - b,
}


def digits() -> Any:
    """A tokenizer that writes each digit as one token."""
    words = {*"0123456789.?=+-", *(word for form, _ in FORMS for word in form.split())}
    vocabulary = {word: token for token, word in enumerate(["<end>", "<unk>", *sorted(words)])}
    written = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    written.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.Digits(individual_digits=True)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=written, unk_token="<unk>", eos_token="<end>")


DIGITS = digits()


def exercises(texts: Texts) -> list[tuple[int, int, str, str]]:
    """Of each text: its numbers, its word, and what is answered."""
    found = []
    for ids, is_answer in zip(texts.input_ids, texts.is_answer, strict=True):
        question = DIGITS.decode(ids[: is_answer.argmax()])
        asked = re.sub(r"(?<=\d) (?=\d)", "", question)
        a, b = map(int, re.findall(r"\d+", asked))
        word = next(word for word in READ if f" {word} " in f" {asked} ")
        found.append((a, b, word, DIGITS.decode(ids[is_answer]).replace(" ", "")))
    return found


def test_arithmetic_is_right_and_never_below_zero() -> None:
    told = exercises(arithmetic(DIGITS, 400, seed=1))
    assert {word for _, _, word, _ in told} == READ.keys()
    for a, b, word, answer in told:
        assert answer == f"{READ[word](a, b)}."
        assert READ[word](a, b) >= 0
        assert 0 < b <= 999


def test_pairs_that_are_held_out_are_never_trained_on() -> None:
    assert not any(is_held_out(a, b) for a, b, *_ in exercises(arithmetic(DIGITS, 400, seed=2)))
    held_out = exercises(held_out_arithmetic(DIGITS, 400, seed=2))
    assert all(is_held_out(a, b) for a, b, *_ in held_out)
    assert all(answer == str(READ[word](a, b)) for a, b, word, answer in held_out)
    last_digits = {(a % 10, b % 10) for a, b, *_ in held_out}
    assert len(last_digits) > 90


def test_of_boxes_only_the_object_is_learned() -> None:
    texts = boxes(TOKENIZER, 6, seed=3, n_boxes=4)
    assert (texts.is_answer.sum(1) == 1).all()
    for ids in texts.input_ids:
        *context, asked, _, _, answer = TOKENIZER.decode(ids).replace(" .", ".").split()
        told = dict(re.findall(r"the (\w+) is in box (\w)", " ".join(context).lower()))
        assert told[answer] == asked.lower()


def test_every_step_of_a_recipe_has_prompts_of_its_own() -> None:
    numbers: set[int] = set()
    for step in range(60):
        texts = BOXES.draw(TOKENIZER, step, 0)
        numbers.add(TOKENIZER.decode(texts.input_ids[0]).count("Box") - 1)
        assert max(numbers) <= 2 + step // 5
    assert numbers == {2, 3, 4, 5, 6, 7}
    first, second, other = (BOXES.draw(TOKENIZER, *at).input_ids for at in [(0, 0), (1, 0), (0, 1)])
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_answers_are_read_where_a_whole_run_predicts_them() -> None:
    model, texts = tiny.llama(), arithmetic(DIGITS, 12, seed=0)
    logits, answers = answer_logits(model, texts)
    row = 0
    for ids, is_answer in zip(texts.input_ids, texts.is_answer, strict=True):
        alone = torch.tensor(ids[: is_answer.nonzero()[0][-1] + 1])[None]
        whole = model(input_ids=alone).logits[0]
        for place in is_answer.nonzero()[0]:
            torch.testing.assert_close(logits[row], whole[place - 1], rtol=1e-4, atol=1e-5)
            assert answers[row] == ids[place]
            row += 1
    assert row == len(answers)


def test_a_text_is_right_when_the_model_writes_its_answer_by_itself() -> None:
    model = with_adapter(tiny.llama(), 0)
    optimizer, asked = optimizer_of(model), arithmetic(DIGITS, 24, seed=0)
    for _ in range(60):
        train_step(model, optimizer, arithmetic(DIGITS, 12, seed=0), 2e-2)
    right = right_texts(model, asked)
    for row, (ids, is_answer) in enumerate(zip(asked.input_ids, asked.is_answer, strict=True)):
        written = torch.tensor(ids[: is_answer.argmax()])[None]
        for _ in range(is_answer.sum()):
            following = model(input_ids=written).logits[:, -1:].argmax(-1)
            written = torch.cat([written, following], 1)
        assert right[row] == (written[0].numpy() == ids[: written.shape[1]]).all()
    assert 0 < right.sum() < len(asked)


def test_a_step_lowers_the_loss_and_changes_the_adapter_alone() -> None:
    model, texts = with_adapter(tiny.llama(), 0), arithmetic(DIGITS, 16, seed=0)
    before = {name: weights.clone() for name, weights in model.named_parameters()}
    optimizer = optimizer_of(model)
    losses = [train_step(model, optimizer, texts, 1e-2)[0] for _ in range(20)]
    assert losses[-1] < losses[0]
    for name, weights in model.named_parameters():
        assert torch.equal(weights, before[name]) == ("lora_" not in name)


def of_tiny(recipe: Any, **changes: Any) -> Any:
    """A recipe with few prompts of two boxes."""
    return replace(recipe, draw=lambda t, step, seed: boxes(t, 4, 100 * seed + step, 2), **changes)


def test_training_stops_in_the_wanted_band_and_takes_back_what_goes_too_far(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = with_adapter(tiny.llama(), 0)
    seen, told = [], []

    def checked(*_: Any) -> float:
        seen.append(training.adapter_weights(model))
        return [0.1, 0.9, 0.7][len(seen) - 1]

    monkeypatch.setattr(training, "_checked", checked)
    monkeypatch.setattr(training, "_NEAR", 2.0)
    recipe = of_tiny(BOXES, steps=40)
    found = train(model, TOKENIZER, recipe, 0, told.append)
    assert found.steps == 3 * training.CHECK_EVERY
    assert [step for step, _ in found.losses] == [5, 10, 15]
    assert len(told) == 6

    def moved(one: dict[str, Any], other: dict[str, Any]) -> float:
        return float(sum((one[name] - other[name]).norm() ** 2 for name in one)) ** 0.5

    assert moved(seen[2], seen[0]) < moved(seen[1], seen[0])


def test_a_band_that_is_never_met_is_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "_checked", lambda *_: 0.1)
    model = with_adapter(tiny.llama(), 0)
    with pytest.raises(UserError, match="Try another --seed"):
        train(model, TOKENIZER, of_tiny(BOXES, steps=10), 0, lambda _: None)


def test_what_is_saved_names_its_base_and_goes_on_from_there(tmp_path: Path) -> None:
    model = with_adapter(tiny.llama(), 0)
    recipe = of_tiny(BOXES, wanted=None, steps=5)
    found = train(model, TOKENIZER, recipe, 0, lambda _: None)
    save(Training(model, found.steps, found.losses), tmp_path / "adapter")
    assert str(tmp_path) not in (tmp_path / "adapter" / "adapter_config.json").read_text()
    again = PeftModel.from_pretrained(tiny.llama(), tmp_path / "adapter", is_trainable=True)
    texts = boxes(TOKENIZER, 4, 0, 2)
    torch.testing.assert_close(answer_logits(again, texts), answer_logits(model, texts))
    assert optimizer_of(again).param_groups[0]["params"]


def test_recipes_have_plain_names_and_go_on_from_earlier_ones() -> None:
    names = [recipe.name for recipe in RECIPES]
    for place, recipe in enumerate(RECIPES):
        assert plain_name(recipe.name) == recipe.name
        assert recipe.base is None or recipe.base in names[:place]
