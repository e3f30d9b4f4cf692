"""Folders that are no good model: each gets one message, soon, and does not break the others."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from streamlit.testing.v1 import AppTest

from backend.commands import cli
from backend.core.errors import UserError
from backend.models import registry
from backend.models.loading import load_model
from backend.models.model_config import blueprint
from backend.tasks.entity_tracking import ENTITY_TRACKING
from tests.dashboard import ROOT
from tests.tiny import llama, word_tokenizer

APP = ROOT / "app.py"
MOST_SECONDS = 10
DEEP = "[" * 100_000 + "]" * 100_000

Damage = Callable[[Path], object]
"""What is done to a folder that holds a family: `base`, and `lora`, an adapter on it."""


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("family")
    base = llama(2)
    base.save_pretrained(place / "base")
    word_tokenizer().save_pretrained(place / "base")
    config = LoraConfig(r=2, target_modules=["q_proj", "o_proj"], init_lora_weights=False)
    adapted = get_peft_model(base, config)
    adapted.peft_config["default"].base_model_name_or_path = "base"
    adapted.save_pretrained(place / "lora")
    return place


def written(file: str, text: str | bytes) -> Damage:
    data = text.encode() if isinstance(text, str) else text
    return lambda place: (place / file).write_bytes(data)


def removed(file: str) -> Damage:
    return lambda place: (place / file).unlink()


def configured(file: str, **fields: Any) -> Damage:
    def damage(place: Path) -> None:
        path = place / file
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    return damage


def reweighted(file: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Damage:
    return lambda place: save_file(change(load_file(place / file)), place / file, {"format": "pt"})


def headed(header: Any, size: int | None = None) -> Damage:
    """A safetensors file of this header and ten bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return written(WEIGHTS, (size or len(text)).to_bytes(8, "little") + text + bytes(10))


def indexed(index: Any) -> Damage:
    def damage(place: Path) -> None:
        (place / WEIGHTS).rename(place / "base/a.safetensors")
        text = index if isinstance(index, str) else json.dumps(index)
        (place / "base/model.safetensors.index.json").write_text(text)
        torch.save(load_file(place / "base/a.safetensors"), place / "base/w.bin")

    return damage


def instead(file: str, make: Callable[[Path], object]) -> Damage:
    def damage(place: Path) -> None:
        (place / file).unlink()
        make(place / file)

    return damage


def link_to(target: str) -> Callable[[Path], object]:
    return lambda path: path.symlink_to(target)


def one(shape: Any, offsets: Any = (0, 8), dtype: Any = "F32") -> dict[str, Any]:
    return {"w": {"dtype": dtype, "shape": shape, "data_offsets": list(offsets)}}


def without(*parts: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda weights: {n: w for n, w in weights.items() if not any(p in n for p in parts)}


def as_soft_prompt(place: Path) -> None:
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    get_peft_model(llama(2), config).save_pretrained(place / "soft")
    shutil.rmtree(place / "lora")
    (place / "soft").rename(place / "lora")
    configured(LORA, base_model_name_or_path="base")(place)


def with_more_words(place: Path) -> None:
    base = llama(2)
    base.resize_token_embeddings(170)
    config = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"])
    adapted = get_peft_model(base, config)
    shutil.rmtree(place / "lora")
    adapted.save_pretrained(place / "lora")
    configured(LORA, base_model_name_or_path="base")(place)


def as_pickle(place: Path) -> None:
    torch.save(load_file(place / WEIGHTS), place / "base/pytorch_model.bin")
    (place / WEIGHTS).unlink()


def as_gguf(place: Path) -> None:
    (place / WEIGHTS).rename(place / "base/model.Q4.gguf")


CONFIG, WEIGHTS, TOKENIZER = "base/config.json", "base/model.safetensors", "base/tokenizer.json"
LORA, LORA_WEIGHTS = "lora/adapter_config.json", "lora/adapter_model.safetensors"
of_base, of_lora, of_weights = (partial(configured, CONFIG), partial(configured, LORA),
                                partial(reweighted, WEIGHTS))  # fmt: skip

MODELS: dict[str, tuple[Damage, str]] = {
    "no configuration": (removed(CONFIG), "There is no model"),
    "an empty configuration": (written(CONFIG, ""), "not JSON"),
    "half a configuration": (written(CONFIG, '{"a": '), "not JSON"),
    "a list for a configuration": (written(CONFIG, "[]"), "no JSON object"),
    "deep JSON for a configuration": (written(CONFIG, DEEP), "nested"),
    "a long number": (written(CONFIG, '{"vocab_size": ' + "9" * 5000 + "}"), "5000 digits"),
    "UTF-16": (written(CONFIG, '{"a": 1}'.encode("utf-16")), "UTF-8"),
    "no model type": (written(CONFIG, '{"vocab_size": 3}'), "model_type"),
    "a model type of another type": (of_base(model_type=3), "model_type"),
    "an unknown model type": (of_base(model_type="no-such-thing"), "no-such-thing"),
    "an encoder": (of_base(model_type="bert"), "."),
    "a wrong type": (of_base(hidden_size="many"), "cannot be loaded"),
    "no heads": (of_base(num_attention_heads=0), "cannot be loaded"),
    "heads below zero": (of_base(num_attention_heads=-4), "cannot be loaded"),
    "words below zero": (of_base(vocab_size=-5), "cannot be loaded"),
    "no words": (of_base(vocab_size=0), "is 160 × 24 and .* says 0 × 24"),
    "no layers": (of_base(num_hidden_layers=0), "no place for"),
    "fewer layers than the file": (of_base(num_hidden_layers=3), "no place for"),
    "more layers than the file": (of_base(num_hidden_layers=6), "missing"),
    "20,000 layers": (of_base(num_hidden_layers=20_000), "20000 layers"),
    "a billion layers": (of_base(num_hidden_layers=10**9), "1000000000 layers"),
    "a huge width": (of_base(hidden_size=10**6), "missing"),
    "an absurd width": (of_base(hidden_size=10**39), "cannot be loaded"),
    "a huge vocabulary": (of_base(vocab_size=10**9), "missing"),
    "another width": (of_base(hidden_size=16), "says 160 × 16"),
    "an unknown activation": (of_base(hidden_act="evil"), "evil"),
    "rotations that are none": (of_base(rope_parameters={"rope_type": "evil"}), "cannot be loaded"),
    "bitsandbytes": (of_base(quantization_config={"quant_method": "bitsandbytes"}), "quantised"),
    "GPTQ": (of_base(quantization_config={"quant_method": "gptq", "bits": 4}), "by gptq"),
    "AWQ": (of_base(quantization_config={"quant_method": "awq"}), "by awq"),
    "compressed tensors": (
        of_base(compression_config={"quant_method": "compressed-tensors"}), "quantised"
    ),
    "quantised weights without a word": (
        of_weights(lambda w: w | {"model.layers.0.mlp.up_proj.qweight": torch.zeros(2)}),
        "quantised",
    ),
    "no weights": (removed(WEIGHTS), "lacks its weights"),
    "pickled weights only": (as_pickle, "pickle"),
    "GGUF only": (as_gguf, "GGUF"),
    "zeros for weights": (written(WEIGHTS, bytes(100)), "does not start as"),
    "an empty file of weights": (written(WEIGHTS, b""), "does not start as"),
    "pickle under another name": (written(WEIGHTS, pickle.dumps({"a": 1})), "cannot be read"),
    "a header that is too long": (headed({}, size=2**62), "does not start as"),
    "a deep header": (headed(DEEP.encode()), "nested"),
    "a header that is a list": (headed([]), "no JSON object"),
    "an absurd shape": (headed(one([10**39])), "no room"),
    "a nested shape": (headed(one([[1], 10**9])), "no room"),
    "a shape without room": (headed(one([100, 100])), "no room"),
    "a shape of nothing": (headed(one(None)), "no room"),
    "a size below zero": (headed(one([-2])), "no room"),
    "offsets outside": (headed(one([2], (4, 10**12))), "no room"),
    "a tensor that is none": (headed({"w": 5}), "no room"),
    "an unknown dtype": (headed(one([2], dtype="F7")), "hold 1 weights"),
    "weights cut off": (
        lambda place: os.truncate(place / WEIGHTS, (place / WEIGHTS).stat().st_size - 500),
        "no room",
    ),
    "a weight too few": (of_weights(without("layers.2.mlp.up_proj")), "missing"),
    "a weight of another name": (
        of_weights(lambda w: {n.replace("up_proj", "upwards"): x for n, x in w.items()}),
        "lacks",
    ),
    "biases without a place": (
        of_weights(lambda w: w | {"model.layers.0.self_attn.q_proj.bias": torch.ones(32)}),
        "no place for",
    ),
    "an index of numbers": (indexed({"weight_map": {"a": 5}}), "not a file of its folder"),
    "an index of nothing": (indexed({"weight_map": None}), "no weight_map"),
    "a deep index": (indexed(DEEP), "nested"),
    "an index that leaves the folder": (
        indexed({"weight_map": {"a": "../lora/adapter_model.safetensors"}}),
        "not a file of its folder",
    ),
    "an index of /etc": (indexed({"weight_map": {"a": "/etc/passwd"}}), "not a file"),
    "an index of a pickle": (indexed({"weight_map": {"a": "w.bin"}}), "only safetensors"),
    "an index of a missing file": (indexed({"weight_map": {"a": "b.safetensors"}}), "lacks"),
    "an index of a long name": (indexed({"weight_map": {"a": "n" * 300 + ".safetensors"}}), "."),
    "no tokenizer": (removed(TOKENIZER), "cannot be loaded"),
    "a damaged tokenizer": (written(TOKENIZER, '{"model": 3}'), "cannot be loaded"),
    "a tokenizer without a model": (configured(TOKENIZER, model=None), "cannot be loaded"),
    "a deep tokenizer": (written(TOKENIZER, DEEP), "."),
    "a tokenizer of another model": (
        lambda place: (place / TOKENIZER).write_text(
            (place / TOKENIZER).read_text().replace(": 1", ": 91")
        ),
        "has not",
    ),
    "a pipe for a configuration": (instead(CONFIG, os.mkfifo), "There is no model"),
    "a pipe for weights": (instead(WEIGHTS, os.mkfifo), "lacks its weights"),
    "a pipe for a tokenizer": (instead(TOKENIZER, os.mkfifo), "cannot be loaded"),
    "a device for a configuration": (instead(CONFIG, link_to("/dev/zero")), "There is no model"),
    "a folder for weights": (instead(WEIGHTS, Path.mkdir), "lacks its weights"),
    "code for another library": (
        of_base(model_type="mine", auto_map={"AutoModelForCausalLM": "evil.Evil"}), "mine"
    ),
}  # fmt: skip

ADAPTERS: dict[str, tuple[Damage, str]] = {
    "prompt tuning": (as_soft_prompt, "prompt tuning"),
    "prefix tuning": (of_lora(peft_type="PREFIX_TUNING"), "prefix tuning"),
    "P-tuning": (of_lora(peft_type="P_TUNING"), "P-tuning"),
    "CPT": (of_lora(peft_type="CPT"), "context-aware"),
    "multitask": (of_lora(peft_type="MULTITASK_PROMPT_TUNING"), "multitask"),
    "activated LoRA": (of_lora(alora_invocation_tokens=[3]), "activated LoRA"),
    "an unknown kind": (of_lora(peft_type="NEW"), "of the kind NEW"),
    "no kind": (of_lora(peft_type=None), "no named kind"),
    "an unknown switch": (of_lora(use_new=True), "use_new"),
    "layers twice": (of_lora(layer_replication=[[0, 2], [1, 4]]), "layer_replication"),
    "a start that changes the base": (of_lora(init_lora_weights="pissa"), "pissa"),
    "a damaged configuration": (written(LORA, "{"), "not JSON"),
    "a base of another machine": (of_lora(base_model_name_or_path="/home/a/x"), "add NAME BASE"),
    "no base": (of_lora(base_model_name_or_path=None), "add NAME BASE"),
    "itself as its base": (of_lora(base_model_name_or_path="lora"), "add NAME BASE"),
    "a base of a long name": (of_lora(base_model_name_or_path="n" * 5000), "add NAME BASE"),
    "no weights": (removed(LORA_WEIGHTS), "lacks its weights"),
    "damaged weights": (written(LORA_WEIGHTS, b"junk" * 10), "does not start as"),
    "other names": (
        reweighted(
            LORA_WEIGHTS,
            lambda w: {n.replace("model.layers", "model.text.layers"): x for n, x in w.items()},
        ),
        "Of the 16 weights .* none fit",
    ),
    "a half of other names": (
        reweighted(
            LORA_WEIGHTS,
            lambda w: {n.replace("layers.3", "layers.9"): x for n, x in w.items()},
        ),
        "only 12 fit",
    ),
    "too few weights": (
        reweighted(LORA_WEIGHTS, without("layers.0.", "layers.1.")),
        "Of the 16 weights .* 8 are not in its file",
    ),
    "no magnitudes": (of_lora(use_dora=True), "8 are not in its file"),
    "modules of no model": (of_lora(target_modules=["evil"]), "evil"),
    "a huge rank": (of_lora(r=10**9), "rank"),
    "a rank of another type": (of_lora(r="many"), "rank"),
    "another rank": (of_lora(r=4), "."),
    "an infinite scale": (of_lora(lora_alpha=float("inf")), "lora_alpha"),
    "weights that are no numbers": (
        reweighted(LORA_WEIGHTS, lambda w: {n: x * float("inf") for n, x in w.items()}),
        ".",
    ),
    "an endless expression": (of_lora(target_modules="((.*)*)*!"), "takes too long"),
    "an endless rank": (of_lora(rank_pattern={"((.*)*)*!": 2}), "takes too long"),
    "half an expression": (of_lora(target_modules="(q_proj"), "is not one"),
    "more words than its base": (with_more_words, "170 words"),
}  # fmt: skip


def damaged(family: Path, place: Path, damage: Damage) -> Path:
    shutil.copytree(family, place)
    damage(place)
    return place


@pytest.mark.parametrize("case", MODELS)
def test_a_bad_model_gets_a_message_soon(family: Path, tmp_path: Path, case: str) -> None:
    check(damaged(family, tmp_path / "x", MODELS[case][0]) / "base", MODELS[case][1])


@pytest.mark.parametrize("case", ADAPTERS)
def test_a_bad_adapter_gets_a_message_soon(family: Path, tmp_path: Path, case: str) -> None:
    check(damaged(family, tmp_path / "x", ADAPTERS[case][0]) / "lora", ADAPTERS[case][1])


def check(folder: Path, said: str) -> None:
    started = time.process_time()
    with pytest.raises(UserError, match=said) as raised:
        load_model(str(folder))
    assert time.process_time() - started < MOST_SECONDS
    assert str(raised.value).endswith((".", "`"))
    assert "Traceback" not in str(raised.value)


def test_bad_models_break_neither_the_page_nor_the_command_for_others(
    family: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ""
    for number, (kind, damage) in enumerate(
        [*(("base", d) for d, _ in MODELS.values()), *(("lora", d) for d, _ in ADAPTERS.values())]
    ):
        folder = damaged(family, tmp_path / str(number), damage) / kind
        lines += f'[bad-{number}]\nsource = "{folder}"\n'
    registry.ADDED.write_text(lines)
    assert len(registry.added().entries) == len(MODELS) + len(ADAPTERS) >= 50
    assert cli.main(["models"]) == 0
    listed = json.loads(capsys.readouterr().out)["models"]
    complaints = [model["complaint"] for model in listed if "complaint" in model]
    assert len(complaints) > 40
    assert not any(model["name"] == "base" and "complaint" in model for model in listed)
    for entry in registry.models().values():
        blueprint(entry)
    test = AppTest.from_file(str(APP), default_timeout=60)
    test.query_params["model"] = "none"
    test.run()
    test.switch_page("pages/models.py").run()
    assert not test.exception
    keys = {button.key for button in test.button}
    assert keys & {"load_base", "unload_base"}  # a test before may have loaded it
    assert "load_bad-0" in keys


def test_the_family_itself_is_good(family: Path) -> None:
    assert load_model(str(family / "base")).notes(ENTITY_TRACKING) == ()
    adapted = load_model(str(family / "lora")).adapter
    assert adapted
    assert adapted.n_weights == 16
    with torch.no_grad():
        words = torch.randint(160, (1, 16), generator=torch.Generator().manual_seed(0))
        base = llama(2)
        to_json = base(words).logits[0, -1]
        moved = PeftModel.from_pretrained(base, family / "lora").eval()(words).logits[0, -1]
    assert adapted.moves == pytest.approx((moved - to_json).abs().max().item(), rel=1e-4)
