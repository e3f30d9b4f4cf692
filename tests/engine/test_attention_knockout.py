"""Attention that is cut, against a forward with scores of minus infinity written out by hand."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, eager_mask

from backend.engine.activation_patching import clean_logits, prepare_clean
from backend.engine.architectures import shape_of, unwrapped
from backend.engine.attention_knockout import knocked_out_logits, knocked_out_logits_plainly
from backend.engine.positions import input_ids
from backend.engine.validation import can_take_apart
from backend.tasks.entity_tracking import sample_prompts
from tests import tiny

PROMPTS = sample_prompts(tiny.word_tokenizer(), 6, n_boxes=4)
PAIRS = {
    "last to object": ("last", "correct_object"),
    "query label to its first occurrence": ("query_label", "prev_query_label"),
    "previous label to object": ("prev_query_label", "correct_object"),
    "last to query label": ("last", "query_label"),
    "to itself": ("query_label", "query_label"),
    "forward": ("prev_query_label", "query_label"),
}
_cuts: dict[tuple[int, int], list[tuple[int, int]]] = {}
"""By layer and head, the pairs of tokens of each prompt in turn."""


def _attend(module, query, key, value, attention_mask, scaling=None, softcap=None, **_):
    """Attention by its definition, one prompt, head and row after the other."""
    shared = query.shape[1] // key.shape[1]
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    out = torch.zeros_like(query)
    for prompt in range(query.shape[0]):
        for head in range(query.shape[1]):
            scores = query[prompt, head] @ key[prompt, head // shared].T * scaling
            if softcap:
                scores = torch.tanh(scores / softcap) * softcap
            scores = scores + attention_mask[prompt % len(attention_mask), 0]
            if (module.layer_idx, head) in _cuts:
                scores[_cuts[module.layer_idx, head][prompt]] = -torch.inf
            out[prompt, head] = scores.softmax(-1) @ value[prompt, head // shared]
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register("cut by hand", _attend)
AttentionMaskInterface.register("cut by hand", eager_mask)


@contextmanager
def _by_hand(model):
    unwrapped(model).set_attn_implementation("cut by hand")
    yield
    unwrapped(model).set_attn_implementation("float64")
    _cuts.clear()


@torch.no_grad()
def _expected(model, query, key, heads):
    pairs = [*zip(query.tolist(), key.tolist(), strict=True)]
    with _by_hand(model):
        for layer, head in heads.nonzero().tolist():
            _cuts[layer, head] = pairs
        return model(input_ids=input_ids(model, PROMPTS)).logits[:, -1]


def _knockouts(n_layers, n_heads):
    """From each layer on, in one layer, in some heads only, and nowhere: [k, n_layers, n_heads]."""
    layer = torch.arange(n_layers)[:, None].expand(n_layers, n_heads)
    head = torch.arange(n_heads).expand(n_layers, n_heads)
    return torch.stack(
        [
            layer == 1,
            *(layer >= start for start in range(n_layers)),
            (layer >= 1) & (head == 2),
            (layer + head) % 3 == 0,
            layer < 0,
        ]
    )


def _tokens(pair):
    return tuple(torch.tensor(PROMPTS.positions[name]) for name in PAIRS[pair])


@pytest.fixture(scope="module", params=tiny.MAKERS)
def model(request):
    return tiny.in_float64(tiny.MAKERS[request.param]())


@pytest.mark.parametrize("pair", PAIRS)
def test_knockouts_equal_the_forward_written_out(model, pair):
    query, key = _tokens(pair)
    heads = _knockouts(*shape_of(model)[:2])
    expected = torch.stack([_expected(model, query, key, each) for each in heads])
    clean = prepare_clean(model, PROMPTS)
    for logits in (
        knocked_out_logits(clean, query, key, heads),
        knocked_out_logits_plainly(model, input_ids(model, PROMPTS), query, key, heads),
    ):
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-11)


def test_what_is_cut_forward_or_nowhere_changes_nothing(model):
    clean = prepare_clean(model, PROMPTS)
    heads = _knockouts(*shape_of(model)[:2])
    untouched = clean_logits(clean)
    torch.testing.assert_close(
        knocked_out_logits(clean, *_tokens("forward"), heads),
        untouched.expand(len(heads), -1, -1),
        rtol=0,
        atol=1e-11,
    )
    backward = knocked_out_logits(clean, *_tokens("last to query label"), heads)
    torch.testing.assert_close(backward[-1], untouched, rtol=0, atol=1e-11)
    assert (backward[1] - untouched).abs().max() > 1e-4


@pytest.mark.parametrize("maker", ["llama", "grouped", "gemma2", "neox", "lora", "mistral"])
def test_float32_stays_within_1e_5_of_plain_runs(maker):
    model = tiny.MAKERS[maker]()
    unwrapped(model).set_attn_implementation("eager")
    assert can_take_apart(model)
    heads, (query, key) = _knockouts(4, 4), _tokens("query label to its first occurrence")
    logits = knocked_out_logits(prepare_clean(model, PROMPTS), query, key, heads)
    plain = knocked_out_logits_plainly(model, input_ids(model, PROMPTS), query, key, heads)
    torch.testing.assert_close(logits, plain, rtol=0, atol=1e-5)


def test_many_knockouts_go_through_in_parts(monkeypatch):
    model = tiny.in_float64(tiny.llama())
    clean, heads = prepare_clean(model, PROMPTS), _knockouts(4, 4)
    query, key = _tokens("previous label to object")
    at_once = knocked_out_logits(clean, query, key, heads)
    monkeypatch.setattr("backend.engine.attention_knockout._ROWS_AT_ONCE", 1)
    torch.testing.assert_close(
        knocked_out_logits(clean, query, key, heads), at_once, rtol=0, atol=1e-12
    )


def test_prompts_keep_their_own_tokens():
    """One prompt at a time gives what all of them together give."""
    model = tiny.in_float64(tiny.grouped_llama())
    heads, (query, key) = _knockouts(4, 4), _tokens("previous label to object")
    assert len(np.unique(query)) > 1
    together = knocked_out_logits(prepare_clean(model, PROMPTS), query, key, heads)
    for row in range(len(PROMPTS)):
        one = knocked_out_logits_plainly(
            model, input_ids(model, PROMPTS)[row : row + 1], query[row, None], key[row, None], heads
        )
        torch.testing.assert_close(one[:, 0], together[:, row], rtol=0, atol=1e-11)
