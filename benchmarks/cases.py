"""The models that the benchmark runs on, and how much it asks of them."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import torch

from backend.core.heads import Head, ModelShape
from backend.engine.architectures import shape_of
from backend.models import catalogue
from backend.models.loading import LoadedModel, load_model
from backend.tasks.circuit import Circuit
from backend.tasks.entity_tracking import ENTITY_TRACKING
from tests import tiny, trained

TWELVE_LAYERS: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_key_value_heads": 12,
    "head_dim": 64,
    "initializer_range": 0.04,
}
_LLAMA_7B: dict[str, Any] = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "head_dim": 128,
    "initializer_range": 0.02,
}
_SMOLLM2: dict[str, Any] = {
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "head_dim": 64,
    "initializer_range": 0.04,
}
_PAPERS_SIZES = {"A": 40, "B": 7, "C": 20, "D": 5}
"""Heads in the published circuit of Llama-7B."""
_SIZES = {"A": 8, "B": 6, "C": 4, "D": 4}
_DEPTHS = {"A": (0.6, 1.0), "B": (0.5, 0.8), "C": (0.3, 0.6), "D": (0.1, 0.4)}
"""Where in a model the heads of a random circuit are, as shares of its layers."""
SEVEN_B_NEEDS_GB = 80


@dataclass(frozen=True, eq=False)
class Case:
    """A model with a circuit, and on how many prompts what is measured.

    n_obvious prompts and n_senders heads are what path patching's obvious way is timed on.
    """

    name: str
    loaded: LoadedModel
    circuit: Circuit
    n_prompts: int
    n_clicked: int
    n_obvious: int
    n_senders: int

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.loaded.model.parameters()).device

    @property
    def receivers(self) -> dict[str, tuple[Head, ...]]:
        """Whom the senders of each stage feed, by the group's key."""
        groups = self.circuit.task.groups
        return {g.key: tuple(h for key in g.into for h in self.circuit.heads(key)) for g in groups}


def bundled(device: torch.device) -> Case:
    """The bundled base and its circuit."""
    loaded = load_model("base")
    loaded = replace(loaded, model=loaded.model.to(device))
    return Case("the bundled base", loaded, catalogue.circuit("base"), 200, 200, 200, 4)


def small(device: torch.device) -> Case:
    """A random Llama of 12 layers, 12 heads and d_model 768."""
    return _random("12 layers, d_model 768", TWELVE_LAYERS, _SIZES, device, (20, 20, 20, 4))


def smollm2(device: torch.device) -> Case:
    """A random Llama of SmolLM2-135M's size, with grouped-query attention."""
    return _random("SmolLM2-135M’s size", _SMOLLM2, _SIZES, device, (20, 50, 4, 2))


def seven_b(device: torch.device) -> Case:
    """A random Llama of Llama-7B's size."""
    return _random("Llama-7B’s size", _LLAMA_7B, _PAPERS_SIZES, device, (300, 200, 20, 2))


def rehearsal(device: torch.device) -> Case:
    """What `seven_b` does, on a model so small that it takes seconds anywhere."""
    return _random(
        "a rehearsal of Llama-7B’s size", {"vocab_size": 600}, _SIZES, device, (6, 4, 3, 2)
    )


CASES = {"bundled": bundled, "small": small, "smollm2": smollm2, "7b": seven_b}


def _random(
    name: str,
    size: Mapping[str, Any],
    heads: Mapping[str, int],
    device: torch.device,
    counts: tuple[int, int, int, int],
) -> Case:
    tokenizer = trained.sentencepiece()
    with torch.device(device):
        model = tiny.llama(**({"vocab_size": len(tokenizer)} | dict(size))).requires_grad_(False)
    shape = shape_of(model)
    loaded = LoadedModel(name, model, tokenizer, shape)
    return Case(name, loaded, random_circuit(shape, heads), *counts)


def random_circuit(shape: ModelShape, sizes: Mapping[str, int]) -> Circuit:
    """As many heads as there are, up to `sizes`, at the depths where the paper finds each group."""
    rng = random.Random(0)
    groups = {}
    for group, (top, bottom) in _DEPTHS.items():
        layers = range(int(top * shape.n_layers), max(1, int(bottom * shape.n_layers)))
        heads = [Head(*place) for place in product(layers, range(shape.n_heads))]
        groups[group] = tuple(sorted(rng.sample(heads, min(sizes[group], len(heads)))))
    return Circuit.of(ENTITY_TRACKING, groups, "random")
