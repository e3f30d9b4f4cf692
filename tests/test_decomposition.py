"""Models that the engine takes apart, and models that it has to run whole."""

from __future__ import annotations

import pytest
import torch

from backend.anatomy import decoder
from backend.clicks import prepare_clean
from backend.decomposition import holds
from backend.faithfulness import prepare_backdrop
from backend.tasks import sample_prompts
from backend.vital import mean_head_outputs
from tests import tiny

PROMPTS = sample_prompts(tiny.word_tokenizer(), 4, n_boxes=3)


@pytest.mark.parametrize("maker", tiny.MAKERS)
def test_every_family_but_the_strangers_is_taken_apart(maker):
    model = tiny.MAKERS[maker]()
    assert holds(model) == (maker not in tiny.STRANGERS)
    assert holds(tiny.in_float64(tiny.MAKERS[maker]())) == (maker not in tiny.STRANGERS)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("maker", ["llama", "gemma2", "gpt2", "neox", "granite"])
def test_half_precision_does_not_hide_or_fake_a_misfit(maker, dtype):
    assert holds(tiny.MAKERS[maker]().to(dtype)) == (maker != "granite")


def test_a_layer_that_does_more_than_its_family_s_is_found_out():
    model = tiny.llama()
    mlp = decoder(model).layers[2].mlp
    mlp.register_forward_hook(lambda _, __, output: output)
    assert holds(model)
    other = tiny.llama()
    decoder(other).layers[2].register_forward_hook(lambda _, __, output: 1.01 * output)
    assert not holds(other)


def test_what_cannot_be_taken_apart_has_nothing_to_start_from():
    model = tiny.granite()
    means = mean_head_outputs(model, PROMPTS)
    assert prepare_clean(model, PROMPTS).run is None
    assert prepare_backdrop(model, PROMPTS, means).run is None


def test_a_model_on_several_devices_is_run_whole():
    model = tiny.llama()
    decoder(model).layers[3].to("meta")
    assert not holds(model)


def test_a_full_memory_is_no_misfit(monkeypatch):
    model = tiny.llama()

    def full(model):
        raise RuntimeError("CUDA out of memory")

    with monkeypatch.context() as patched:
        patched.setattr("backend.decomposition._holds", full)
        with pytest.raises(RuntimeError, match="out of memory"):
            holds(model)
    assert holds(model)
