"""Families that once misled the engine: right, or refused when they are loaded, never midway."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    DeepseekV2Config,
    DeepseekV3Config,
    Gemma3ForCausalLM,
    Gemma4TextConfig,
    MambaConfig,
)

from backend.core.errors import UserError
from backend.engine import validation
from backend.engine.architectures import config_of, logits_of, logits_of_tokens
from backend.engine.positions import input_ids
from backend.methods.accuracy import accuracy_report
from backend.models.loading import load_model
from backend.tasks.entity_tracking import ENTITY_TRACKING, sample_prompts
from backend.tasks.prompts import Prompts
from tests import tiny
from tests.engine.test_second_device import figures, methods

MAKERS = {"phi3": tiny.phi3, **tiny.OTHERS}


def saved(model: Any, folder: Path) -> str:
    model.save_pretrained(folder)
    tiny.word_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("maker", ["experts", "more experts"])
def test_taken_apart_or_run_whole_every_method_says_the_same(maker: str) -> None:
    model = MAKERS[maker]()
    whole = copy.deepcopy(model)
    validation._known[whole] = False
    assert validation.can_take_apart(model)
    taken_apart = dict(methods(model))
    for name, ask in methods(whole):
        if maker == "experts" or name.startswith("stage"):
            np.testing.assert_allclose(
                figures(taken_apart[name]()), figures(ask()), atol=2e-3, err_msg=name
            )


@pytest.mark.parametrize("maker", [*tiny.MAKERS, "lora on the head"])
def test_logits_of_some_tokens_are_those_among_all(maker: str) -> None:
    model = (
        tiny.lora_llama(targets=["lm_head"])
        if maker == "lora on the head"
        else tiny.MAKERS[maker]()
    )
    hidden = torch.randn(3, 2, config_of(model).hidden_size, generator=torch.manual_seed(0))
    ids = torch.tensor([[5, 9], [7, 7], [0, 3]])
    with torch.no_grad():
        among_all = logits_of(model, hidden).gather(-1, ids[:, None].expand(-1, 2, -1))
        torch.testing.assert_close(logits_of_tokens(model, hidden, ids), among_all)


def test_a_model_that_sees_pictures_is_the_language_model_in_it() -> None:
    model = tiny.with_pictures()
    alone = Gemma3ForCausalLM(model.config.text_config).eval()
    alone.model.load_state_dict(model.model.language_model.state_dict())
    alone.lm_head.load_state_dict(model.lm_head.state_dict())
    for (name, ask), (_, ask_alone) in zip(methods(model), methods(alone), strict=True):
        if name in ("stage C", "click", "compare", "cmap v"):
            np.testing.assert_allclose(figures(ask()), figures(ask_alone()), atol=1e-5)


@pytest.mark.parametrize("maker", MAKERS)
def test_it_is_loaded_from_a_folder(tmp_path: Path, maker: str) -> None:
    model = MAKERS[maker]()
    loaded = load_model(saved(model, tmp_path))
    assert loaded.is_taken_apart
    assert loaded.shape[:2] == (4, 4)
    assert accuracy_report(loaded, Prompts(ENTITY_TRACKING, 20, 0, (3,))).accuracy.n == 20
    ids = torch.arange(20)[None]
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(ids).logits, model(ids).logits)


EXPERTS = {
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "moe_intermediate_size": 16,
}
LATENT = {
    "kv_lora_rank": 8,
    "q_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 6,
    "head_dim": 4,
}
IN_TURN = {"sliding_window": 9, "layer_types": ["sliding_attention", "full_attention"] * 2}
SIZES_IN_TURN = {
    "num_key_value_heads": 2,
    "global_head_dim": 16,
    "vocab_size_per_layer_input": 160,
    "hidden_size_per_layer_input": 8,
}
REFUSED = {
    "latent values of another size": (DeepseekV3Config, EXPERTS | LATENT, "cannot be told apart"),
    "latent keys and values": (
        DeepseekV2Config,
        EXPERTS | LATENT | {"q_lora_rank": None},
        "cannot be told apart",
    ),
    "layers of two head sizes": (
        Gemma4TextConfig,
        IN_TURN | SIZES_IN_TURN,
        "are not 4 times 8 numbers in each of its 4 layers",
    ),
    "no attention": (MambaConfig, {}, "attention cannot be found"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_no_method_can_work_on_is_refused_when_it_is_loaded(tmp_path: Path, kind: str) -> None:
    config, changes, reason = REFUSED[kind]
    name = saved(tiny.of_kind(config, **changes), tmp_path)
    with pytest.raises(UserError, match=rf"{reason}\. Choose a model of one of these families: "):
        load_model(name)


def test_a_prompt_longer_than_the_model_can_read_is_told(tmp_path: Path) -> None:
    loaded = load_model(saved(tiny.of_kind(tiny.GPT2Config, n_positions=40, n_inner=40), tmp_path))
    assert accuracy_report(loaded, Prompts(ENTITY_TRACKING, 5, 0, (3,))).accuracy.n == 5
    with pytest.raises(UserError, match=r"have \d+ tokens, and the model reads at most 40\. Cho"):
        accuracy_report(loaded, Prompts(ENTITY_TRACKING, 5, 0, (7,)))
    prompts = sample_prompts(loaded.tokenizer, 3, n_boxes=7)
    with pytest.raises(UserError, match="fewer boxes"):
        input_ids(loaded.model, prompts)
