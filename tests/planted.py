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
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from backend.core.heads import Head
from tests import tiny

LABELS = "ABCDEFGH"
OBJECTS = ("apple", "bell", "book", "brain", "card", "coat", "cup", "drum")
CIRCUIT = {
    "A": (Head(3, 1), Head(3, 3)),
    "B": (Head(2, 0),),
    "C": (Head(1, 2),),
    "D": (Head(0, 1),),
}

N_HEADS, D_HEAD = 4, 16
UNROTATED = (*range(1, 8), *range(9, 16))
"""Of a head's dimensions; with so large a base, only the first pair turns by position."""
CONSTANT, SHARP, CLOSE, LOGIT = 100.0, 30.0, 400.0, 8.0

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

Terms = dict[tuple[str, int], float]
"""(feature, dimension of the head) -> weight."""


def tokenizer() -> Any:
    """The words of the planted model."""
    return tiny.word_tokenizer(LABELS, OBJECTS)


def model(
    seed: int = 0, tokens: Mapping[str, int] = WORD_TOKENS, vocab_size: int = len(WORDS)
) -> LlamaForCausalLM:
    """The planted model; `seed` of the heads that do nothing, `tokens` of the words it knows."""
    torch.manual_seed(seed)
    planted = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=len(FEATURES),
            intermediate_size=4,
            num_hidden_layers=4,
            num_attention_heads=N_HEADS,
            head_dim=D_HEAD,
            rope_parameters={"rope_type": "default", "rope_theta": 1e24},
            tie_word_embeddings=False,
            initializer_range=0.04,
        )
    ).eval()
    with torch.no_grad():
        for name, weights in planted.named_parameters():
            if "norm" in name:
                weights.fill_(CONSTANT / len(FEATURES) ** 0.5)
            elif "self_attn" not in name:
                weights.zero_()
            elif "q_proj" in name or "k_proj" in name or "v_proj" in name:
                weights[:, FEATURES.index("constant")] = 0
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
    embedding[:, FEATURES.index("constant")] = CONSTANT
    for word, token in tokens.items():
        for feature in features.get(word, []):
            embedding[token, FEATURES.index(feature)] = 1
        if word in OBJECTS:
            planted.lm_head.weight[token, FEATURES.index(f"answer {word}")] = LOGIT


def _plant_ordinals(planted: Any) -> None:
    keys: Terms = {("The", 1): SHARP, ("comma", 1): SHARP}
    _plant(planted, Head(0, 1), {("constant", 1): 1}, keys, {"The": "ordinal"})
    mlp, ordinal = planted.model.layers[0].mlp, FEATURES.index("ordinal")
    steep = 50.0  # silu(steep * x) is steep * x for the ordinals' codes, all well above 0
    mlp.gate_proj.weight[0, ordinal] = steep
    mlp.up_proj.weight[0, ordinal] = 1
    mlp.down_proj.weight[FEATURES.index("ordinal squared"), 0] = 1 / steep


def _plant_stop(planted: Any) -> None:
    keys: Terms = {("The", 1): SHARP, ("stop", 1): 2 * SHARP}
    _plant(planted, Head(0, 2), {("constant", 1): 1}, keys, {"stop": "after stop"})


def _plant_detector(planted: Any) -> None:
    flag, *codes = UNROTATED
    queries: Terms = {("constant", flag): 1}
    keys: Terms = {("after stop", flag): -2 * SHARP}
    for label, code in zip(LABELS, codes, strict=False):
        queries[f"label {label}", code] = 1
        keys[f"label {label}", code] = SHARP
    _plant(planted, Head(1, 2), queries, keys, {"ordinal": "found ordinal"})


def _plant_transmitter(planted: Any) -> None:
    keys: Terms = {("is label", 1): SHARP, ("after stop", 1): SHARP}
    values = {"found ordinal": "wanted ordinal"}
    _plant(planted, Head(2, 0), {("constant", 1): 1}, keys, values)


def _plant_fetcher(planted: Any, head: Head) -> None:
    """Scores are -(wanted - ordinal)^2, up to what is the same for all objects."""
    queries: Terms = {("constant", 1): 1, ("wanted ordinal", 2): 2, ("constant", 3): -1}
    keys: Terms = {
        ("is object", 1): 2 * CLOSE,
        ("ordinal", 2): CLOSE,
        ("ordinal squared", 3): CLOSE,
    }
    values = {f"object {word}": f"answer {word}" for word in OBJECTS}
    _plant(planted, head, queries, keys, values, share=0.5)


def _plant(
    planted: Any,
    head: Head,
    queries: Terms,
    keys: Terms,
    copied: dict[str, str],
    share: float = 1,
) -> None:
    """Attend by `queries` and `keys`, and write features found there into others."""
    attention = planted.model.layers[head.layer].self_attn
    dims = slice(head.index * D_HEAD, (head.index + 1) * D_HEAD)
    q, k, v = (
        getattr(attention, name).weight[dims].zero_() for name in ("q_proj", "k_proj", "v_proj")
    )
    o = attention.o_proj.weight[:, dims].zero_()
    for terms, weights, scale in ((queries, q, D_HEAD**0.5), (keys, k, 1)):
        for (feature, dim), weight in terms.items():
            amount = CONSTANT if feature == "constant" else 1
            weights[dim, FEATURES.index(feature)] = scale * weight / amount
    for dim, (source, target) in enumerate(copied.items()):
        v[dim, FEATURES.index(source)] = 1
        o[FEATURES.index(target), dim] = share


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
