"""Patching a few heads of the whole model: against an oracle, and what must not change."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

from backend.core.heads import Head, Site
from backend.engine.activation_patching import (
    clean_logits,
    patched_logits,
    patched_logits_plainly,
    prepare_clean,
)
from backend.engine.architectures import shape_of
from backend.engine.positions import all_sites, position_head_outputs
from backend.tasks.entity_tracking import ENTITY_TRACKING, counterfactual_prompts, sample_prompts
from tests import oracles, tiny

TOKENIZER = tiny.word_tokenizer()
PROMPTS = sample_prompts(TOKENIZER, 8, n_boxes=4)
COUNTERFACTUAL = counterfactual_prompts(TOKENIZER, PROMPTS)
PATCHES = {
    "previous label": [Site(Head(1, 2), "prev_query_label")],
    "query label": [Site(Head(2, 0), "query_label"), Site(Head(0, 3), "query_label")],
    "last token, last layer": [Site(Head(3, 1), "last")],
    "everywhere": [
        Site(Head(2, 1), "prev_query_label"),
        Site(Head(1, 1), "last"),
        Site(Head(3, 2), "query_label"),
    ],
}


@pytest.fixture(params=tiny.MAKERS)
def model(request):
    return tiny.in_float64(tiny.MAKERS[request.param]())


@pytest.mark.parametrize("patches", PATCHES.values(), ids=PATCHES)
def test_patching_equals_the_oracle(model, patches):
    values = position_head_outputs(model, COUNTERFACTUAL)
    new = {
        (layer, prompt, int(PROMPTS.positions[position][prompt]), head): values[
            layer, prompt, ENTITY_TRACKING.position_names.index(position), head
        ]
        for (layer, head), position in patches
        for prompt in range(len(PROMPTS))
    }
    expected = oracles.replaced(model, PROMPTS, new)
    for logits in (
        patched_logits(prepare_clean(model, PROMPTS), patches, values),
        patched_logits_plainly(model, PROMPTS, patches, values),
    ):
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("maker", tiny.MAKERS)
@pytest.mark.parametrize("patches", PATCHES.values(), ids=PATCHES)
def test_float32_stays_within_1e_5_of_a_plain_run(maker, patches):
    model = tiny.MAKERS[maker]()
    values = position_head_outputs(model, COUNTERFACTUAL)
    logits = patched_logits(prepare_clean(model, PROMPTS), patches, values)
    expected = patched_logits_plainly(model, PROMPTS, patches, values)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "changes"),
    [
        (LlamaConfig, {"attn_implementation": "eager"}),
        (MistralConfig, {"num_key_value_heads": 2}),
        (Qwen2Config, {"num_key_value_heads": 2, "head_dim": 6}),
        (Qwen3Config, {"attention_bias": True}),
    ],
    ids=["eager", "mistral", "qwen2", "qwen3"],
)
def test_other_kinds_of_llama(config, changes):
    model = tiny.of_kind(config, **changes)
    values = position_head_outputs(model, COUNTERFACTUAL)
    logits = patched_logits(prepare_clean(model, PROMPTS), PATCHES["everywhere"], values)
    expected = patched_logits_plainly(model, PROMPTS, PATCHES["everywhere"], values)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)


def test_a_model_s_own_values_change_nothing(model):
    clean = prepare_clean(model, PROMPTS)
    own = position_head_outputs(model, PROMPTS)
    logits = patched_logits(clean, all_sites(shape_of(model), ENTITY_TRACKING.position_names), own)
    torch.testing.assert_close(logits, clean_logits(clean), rtol=0, atol=1e-12)
    assert torch.equal(patched_logits(clean, [], own), clean_logits(clean))


def test_clean_logits_are_the_model_s():
    model = tiny.qwen3()
    expected, _ = oracles.run(model, PROMPTS)
    logits = clean_logits(prepare_clean(model, PROMPTS))
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)
