"""Loading: the real code, on models made here; damaged and unsafe files get a message."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, BloomConfig, BloomForCausalLM

from backend import catalogue
from backend.circuit import ModelShape
from backend.errors import UserError
from backend.loading import load_model
from backend.tasks import sample_prompts
from tests.tiny import grouped_llama, llama, word_tokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A family of a base and an adapter on it."""
    torch.manual_seed(1)
    base = llama()
    base.save_pretrained(tmp_path / "base")
    word_tokenizer().save_pretrained(tmp_path / "base")
    config = LoraConfig(
        r=2, target_modules=["q_proj", "o_proj"], init_lora_weights=False, task_type="CAUSAL_LM"
    )
    adapted = get_peft_model(base, config)
    adapted.peft_config["default"].base_model_name_or_path = "base"
    adapted.save_pretrained(tmp_path / "lora")
    return tmp_path


def logits(model: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(ids).logits


def test_a_folder_is_loaded_as_transformers_does(folder: Path) -> None:
    loaded = load_model(str(folder / "base"))
    ids = torch.tensor(sample_prompts(loaded.tokenizer, 3).input_ids)
    plain = AutoModelForCausalLM.from_pretrained(folder / "base").eval()
    torch.testing.assert_close(logits(loaded.model, ids), logits(plain, ids), rtol=0, atol=1e-4)
    assert loaded.shape == ModelShape(4, 4, 4, 8)
    assert not loaded.model.training


def test_an_adapter_comes_with_the_base_beside_it(folder: Path) -> None:
    loaded, base = load_model(str(folder / "lora")), load_model(str(folder / "base"))
    ids = torch.tensor(sample_prompts(loaded.tokenizer, 3).input_ids)
    difference = (logits(loaded.model, ids) - logits(base.model, ids)).abs().max()
    assert difference > 1e-2
    adapted = PeftModel.from_pretrained(base.model, folder / "lora").eval()
    expected = logits(adapted, ids)
    torch.testing.assert_close(logits(loaded.model, ids), expected, rtol=0, atol=1e-4)


def test_grouped_queries_are_seen(tmp_path: Path) -> None:
    grouped_llama().save_pretrained(tmp_path)
    word_tokenizer().save_pretrained(tmp_path)
    assert load_model(str(tmp_path)).shape == ModelShape(4, 4, 2, 8)


def damage_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def damage_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\x00" * 100)


def cut_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-500])


def remove_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def only_pickled_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")


def remove_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def damage_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"model": 3}')


def other_width(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_size": 48}))


def more_layers(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 6}))


def unknown_architecture(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "no-such-thing"}')


def wants_remote_code(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoModelForCausalLM": "evil.Evil"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text("raise SystemExit('remote code ran')")


DAMAGES = [
    damage_config, damage_weights, cut_weights, remove_weights, only_pickled_weights,
    remove_tokenizer, damage_tokenizer, other_width, more_layers, unknown_architecture,
    wants_remote_code,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_folder_gets_a_message(folder: Path, damage) -> None:  # type: ignore[no-untyped-def]
    damage(folder / "base")
    with pytest.raises(UserError, match=r"cannot be loaded: .+ choose another model\."):
        load_model(str(folder / "base"))


def test_an_adapter_that_is_pickled_is_refused(folder: Path) -> None:
    (folder / "lora" / "adapter_model.safetensors").unlink()
    torch.save({}, folder / "lora" / "adapter_model.bin")
    with pytest.raises(UserError, match=r"adapter_model\.safetensors is missing"):
        load_model(str(folder / "lora"))


def test_an_adapter_without_its_base_is_refused(folder: Path) -> None:
    config = folder / "lora" / "adapter_config.json"
    config.write_text(config.read_text().replace('"base"', '"nowhere"'))
    with pytest.raises(UserError, match="nowhere"):
        load_model(str(folder / "lora"))


def test_a_model_of_another_kind_is_refused(tmp_path: Path) -> None:
    config = BloomConfig(vocab_size=200, hidden_size=16, n_layer=1, n_head=2)
    BloomForCausalLM(config).save_pretrained(tmp_path)
    word_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(
        UserError, match=r"cannot be found. Choose a model of one of these families: Llama"
    ):
        load_model(str(tmp_path))


@pytest.mark.parametrize("name", ["", "nothing", "../base", "a/../b", "/no/where", "a/b/c", "x\0y"])
def test_unknown_names_never_become_paths(name: str) -> None:
    with pytest.raises(UserError, match="There is no model"):
        catalogue.resolve(name)
