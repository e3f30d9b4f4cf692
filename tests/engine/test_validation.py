"""Models that the engine takes apart, and models that it has to run whole."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from backend.engine import architectures
from backend.engine.activation_patching import prepare_clean
from backend.engine.architectures import decoder
from backend.engine.mean_ablation import prepare_ablated_run
from backend.engine.positions import mean_head_outputs
from backend.engine.replay import full_run
from backend.engine.validation import can_take_apart
from backend.tasks.entity_tracking import sample_prompts
from tests import tiny

PROMPTS = sample_prompts(tiny.word_tokenizer(), 4, n_boxes=3)


@pytest.mark.parametrize("maker", tiny.MAKERS)
def test_every_family_but_the_strangers_is_taken_apart(maker):
    model = tiny.MAKERS[maker]()
    assert can_take_apart(model) == (maker not in tiny.STRANGERS)
    assert can_take_apart(tiny.in_float64(tiny.MAKERS[maker]())) == (maker not in tiny.STRANGERS)


@pytest.mark.parametrize("maker", tiny.OTHERS)
def test_experts_and_models_inside_others_are_taken_apart(maker):
    assert can_take_apart(tiny.OTHERS[maker]())


@pytest.mark.parametrize("maker", ["llama", "neox"])
def test_what_differs_at_small_tokens_only_is_found_out(maker):
    """One token is a thousand times as large as all others, as in real models."""
    model = tiny.MAKERS[maker]()
    model.get_input_embeddings().weight.data[::8] *= 1000
    assert can_take_apart(model)

    other = tiny.MAKERS[maker]()
    other.get_input_embeddings().weight.data[::8] *= 1000
    block = decoder(other).layers[1]

    def more_at_small_tokens(_, __, output):
        small = output.abs().amax(-1, keepdim=True) < 100
        return torch.where(small, 1.003 * output, output)

    block.register_forward_hook(more_at_small_tokens)
    assert not can_take_apart(other)
    with torch.no_grad():
        ids = torch.arange(64).view(2, 32)
        run = full_run(other, ids)
        own = decoder(other)(input_ids=ids, output_hidden_states=True).hidden_states
    gap = max(
        (ours - theirs).abs().max() for ours, theirs in zip(run.residuals, own[:-1], strict=False)
    )
    assert gap > 1e-2
    assert gap < 1e-4 * max(each.abs().max() for each in own[:-1])


def test_what_differs_only_when_run_again_is_found_out():
    """Whole runs agree; but a head's output depends on how many rows there are before it."""
    model = tiny.llama()
    out = decoder(model).layers[2].self_attn.o_proj

    def by_row(_, inputs):
        rows = torch.arange(inputs[0].shape[-2])[:, None]
        return (inputs[0] * (1 + 0.01 * rows),)

    out.register_forward_pre_hook(by_row)
    ids = torch.arange(64).view(2, 32)
    with torch.no_grad():
        own = decoder(model)(input_ids=ids, output_hidden_states=True).hidden_states
        for ours, theirs in zip(full_run(model, ids).residuals, own[:-1], strict=False):
            torch.testing.assert_close(ours, theirs)
    assert not can_take_apart(model)


@pytest.mark.parametrize("swapped", [(0, 1), (0, 2), (1, 2)])
def test_projections_that_are_not_what_they_are_called_are_found_out(monkeypatch, swapped):
    model = tiny.gpt2()
    names = ["q_proj", "k_proj", "v_proj"]
    first, second = swapped
    names[first], names[second] = names[second], names[first]
    monkeypatch.setattr(architectures, "_ORDER", tuple(names))
    assert not can_take_apart(model)


def test_queries_and_keys_that_are_told_apart_by_the_wrong_heads_are_found_out(monkeypatch):
    """As if groups of query heads were not next to each other."""
    fused = ("query_key_value", architectures._in_a_row)
    wrong = replace(architectures._FAMILIES["gpt_neox"], fused=fused)
    monkeypatch.setattr(architectures, "_FAMILIES", {"gpt_neox": wrong})
    assert not can_take_apart(tiny.neox())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("maker", ["llama", "gemma2", "gpt2", "neox", "granite"])
def test_half_precision_does_not_hide_or_fake_a_misfit(maker, dtype):
    assert can_take_apart(tiny.MAKERS[maker]().to(dtype)) == (maker != "granite")


def test_a_layer_that_does_more_than_its_family_s_is_found_out():
    model = tiny.llama()
    mlp = decoder(model).layers[2].mlp
    mlp.register_forward_hook(lambda _, __, output: output)
    assert can_take_apart(model)
    other = tiny.llama()
    decoder(other).layers[2].register_forward_hook(lambda _, __, output: 1.01 * output)
    assert not can_take_apart(other)


def test_what_cannot_be_taken_apart_has_nothing_to_start_from():
    model = tiny.granite()
    means = mean_head_outputs(model, PROMPTS)
    assert prepare_clean(model, PROMPTS).run is None
    assert isinstance(prepare_ablated_run(model, PROMPTS, means).rest, tuple)


def test_a_model_on_several_devices_is_run_whole():
    model = tiny.llama()
    decoder(model).layers[3].to("meta")
    assert not can_take_apart(model)


def test_a_full_memory_is_no_misfit(monkeypatch):
    model = tiny.llama()

    def full(model):
        raise RuntimeError("CUDA out of memory")

    with monkeypatch.context() as patched:
        patched.setattr("backend.engine.validation._holds", full)
        with pytest.raises(RuntimeError, match="out of memory"):
            can_take_apart(model)
    assert can_take_apart(model)
