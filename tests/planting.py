"""How heads are planted in a Llama whose residual stream is features, one number each.

Every token carries one large constant, so that norms hardly depend on the rest and act as a fixed
scale. With so large a base, only the first pair of a head's dimensions turns by position.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from backend.core.heads import Head

N_HEADS, D_HEAD = 4, 16
TURNED = (0, 8)
UNROTATED = (*range(1, 8), *range(9, 16))
CONSTANT = 100.0

Terms = dict[tuple[str, int], float]
"""(feature, dimension of the head) -> weight."""


def idle_llama(
    features: Sequence[str], vocab_size: int, n_layers: int, seed: int
) -> LlamaForCausalLM:
    """Every head has small random weights that no constant reaches, and nothing else is there."""
    torch.manual_seed(seed)
    idle = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=len(features),
            intermediate_size=4,
            num_hidden_layers=n_layers,
            num_attention_heads=N_HEADS,
            head_dim=D_HEAD,
            rope_parameters={"rope_type": "default", "rope_theta": 1e24},
            tie_word_embeddings=False,
            initializer_range=0.04,
        )
    ).eval()
    with torch.no_grad():
        for name, weights in idle.named_parameters():
            if "norm" in name:
                weights.fill_(CONSTANT / len(features) ** 0.5)
            elif "self_attn" not in name:
                weights.zero_()
            elif "q_proj" in name or "k_proj" in name or "v_proj" in name:
                weights[:, features.index("constant")] = 0
        embedding: Any = idle.model.embed_tokens.weight
        embedding[:, features.index("constant")] = CONSTANT
    return idle


@torch.no_grad()
def plant(
    model: nn.Module,
    features: Sequence[str],
    head: Head,
    queries: Terms,
    keys: Terms,
    copied: Mapping[str, str],
    share: float = 1,
) -> None:
    """Attend by `queries` and `keys`, and write features found there into others."""
    whole: Any = model
    attention = whole.model.layers[head.layer].self_attn
    dims = slice(head.index * D_HEAD, (head.index + 1) * D_HEAD)
    q, k, v = (
        getattr(attention, name).weight[dims].zero_() for name in ("q_proj", "k_proj", "v_proj")
    )
    o = attention.o_proj.weight[:, dims].zero_()
    for terms, weights, scale in ((queries, q, D_HEAD**0.5), (keys, k, 1)):
        for (feature, dim), weight in terms.items():
            amount = CONSTANT if feature == "constant" else 1
            weights[dim, features.index(feature)] = scale * weight / amount
    for dim, (source, target) in enumerate(copied.items()):
        v[dim, features.index(source)] = 1
        o[features.index(target), dim] = share
