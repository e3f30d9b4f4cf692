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
    AttentionInterface,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    CohereConfig,
    Gemma2Config,
    Gemma3Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    GraniteConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    MistralConfig,
    Olmo2Config,
    Phi3Config,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2MoeConfig,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
)
from transformers.masking_utils import AttentionMaskInterface, eager_mask

from backend.engine.architectures import decoder, unwrapped
from backend.tasks.vocabulary import object_words

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


EXPERTS: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2}
_EYE: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
}
"""What sees pictures."""

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


def lora_llama(
    seed: int = 0, targets: Sequence[str] = ("q_proj", "k_proj", "v_proj", "o_proj")
) -> Any:
    """A PEFT model with adapters that do something, on q, k, v and o unless told otherwise."""
    torch.manual_seed(seed)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=[*targets], init_lora_weights=False)
    return get_peft_model(grouped_llama(seed), config).eval()


def mistral(seed: int = 0) -> Any:
    """Attention that reaches fewer tokens back than a prompt has."""
    return of_kind(MistralConfig, seed, num_key_value_heads=2, sliding_window=9)


def qwen2(seed: int = 0) -> Any:
    """Biases in the projections, and a sliding window in the upper layers."""
    window = {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 2}
    return of_kind(Qwen2Config, seed, num_key_value_heads=2, **window)


def gemma2(seed: int = 0) -> Any:
    """Norms before and after, windows in every other layer, scores and logits capped."""
    caps = {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0}
    return of_kind(
        Gemma2Config, seed, num_key_value_heads=2, sliding_window=9, query_pre_attn_scalar=8, **caps
    )


def gemma3(seed: int = 0) -> Any:
    """Rotations that differ between layers with a window and layers without."""
    types = ["sliding_attention", "full_attention"] * 2
    window = {"sliding_window": 9, "layer_types": types, "query_pre_attn_scalar": 8}
    return of_kind(Gemma3TextConfig, seed, num_key_value_heads=2, **window)


def phi3(seed: int = 0) -> Any:
    """One matrix for queries, keys and values, with fewer heads of keys and values."""
    return of_kind(Phi3Config, seed, num_key_value_heads=2, head_dim=6, pad_token_id=0)


def experts(seed: int = 0) -> Any:
    """MLPs among which each token chooses, and one that all go through."""
    inside = {"moe_intermediate_size": 16, "shared_expert_intermediate_size": 16, "head_dim": 6}
    return of_kind(Qwen2MoeConfig, seed, num_key_value_heads=2, **EXPERTS, **inside)


def more_experts(seed: int = 0) -> Any:
    """Experts, and queries and keys normed."""
    size = {"moe_intermediate_size": 16}
    return of_kind(Qwen3MoeConfig, seed, num_key_value_heads=2, **EXPERTS, **size)


def with_pictures(seed: int = 0) -> Any:
    """A language model inside one that sees pictures, too."""
    torch.manual_seed(seed)
    types = ["sliding_attention", "full_attention"] * 2
    text = {"num_key_value_heads": 2, "query_pre_attn_scalar": 8, "sliding_window": 9}
    tokens = {"image_token_index": 5, "boi_token_index": 6, "eoi_token_index": 7}
    config = Gemma3Config(
        text_config=SIZE | text | {"layer_types": types},
        vision_config=_EYE,
        mm_tokens_per_image=4,
        **tokens,
    )
    return AutoModelForCausalLM.from_config(config).eval()


def llava(seed: int = 0) -> Any:
    """Another such, of a kind that transformers does not count among language models."""
    torch.manual_seed(seed)
    eye = _EYE | {"model_type": "clip_vision_model"}
    text = SIZE | {"model_type": "llama"}
    config = LlavaConfig(text_config=text, vision_config=eye, image_token_index=5)
    return AutoModelForImageTextToText.from_config(config).eval()


def olmo2(seed: int = 0) -> Any:
    """No norm before attention and MLP, norms after; queries and keys normed across heads."""
    return of_kind(Olmo2Config, seed, num_key_value_heads=2, head_dim=6)


def gpt2(seed: int = 0) -> Any:
    """Learned positions, LayerNorm, and one matrix for queries, keys and values."""
    return of_kind(GPT2Config, seed, n_inner=40, head_dim=6)


def neox(seed: int = 0) -> Any:
    """The MLP beside attention instead of above it; q, k and v interleaved by head."""
    return of_kind(GPTNeoXConfig, seed, head_dim=6)


def neox_in_sequence(seed: int = 0) -> Any:
    """The MLP above attention."""
    return of_kind(GPTNeoXConfig, seed, use_parallel_residual=False, head_dim=6)


def granite(seed: int = 0) -> Any:
    """Named like a Llama and built differently: what a layer adds is halved."""
    return of_kind(GraniteConfig, seed, num_key_value_heads=2, head_dim=6, residual_multiplier=0.5)


def cohere(seed: int = 0) -> Any:
    """Named like a Llama, with the MLP beside attention and no norm before it."""
    return of_kind(CohereConfig, seed, num_key_value_heads=2, head_dim=6)


LLAMAS = {"llama": llama, "grouped": grouped_llama, "lora": lora_llama, "qwen3": qwen3}

STRANGERS = {"granite": granite, "cohere": cohere}
"""Models that the engine cannot take apart."""

OTHERS = {
    "experts": experts,
    "more experts": more_experts,
    "with pictures": with_pictures,
    "llava": llava,
}
"""Models that the engine takes apart, and whose language model or MLPs are not what they seem."""

MAKERS = {
    **LLAMAS,
    "mistral": mistral,
    "qwen2": qwen2,
    "gemma2": gemma2,
    "gemma3": gemma3,
    "phi3": phi3,
    "olmo2": olmo2,
    "gpt2": gpt2,
    "neox": neox,
    "neox in sequence": neox_in_sequence,
    **STRANGERS,
}


def in_float64(model: Any) -> Any:
    """The model in float64 throughout: also norms and attention, which detour through float32.

    Rotations stay: they depend on nothing but the position.
    """
    model.double()
    for module in decoder(model).modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = _norm_of(module)
    unwrapped(model).set_attn_implementation("float64")
    return model


def _norm_of(module: Any) -> Any:
    gemma = type(module).__name__.startswith("Gemma")

    def norm(hidden: Tensor) -> Tensor:
        epsilon = module.eps if gemma else module.variance_epsilon
        scale = torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + epsilon)
        return (module.weight + gemma) * (hidden * scale)

    return norm


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """Attention by its definition: heads of [n, n_heads, seq, d_head]; and its weights."""
    per_head = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(per_head, 1), value.repeat_interleave(per_head, 1)
    scores = query @ key.mT * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if softcap:
        scores = torch.tanh(scores / softcap) * softcap
    weights = (scores + attention_mask).softmax(-1)
    return (weights @ value).transpose(1, 2).contiguous(), weights


AttentionInterface.register("float64", _attend)
AttentionMaskInterface.register("float64", eager_mask)
