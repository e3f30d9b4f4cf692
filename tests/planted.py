"""A Llama built by hand that tracks entities with a circuit we know.

Every token carries one large constant, so that norms hardly depend on the rest and act as a fixed
scale. All else is features, one number each, which heads read and write:

- L0.1 (D) attends evenly to `The` and all commas so far, and writes the share of `The`: 1 / k in
  the k-th segment, a code of the ordinal; the MLP adds its square. L0.2 writes whether a full stop
  has been passed.
- L1.2 (C) attends from a label to the same label before the full stop, and copies its ordinal.
- L2.0 (B) attends to the label after the full stop, and copies the ordinal found there.
- L3.1, L3.3 (A) attend to the object whose ordinal is closest to that one, and half of the answer
  comes from each.

All other heads have small random weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from backend.core.heads import Head
from tests import planting, tiny
from tests.planting import D_HEAD, UNROTATED, Terms, plant

LABELS = "ABCDEFGH"
OBJECTS = ("apple", "bell", "book", "brain", "card", "coat", "cup", "drum")
CIRCUIT = {
    "A": (Head(3, 1), Head(3, 3)),
    "B": (Head(2, 0),),
    "C": (Head(1, 2),),
    "D": (Head(0, 1),),
}

SHARP, CLOSE, LOGIT = 30.0, 400.0, 8.0

FEATURES = [
    *("constant", "The", "comma", "stop", "is label", "is object"),
    *("ordinal", "ordinal squared", "after stop", "found ordinal", "wanted ordinal"),
    *(f"label {label}" for label in LABELS),
    *(f"object {word}" for word in OBJECTS),
    *(f"answer {word}" for word in OBJECTS),
    "spare",
]
WORDS = [*tiny.FRAME, *LABELS, *OBJECTS]
WORD_TOKENS = {word: token for token, word in enumerate(WORDS)}


def tokenizer() -> Any:
    """The words of the planted model."""
    return tiny.word_tokenizer(LABELS, OBJECTS)


def model(
    seed: int = 0, tokens: Mapping[str, int] = WORD_TOKENS, vocab_size: int = len(WORDS)
) -> LlamaForCausalLM:
    """The planted model; `seed` of the heads that do nothing, `tokens` of the words it knows."""
    planted = planting.idle_llama(FEATURES, vocab_size, n_layers=4, seed=seed)
    with torch.no_grad():
        _embed(planted, tokens)
        _plant_ordinals(planted)
        _plant_stop(planted)
        _plant_detector(planted)
        _plant_transmitter(planted)
        for head in CIRCUIT["A"]:
            _plant_fetcher(planted, head)
    return planted


def _embed(planted: Any, tokens: Mapping[str, int]) -> None:
    embedding = planted.model.embed_tokens.weight
    features = {"The": ["The"], ",": ["comma"], ".": ["stop"]}
    features |= {label: ["is label", f"label {label}"] for label in LABELS}
    features |= {word: ["is object", f"object {word}"] for word in OBJECTS}
    for word, token in tokens.items():
        for feature in features.get(word, []):
            embedding[token, FEATURES.index(feature)] = 1
        if word in OBJECTS:
            planted.lm_head.weight[token, FEATURES.index(f"answer {word}")] = LOGIT


def _plant_ordinals(planted: Any) -> None:
    keys: Terms = {("The", 1): SHARP, ("comma", 1): SHARP}
    plant(planted, FEATURES, Head(0, 1), {("constant", 1): 1}, keys, {"The": "ordinal"})
    mlp, ordinal = planted.model.layers[0].mlp, FEATURES.index("ordinal")
    steep = 50.0  # silu(steep * x) is steep * x for the ordinals' codes, all well above 0
    mlp.gate_proj.weight[0, ordinal] = steep
    mlp.up_proj.weight[0, ordinal] = 1
    mlp.down_proj.weight[FEATURES.index("ordinal squared"), 0] = 1 / steep


def _plant_stop(planted: Any) -> None:
    keys: Terms = {("The", 1): SHARP, ("stop", 1): 2 * SHARP}
    plant(planted, FEATURES, Head(0, 2), {("constant", 1): 1}, keys, {"stop": "after stop"})


def _plant_detector(planted: Any) -> None:
    flag, *codes = UNROTATED
    queries: Terms = {("constant", flag): 1}
    keys: Terms = {("after stop", flag): -2 * SHARP}
    for label, code in zip(LABELS, codes, strict=False):
        queries[f"label {label}", code] = 1
        keys[f"label {label}", code] = SHARP
    plant(planted, FEATURES, Head(1, 2), queries, keys, {"ordinal": "found ordinal"})


def _plant_transmitter(planted: Any) -> None:
    keys: Terms = {("is label", 1): SHARP, ("after stop", 1): SHARP}
    values = {"found ordinal": "wanted ordinal"}
    plant(planted, FEATURES, Head(2, 0), {("constant", 1): 1}, keys, values)


def _plant_fetcher(planted: Any, head: Head) -> None:
    """Scores are -(wanted - ordinal)^2, up to what is the same for all objects."""
    queries: Terms = {("constant", 1): 1, ("wanted ordinal", 2): 2, ("constant", 3): -1}
    keys: Terms = {
        ("is object", 1): 2 * CLOSE,
        ("ordinal", 2): CLOSE,
        ("ordinal squared", 3): CLOSE,
    }
    values = {f"object {word}": f"answer {word}" for word in OBJECTS}
    plant(planted, FEATURES, head, queries, keys, values, share=0.5)


def accuracy(logits: Tensor, answer_ids: Any) -> float:
    """Share of right answers."""
    return float((logits.argmax(-1) == torch.tensor(answer_ids)).double().mean())


def guessing(seed: int = 0) -> LlamaForCausalLM:
    """The planted model without its fetchers: its answer is the object that noise prefers."""
    blind = model(seed)
    with torch.no_grad():
        for head in CIRCUIT["A"]:
            dims = slice(head.index * D_HEAD, (head.index + 1) * D_HEAD)
            blind.model.layers[head.layer].self_attn.o_proj.weight[:, dims] = 0
    return blind


def saved(folder: Path) -> str:
    """The model and its tokenizer in a folder, to be loaded from there."""
    model().save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return str(folder)
