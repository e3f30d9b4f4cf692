"""What a model's files say about its shape and words, without loading it (no torch)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from backend.core.components import Component
from backend.core.errors import UserError
from backend.core.heads import ModelShape
from backend.models import elsewhere
from backend.models.model_files import CONFIG, is_adapter, read_object
from backend.models.registry import Entry, Kind, base_of
from backend.models.weights import config_folder

_SYNONYMS = {
    "num_hidden_layers": ("num_hidden_layers", "n_layer"),
    "num_attention_heads": ("num_attention_heads", "n_head"),
    "hidden_size": ("hidden_size", "n_embd"),
}


@dataclass(frozen=True)
class Blueprint:
    """A model's shape, how many words it knows, and a digest of them if its files have them."""

    shape: ModelShape
    n_words: int
    words: str | None = None


def blueprint(entry: Entry) -> Blueprint | None:
    """The blueprint of a model whose configuration is on this machine, or on the cluster that was
    asked; None of any other."""
    if entry.kind is Kind.remote:
        there = elsewhere.known().get(entry.name)
        return there.blueprint if there else None
    source = entry.source
    try:
        if isinstance(source, Path) and is_adapter(source):
            source = base_of(source)
        folder = config_folder(source)
        return _read(folder, (folder / CONFIG).stat().st_mtime_ns) if folder else None
    except (UserError, OSError):
        return None


def shape_misfit(
    source: ModelShape,
    target: ModelShape,
    names: tuple[str, str],
    part: Component = Component.output,
) -> str | None:
    """Why heads of the source do not fit into the target; None if they do."""
    counts = [
        ("layers", source.n_layers, target.n_layers),
        ("heads in a layer", source.n_heads, target.n_heads),
        ("numbers in a head", source.d_head, target.d_head),
    ]
    if part in (Component.k, Component.v):
        counts.append(("key-value heads in a layer", source.n_kv_heads, target.n_kv_heads))
    for what, here, there in counts:
        if here != there:
            return f"{names[0]} has {here} {what}, {names[1]} has {there}."
    return None


def misfit(
    source: Blueprint, target: Blueprint, names: tuple[str, str], part: Component = Component.output
) -> str | None:
    """Why two models cannot be compared head by head, as far as their files tell."""
    if reason := shape_misfit(source.shape, target.shape, names, part):
        return reason
    if source.words and target.words and source.words != target.words:
        return f"The tokenizers of {names[0]} and {names[1]} have different vocabularies."
    return None


@lru_cache(maxsize=64)
def _read(folder: Path, _: int) -> Blueprint | None:
    try:
        config = read_object(folder / CONFIG)
        config = config.get("text_config", config)
        n_heads = _number(config, "num_attention_heads")
        shape = ModelShape(
            _number(config, "num_hidden_layers"),
            n_heads,
            int(config.get("num_key_value_heads") or n_heads),
            int(config.get("head_dim") or _number(config, "hidden_size") // n_heads),
        )
        return Blueprint(shape, int(config["vocab_size"]), _words(folder))
    except (UserError, ArithmeticError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _number(config: Mapping[str, Any], name: str) -> int:
    old, new = _SYNONYMS[name]
    return int(config[old] if old in config else config[new])


def _words(folder: Path) -> str | None:
    """A digest of the vocabulary in tokenizer.json; tokens added to it are in no prompt."""
    try:
        tokenizer = read_object(folder / "tokenizer.json")
        words = tokenizer["model"]["vocab"]
        if isinstance(words, list):  # Unigram: pairs of a word and its score
            words = {word: number for number, (word, _) in enumerate(words)}
        return sha256(json.dumps(words, sort_keys=True).encode()).hexdigest()
    except (UserError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
