"""Adapters: each kind that is let in is what PEFT makes of it, and says how much of it is there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from backend.commands import cli
from backend.core.errors import UserError
from backend.core.placement import Dtype, Placement
from backend.models import loaded_models, registry
from backend.models.loading import LoadedModel, load_model
from tests.tiny import llama, word_tokenizer

IDS = torch.tensor([[9, 10, 11, 12, 13, 2, 3]])
ALL = ["q_proj", "k_proj", "v_proj", "o_proj"]
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rank-stabilised": {"use_rslora": True},
    "DoRA": {"use_dora": True},
    "with MLPs": {"target_modules": [*ALL, "gate_proj", "up_proj", "down_proj"]},
    "all linear layers": {"target_modules": "all-linear"},
    "an expression": {"target_modules": r".*layers\.[02]\.self_attn\.(q|v)_proj"},
    "some layers": {"layers_to_transform": [1, 3]},
    "other ranks": {"rank_pattern": {"q_proj": 3}, "alpha_pattern": {r"layers\.1\..*": 32}},
    "an output layer of its own": {"modules_to_save": ["lm_head"]},
    "biases": {"bias": "all"},
}
STARTS = [True, "gaussian", "orthogonal", "eva"]


def base_model() -> Any:
    return llama(4, attention_bias=True)


def save_adapter(place: Path, **options: Any) -> Path:
    torch.manual_seed(3)
    config = LoraConfig(**({"r": 2, "target_modules": ALL, "init_lora_weights": False} | options))
    adapted = get_peft_model(base_model(), config)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if weight.requires_grad and "lora_A" not in name:
                weight.add_(torch.randn_like(weight) * 0.1)
    adapted.peft_config["default"].base_model_name_or_path = "base"
    adapted.save_pretrained(place)
    return place


@pytest.fixture
def place(tmp_path: Path) -> Path:
    base_model().save_pretrained(tmp_path / "base")
    word_tokenizer().save_pretrained(tmp_path / "base")
    return tmp_path


@pytest.fixture(autouse=True)
def _an_empty_shelf() -> Iterator[None]:
    yield
    for name in loaded_models.loaded():
        loaded_models.unload(name)


@torch.no_grad()
def logits(model: nn.Module) -> Tensor:
    return model(IDS).logits


def by_peft(adapter: Path) -> Tensor:
    """What PEFT alone makes of it, merged into the weights."""
    return logits(PeftModel.from_pretrained(base_model(), adapter).eval().merge_and_unload())


def counted(loaded: LoadedModel) -> int:
    assert loaded.adapter
    return loaded.adapter.n_weights


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_what_peft_makes_of_it(place: Path, kind: str) -> None:
    adapter = save_adapter(place / "lora", **KINDS[kind])
    loaded = load_model(str(adapter))
    torch.testing.assert_close(logits(loaded.model), by_peft(adapter), rtol=1e-4, atol=1e-4)
    assert counted(loaded) == len(load_file(adapter / "adapter_model.safetensors"))
    assert loaded.is_taken_apart
    assert loaded.adapter
    assert loaded.adapter.moves > 0.01
    n = counted(loaded)
    assert str(loaded.adapter).startswith(f"adapter: {n} of {n} weights, moves the logits by up to")


@pytest.mark.parametrize("start", STARTS)
def test_how_it_began_is_nothing_to_what_it_is(place: Path, start: Any) -> None:
    adapter = save_adapter(place / "lora")
    expected = logits(load_model(str(adapter)).model)
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"init_lora_weights": start}))
    assert torch.equal(logits(load_model(str(adapter)).model), expected)


def test_the_command_models_says_what_was_found_of_an_adapter(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    registry.add("mine", str(save_adapter(place / "lora")))

    def told() -> str | None:
        capsys.readouterr()
        assert cli.main(["models"]) == 0
        listed = json.loads(capsys.readouterr().out)["models"]
        return next(model for model in listed if model["name"] == "mine").get("found")

    assert told() is None
    loaded = loaded_models.load("mine")
    loaded_models.unload("mine")
    assert told() == str(loaded.adapter)
    save_adapter(place / "lora", r=3)
    assert told() is None, "it is another adapter now"


def test_an_untrained_adapter_is_said_to_change_nothing(place: Path) -> None:
    torch.manual_seed(0)
    adapted = get_peft_model(base_model(), LoraConfig(r=2, target_modules=ALL))
    adapted.peft_config["default"].base_model_name_or_path = "base"
    adapted.save_pretrained(place / "lora")
    assert str(load_model(str(place / "lora")).adapter).endswith(
        "32 of 32 weights, changes nothing"
    )


@pytest.mark.parametrize("dtype", [Dtype.bfloat16, Dtype.float16])
def test_the_whole_adapter_is_in_the_numbers_of_its_base(place: Path, dtype: Dtype) -> None:
    adapter = save_adapter(place / "lora", use_dora=True)
    loaded = load_model(str(adapter), Placement("cpu", dtype))
    assert {str(w.dtype) for w in loaded.model.parameters()} == {f"torch.{dtype.name}"}
    assert counted(loaded) == 48


def test_an_adapter_that_holds_weights_of_its_base_leaves_the_shared_ones_alone(
    place: Path,
) -> None:
    adapter = save_adapter(place / "lora")
    file = adapter / "adapter_model.safetensors"
    embeddings = base_model().model.embed_tokens.weight.detach() + 0.5
    name = "base_model.model.model.embed_tokens.weight"
    save_file(load_file(file) | {name: embeddings}, file, {"format": "pt"})
    before = logits(loaded_models.load(str(place / "base")).model)
    loaded = loaded_models.load(str(adapter))
    assert torch.equal(loaded.model.model.embed_tokens.weight, embeddings)
    assert counted(loaded) == 33
    assert torch.equal(logits(loaded_models.load(str(place / "base")).model), before)


def test_a_whole_model_with_a_left_over_configuration_is_that_model(place: Path) -> None:
    expected = logits(load_model(str(place / "base")).model)
    (place / "base" / "adapter_config.json").write_text('{"base_model_name_or_path": "gone/away"}')
    loaded = load_model(str(place / "base"))
    assert loaded.adapter is None
    assert torch.equal(logits(loaded.model), expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base_model_name_or_path": "/home/a/x"}, r"“/home/a/x” as its base.*add NAME BASE --ad"),
        ({"peft_type": "PROMPT_TUNING"}, "is prompt tuning"),
    ],
)
def test_what_can_never_be_loaded_is_not_added(
    place: Path, changes: dict[str, Any], message: str
) -> None:
    adapter = save_adapter(place / "lora")
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | changes))
    with pytest.raises(UserError, match=message):
        registry.add("mine", str(adapter))
    assert "mine" not in registry.models()


def test_a_folder_that_holds_other_files_is_no_hub_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "model.gguf").touch()
    with pytest.raises(UserError, match=r"holds model\.gguf: GGUF files"):
        registry.add("mine", "mine/model")
