"""Loading: the real code, on models made here; damaged and unsafe files get a message."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, BloomConfig, BloomForCausalLM

from backend.core.errors import UserError
from backend.core.heads import ModelShape
from backend.core.placement import Dtype, Placement, check_device
from backend.core.progress import Cancelled
from backend.methods.accuracy import accuracy_report
from backend.models import loading, registry
from backend.models.loading import load_model
from backend.tasks.entity_tracking import ENTITY_TRACKING, sample_prompts
from backend.tasks.prompts import Prompts
from tests import tiny
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
    to_json = AutoModelForCausalLM.from_pretrained(folder / "base").eval()
    torch.testing.assert_close(logits(loaded.model, ids), logits(to_json, ids), rtol=0, atol=1e-4)
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
    damage_config, damage_weights, cut_weights, remove_weights, remove_tokenizer,
    damage_tokenizer, other_width, more_layers, unknown_architecture, wants_remote_code,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_folder_gets_a_message(folder: Path, damage) -> None:  # type: ignore[no-untyped-def]
    damage(folder / "base")
    with pytest.raises(UserError, match=r"(choose another|Mend it|Put the file).*\.$"):
        load_model(str(folder / "base"))


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


@pytest.mark.parametrize("maker", ["granite", "gemma2", "gpt2", "neox"])
def test_what_is_run_whole_is_said(tmp_path: Path, maker: str) -> None:
    tiny.MAKERS[maker]().save_pretrained(tmp_path)
    word_tokenizer().save_pretrained(tmp_path)
    loaded = load_model(str(tmp_path))
    assert any("runs all of it" in note for note in loaded.notes(ENTITY_TRACKING)) == (
        maker == "granite"
    )
    assert accuracy_report(loaded, Prompts(ENTITY_TRACKING, 20, 0, (3,))).accuracy.n == 20


def test_a_registered_adapter_goes_on_the_base_that_the_registry_names(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "ADDED", folder / "models.toml")
    config = folder / "lora" / "adapter_config.json"
    expected = load_model(str(folder / "lora"))
    config.write_text(config.read_text().replace('"base"', '"gone/from-the-hub"'))
    registry.add("mine", str(folder / "base"), str(folder / "lora"))
    ids = torch.tensor(sample_prompts(expected.tokenizer, 3).input_ids)
    torch.testing.assert_close(
        logits(load_model("mine").model, ids), logits(expected.model, ids), rtol=0, atol=0
    )


@pytest.mark.parametrize("dtype", list(Dtype))
def test_weights_are_in_the_dtype_asked_for_and_rotations_stay_exact(
    folder: Path, dtype: Dtype
) -> None:
    loaded = load_model(str(folder / "lora"), Placement("cpu", dtype))
    weights = {weight.dtype for weight in loaded.model.parameters()}
    assert weights == {getattr(torch, dtype.name)}
    assert loaded.model.model.rotary_emb.inv_freq.dtype is torch.float32
    assert loaded.placement == Placement("cpu", dtype)


@pytest.mark.parametrize("device", ["cuda:7", "spread", "tpu", ""])
def test_a_device_that_is_not_there_is_explained(
    folder: Path, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UserError, match=r"is not there: .* no GPU .* Choose one of auto, cpu\."):
        load_model(str(folder / "base"), Placement(device))


def test_auto_is_the_first_gpu_that_there_is() -> None:
    assert check_device("auto", 0) == "cpu"
    assert check_device("auto", 2) == check_device("cuda", 2) == "cuda:0"
    assert check_device("spread", 2) == "spread"
    with pytest.raises(UserError, match=r"2 GPUs .* cuda:0, cuda:1, spread"):
        check_device("cuda:2", 2)


def test_too_little_memory_is_told_before_it_is_full(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "free_bytes", lambda _: 1000)
    with pytest.raises(UserError, match=r"does not fit .* float32: .* GB .* choose another device"):
        load_model(str(folder / "base"))


def test_progress_rises_and_a_cancel_stops_the_load(folder: Path) -> None:
    told: list[tuple[str, float]] = []
    load_model(str(folder / "base"), told=lambda *step: told.append(step))
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert sum(stage == "Reading the weights" for stage, _ in told) > 10

    def stop(_: str, share: float) -> None:
        if share > 0.5:
            raise Cancelled

    with pytest.raises(Cancelled):
        load_model(str(folder / "base"), told=stop)
