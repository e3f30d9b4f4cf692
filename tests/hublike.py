"""A Llama that does the task, and a LoRA adapter on it, in folders like those on the hub.

The model is the planted one of `tests.planted`, behind a SentencePiece tokenizer trained on its
words. Its files are those of the paper's models: sharded float16 weights, the tokenizer's older
layout, and the configuration's older names.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model

from tests import planted, trained

_SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
_NOISE = 0.002
"""Of the adapter: as much as makes some answers wrong."""


def save_family(place: Path) -> tuple[str, str]:
    """Save the model and its adapter below `place`; the names of the two folders."""
    base, adapter = place / "planted-llama", place / "planted-lora"
    tokenizer = trained.normalised_sentencepiece(labels=planted.LABELS, objects=planted.OBJECTS)
    model = _planted(tokenizer)
    save(model, tokenizer, base)
    _adapted(model.float(), base).save_pretrained(adapter)
    return str(base), str(adapter)


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Save a Llama and its tokenizer, as float16 in several files."""
    model.half().save_pretrained(folder, max_shard_size="20KB")
    _rename_configuration(folder / "config.json")
    _save_tokenizer(tokenizer, folder)


def _planted(tokenizer: Any) -> Any:
    pieces = tokenizer.get_vocab()
    marks = {mark: pieces[mark] for mark in ",."}
    words = ("The", *planted.LABELS, *planted.OBJECTS)
    tokens = marks | {word: pieces[f"▁{word}"] for word in words}
    return planted.model(tokens=tokens, vocab_size=len(tokenizer))


def _rename_configuration(path: Path) -> None:
    """What transformers 5 calls rope_parameters and dtype had other names before."""
    config = json.loads(path.read_text())
    config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]
    config |= {"rope_scaling": None, "torch_dtype": config.pop("dtype")}
    path.write_text(json.dumps(config))


def _save_tokenizer(tokenizer: Any, folder: Path) -> None:
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    options = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "add_eos_token": False}
    for name, content in {
        "tokenizer_config": options | _SPECIAL | {"model_max_length": 2048, "pad_token": None},
        "special_tokens_map": _SPECIAL,
        "generation_config": {"_from_model_config": True, "bos_token_id": 1, "eos_token_id": 2},
    }.items():
        (folder / f"{name}.json").write_text(json.dumps(content))


def _adapted(model: Any, base: Path) -> Any:
    torch.manual_seed(0)
    model.name_or_path = str(base)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj"]
    config = LoraConfig(r=4, target_modules=targets, task_type="CAUSAL_LM")
    adapted = get_peft_model(model, config)
    with torch.no_grad():
        for name, weights in adapted.named_parameters():
            if "lora_B" in name:
                weights.normal_(0, _NOISE)
    return adapted
