"""What files say of a model, against the model itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import GPT2Config, MistralConfig

from backend.core.components import Component
from backend.engine.architectures import shape_of
from backend.models import registry
from backend.models.model_config import blueprint, misfit
from shell.models.models import groups_that_fit
from tests import tiny


def saved(model: object, place: Path, tokenizer: object | None = None) -> registry.Entry:
    model.save_pretrained(place)  # type: ignore[attr-defined]
    (tokenizer or tiny.word_tokenizer()).save_pretrained(place)  # type: ignore[attr-defined]
    return registry.Entry(str(place), "label", place)


@pytest.mark.parametrize(
    "make",
    [tiny.llama, tiny.grouped_llama, tiny.qwen3, lambda: tiny.of_kind(MistralConfig)],
)
def test_files_say_what_the_model_is(make, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    found = blueprint(saved(make(), tmp_path))
    assert found
    assert found.shape == shape_of(make())
    assert found.n_words == tiny.SIZE["vocab_size"]


def test_configurations_with_old_names_are_understood(tmp_path: Path) -> None:
    GPT2Config(n_layer=3, n_head=2, n_embd=10, vocab_size=77).save_pretrained(tmp_path)
    found = blueprint(registry.Entry("x", "x", tmp_path))
    assert found
    assert tuple(found.shape) == (3, 2, 2, 5)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"num_hidden_layers": "many"}'])
def test_a_damaged_configuration_is_not_known(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    assert blueprint(registry.Entry("x", "x", tmp_path)) is None


def test_what_is_not_here_is_not_known() -> None:
    assert blueprint(registry.Entry("x", "x", "owner/not-here")) is None


def test_a_vocabulary_of_the_same_size_may_still_be_another(tmp_path: Path) -> None:
    first = blueprint(saved(tiny.llama(), tmp_path / "first"))
    other = tiny.word_tokenizer(labels="ZYXWVUTSRQPONMLKJIHGFEDCBA")
    second = blueprint(saved(tiny.llama(), tmp_path / "second", other))
    again = blueprint(saved(tiny.llama(3), tmp_path / "again"))
    assert first
    assert second
    assert again
    assert misfit(first, again, ("a", "b")) is None
    assert "different vocabularies" in str(misfit(first, second, ("a", "b")))
    assert groups_that_fit({"a": first, "b": second, "c": again}) == [["a", "c"], ["b"]]


def test_a_token_that_was_added_does_not_matter(tmp_path: Path) -> None:
    first = blueprint(saved(tiny.llama(), tmp_path / "first"))
    padded = tiny.word_tokenizer()
    padded.add_special_tokens({"pad_token": "[PAD]"})
    second = blueprint(saved(tiny.llama(vocab_size=len(padded)), tmp_path / "second", padded))
    assert first
    assert second
    assert misfit(first, second, ("a", "b")) is None


def test_key_value_heads_matter_for_keys_and_values_only(tmp_path: Path) -> None:
    to_json = blueprint(saved(tiny.llama(), tmp_path / "plain"))
    grouped = blueprint(saved(tiny.grouped_llama(), tmp_path / "grouped"))
    assert to_json
    assert grouped
    assert misfit(to_json, grouped, ("a", "b"), Component.q) is None
    assert misfit(to_json, grouped, ("a", "b"), Component.v) == (
        "a has 4 key-value heads in a layer, b has 2."
    )


def test_an_adapter_has_the_shape_of_its_base(tmp_path: Path) -> None:
    base = saved(tiny.llama(), tmp_path / "base")
    (tmp_path / "lora").mkdir()
    config = {"base_model_name_or_path": "base"}
    (tmp_path / "lora" / "adapter_config.json").write_text(json.dumps(config))
    assert blueprint(registry.Entry("x", "x", tmp_path / "lora")) == blueprint(base)
