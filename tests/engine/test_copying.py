"""Output-value circuits against explicit matrices, in float64, and in planted models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from backend.core.errors import UserError
from backend.engine.copying import copying_ranks, words_in
from backend.tasks import ioi
from backend.tasks.entity_tracking import sample_prompts
from tests import oracles, planted, planted_ioi, tiny
from tests.circuits import TOKENIZER

PROMPTS = sample_prompts(TOKENIZER, 3, n_boxes=3)


def weight_of(module: Any) -> torch.Tensor:
    if hasattr(module, "base_layer"):
        adapter = module.lora_B["default"].weight @ module.lora_A["default"].weight
        return module.base_layer.weight + 2.0 * adapter  # alpha 8, rank 4
    return module.weight.T if type(module).__name__ == "Conv1D" else module.weight


@torch.no_grad()
def expected(model: Any) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Ranks of each word by each head and by its negative, [n_layers, n_heads, n_words]."""
    base = oracles.base_of(model)
    inner = base.get_decoder()
    kind = base.config.model_type
    blocks = inner.h if kind == "gpt2" else inner.layers
    n_layers, n_heads, n_kv, size = oracles.sizes(model)
    hidden = inner(
        input_ids=torch.tensor(PROMPTS.input_ids), use_cache=False, output_hidden_states=True
    ).hidden_states
    final = next(
        getattr(inner, name)
        for name in ("norm", "ln_f", "final_layer_norm")
        if hasattr(inner, name)
    )
    places: dict[int, tuple[int, int]] = {}
    for row, ids in enumerate(PROMPTS.input_ids.tolist()):
        for word in PROMPTS.choice_ids[row].tolist():
            places.setdefault(word, (row, ids.index(word)))
    copied, opposed = np.zeros((2, n_layers, n_heads, len(places)), int)
    for layer in range(n_layers):
        modules = oracles.parts(model, layer)
        out = weight_of(modules["o"])
        norm = blocks[layer].ln_1 if kind == "gpt2" else blocks[layer].input_layernorm
        for number, (word, place) in enumerate(places.items()):
            read = norm(hidden[min(layer, 1)][place][None])
            if "qkv" in modules:
                values = modules["qkv"](read)[0, modules["where"]["v_proj"]]
            else:
                values = modules["v_proj"](read)[0]
            for head in range(n_heads):
                shared = head // (n_heads // n_kv)
                value = values[shared * size : (shared + 1) * size]
                wrote = out[:, head * size : (head + 1) * size] @ value
                if kind == "gemma2":
                    wrote = blocks[layer].post_attention_layernorm(wrote[None])[0]
                for ranks, sign in ((copied, 1), (opposed, -1)):
                    logits = base.get_output_embeddings()(final(sign * wrote[None]))[0]
                    ranks[layer, head, number] = 1 + int((logits > logits[word]).sum())
    return copied, opposed, [*places]


@pytest.mark.parametrize("name", ["llama", "grouped", "lora", "gemma2", "gpt2", "neox"])
def test_every_head_and_word_against_explicit_matrices(name: str) -> None:
    model = tiny.in_float64(tiny.MAKERS[name]())
    found = copying_ranks(model, PROMPTS, words_in(PROMPTS))
    copied, opposed, words = expected(model)
    assert found.token_ids.tolist() == words
    np.testing.assert_array_equal(found.copied, copied)
    np.testing.assert_array_equal(found.opposed, opposed)
    assert found.n_tokens == 160


def test_planted_fetchers_copy_and_decoys_do_not() -> None:
    tokenizer = planted.tokenizer()
    prompts = sample_prompts(tokenizer, 20, n_boxes=3)
    found = copying_ranks(planted.model(), prompts, words_in(prompts))
    for head in planted.CIRCUIT["A"]:
        assert (found.copied[head.layer, head.index] == 1).all()
        assert (found.opposed[head.layer, head.index] > 5).all()


def test_planted_name_movers_copy_and_the_negative_one_opposes() -> None:
    prompts = ioi.sample_prompts(planted_ioi.tokenizer(), 20)
    found = copying_ranks(planted_ioi.model(), prompts, words_in(prompts))
    for head in planted_ioi.CIRCUIT["NM"]:
        assert (found.copied[head.layer, head.index] == 1).all()
    negative = planted_ioi.NEGATIVE
    assert (found.opposed[negative.layer, negative.index] == 1).all()
    assert (found.copied[negative.layer, negative.index] > 5).all()


def test_words_are_taken_once_where_they_first_stand_and_only_so_many() -> None:
    words = words_in(PROMPTS)
    assert len(set(words.token_ids.tolist())) == len(words.token_ids)
    for word, row, token in zip(words.token_ids, words.prompts, words.tokens, strict=True):
        assert PROMPTS.input_ids[row, token] == word
        assert word in PROMPTS.choice_ids[row]
        assert word not in PROMPTS.input_ids[:row]
    assert len(words_in(PROMPTS, 4).token_ids) == 4


@pytest.mark.parametrize("name", tiny.STRANGERS)
def test_a_model_that_cannot_be_taken_apart_is_told_so(name: str) -> None:
    with pytest.raises(UserError, match=r"run whole.*choose another model"):
        copying_ranks(tiny.MAKERS[name](), PROMPTS, words_in(PROMPTS))


def test_progress_counts_layers() -> None:
    told: list[tuple[float, float]] = []
    copying_ranks(
        tiny.llama(), PROMPTS, words_in(PROMPTS), lambda done, total: told.append((done, total))
    )
    assert [done / total for done, total in told] == [0, 0.2, 0.4, 0.6, 0.8, 1]
