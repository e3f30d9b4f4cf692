"""Tiny random models and a word-level tokenizer, for tests and benchmarks."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from backend.hooks import decoder
from backend.tasks import object_words

SIZE: dict[str, Any] = {
    "vocab_size": 160,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 8,
    "initializer_range": 0.3,
}
"""Weights so large that every head of a random model does something."""


FRAME = ("<unk>", "The", "the", "is", "in", "Box", "contains", ",", ".")


def word_tokenizer(
    labels: Sequence[str] = string.ascii_uppercase, objects: Sequence[str] | None = None
) -> PreTrainedTokenizerFast:
    """Every word and mark of the task is one token; ids run through frame, labels and objects."""
    words = [*FRAME, *labels, *(object_words() if objects is None else objects)]
    vocabulary = {word: token for token, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


def llama(seed: int = 0, **changes: Any) -> LlamaForCausalLM:
    """A small random Llama in float32; `changes` to its configuration."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**(SIZE | changes))).eval()


def grouped_llama(seed: int = 0) -> LlamaForCausalLM:
    """Two query heads to a key-value head."""
    return llama(seed, num_key_value_heads=2)


def qwen3(seed: int = 0) -> Qwen3ForCausalLM:
    """Queries and keys normed, and a head size that is not d_model / n_heads."""
    torch.manual_seed(seed)
    return Qwen3ForCausalLM(Qwen3Config(**(SIZE | {"num_key_value_heads": 2}))).eval()


def of_kind(config: Any, seed: int = 0, **changes: Any) -> Any:
    """A small random model of another configuration class, with biases where it has them."""
    torch.manual_seed(seed)
    small = AutoModelForCausalLM.from_config(config(**(SIZE | changes))).eval()
    with torch.no_grad():
        for name, weights in small.named_parameters():
            if name.endswith("bias"):
                weights.normal_(0, 0.3)
    return small


def lora_llama(seed: int = 0) -> Any:
    """A PEFT model with adapters that do something on q, k, v and o."""
    torch.manual_seed(seed)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj"]
    config = LoraConfig(r=4, lora_alpha=8, target_modules=targets, init_lora_weights=False)
    return get_peft_model(grouped_llama(seed), config).eval()


MAKERS = {"llama": llama, "grouped": grouped_llama, "lora": lora_llama, "qwen3": qwen3}


def in_float64(model: Any) -> Any:
    """The model in float64 throughout: also norms and rotations, which detour through float32."""
    model.double()
    for module in decoder(model).modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = _norm_of(module)
    rotary = decoder(model).rotary_emb
    frequencies = rotary.inv_freq.double()

    def rotate(_: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        angles = (position_ids[..., None].double() * frequencies).repeat(1, 1, 2)
        return angles.cos(), angles.sin()

    rotary.forward = rotate
    return model


def _norm_of(module: Any) -> Any:
    def norm(hidden: Tensor) -> Tensor:
        scale = torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + module.variance_epsilon)
        return module.weight * (hidden * scale)

    return norm
