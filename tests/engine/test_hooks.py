"""Seeing and replacing head outputs, against plain hooks written out by hand."""

from __future__ import annotations

import threading

import pytest
import torch

from backend.core.heads import ModelShape
from backend.engine.architectures import decoder, shape_of
from backend.engine.hooks import edited_head_outputs, record_head_outputs
from backend.engine.positions import input_ids, position_head_outputs, position_tokens
from backend.tasks.entity_tracking import sample_prompts
from tests import oracles, tiny

PROMPTS = sample_prompts(tiny.word_tokenizer(), 5, n_boxes=3)


@pytest.fixture(params=tiny.MAKERS)
def model(request):
    return tiny.in_float64(tiny.MAKERS[request.param]())


def test_shape_is_read_off_the_modules():
    assert shape_of(tiny.llama()) == ModelShape(4, 4, 4, 8)
    assert shape_of(tiny.grouped_llama()) == shape_of(tiny.lora_llama()) == ModelShape(4, 4, 2, 8)


def test_recording_sees_what_enters_the_output_projection(model):
    seen = record_head_outputs(model, input_ids(model, PROMPTS))
    torch.testing.assert_close(seen, oracles.head_outputs(model, PROMPTS), rtol=0, atol=0)


def test_recording_at_the_vital_tokens_only(model):
    expected = oracles.head_outputs(model, PROMPTS)
    seen = position_head_outputs(model, PROMPTS)
    for prompt, tokens in enumerate(position_tokens(model, PROMPTS)):
        torch.testing.assert_close(seen[:, prompt], expected[:, prompt, tokens], rtol=0, atol=0)


def test_replacing_one_head_at_one_token(model):
    values = torch.randn(shape_of(model).d_head, dtype=torch.double)

    def edit(layer, heads):
        if layer == 2:
            heads = heads.clone()
            heads[3, 7, 1] = values
            return heads
        return None

    with torch.no_grad(), edited_head_outputs(model, edit):
        logits = model(input_ids=input_ids(model, PROMPTS)).logits[:, -1]
    expected = oracles.replaced(model, PROMPTS, {(2, 3, 7, 1): values})
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-12)


def test_hooks_go_when_the_block_fails():
    model = tiny.llama()
    with pytest.raises(RuntimeError), edited_head_outputs(model, lambda layer, heads: heads / 0):
        raise RuntimeError
    assert not any(block.self_attn.o_proj._forward_pre_hooks for block in decoder(model).layers)


def test_an_edit_does_not_reach_other_threads():
    model = tiny.llama()
    ids = input_ids(model, PROMPTS)
    clean = record_head_outputs(model, ids)
    elsewhere = []
    with edited_head_outputs(model, lambda layer, heads: torch.zeros_like(heads)):
        thread = threading.Thread(target=lambda: elsewhere.append(record_head_outputs(model, ids)))
        thread.start()
        thread.join()
    assert torch.equal(elsewhere[0], clean)
