"""Where the parts of a layer are, and how they join, in each family of models.

A layer reads the residual stream, projects it to queries, keys and values, attends, projects the
head outputs back (*what attention adds*), and lets an MLP add to that. Families differ in names, in
where they norm, in whether one matrix makes queries, keys and values, and in whether the MLP sees
what attention added. All of that is here; the modules that are called are the model's own, so that
adapters and biases come out right. A model of an unknown family is taken for a Llama, and
`backend.engine.validation` finds out whether that is true.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from backend.core.heads import ModelShape

Projection = Literal["q_proj", "k_proj", "v_proj"]
_ORDER: tuple[Projection, ...] = ("q_proj", "k_proj", "v_proj")

View = Callable[[Tensor], Tensor]
"""A view on what a module gives [..., numbers]: the projected heads [..., n_heads, d_head]."""


@dataclass(frozen=True)
class Architecture:
    """Names of parts, and how a layer puts them together.

    `enter` makes what attention reads of a block and a residual; `leave` makes what leaves of a
    block, the residual that entered and what attention adds; `fused` says where in the output of
    the one module of that name a projection's heads are, if there is one; `norm_after` norms what
    attention adds before the residual takes it, in families that do. Residuals have three
    axes [n, rows, d_model], as the model's own: blocks of experts ask for that.
    """

    enter: Callable[[Any, Tensor], Tensor]
    leave: Callable[[Any, Tensor, Tensor], Tensor]
    layers: str = "layers"
    norm: str = "norm"
    attention: str = "self_attn"
    out: str = "o_proj"
    cache: str = "past_key_values"
    fused: tuple[str, Callable[[Tensor, int, ModelShape], Tensor]] | None = None
    norm_after: str | None = None
    embed_positions: str | None = None
    rotates_by_layer_type: bool = False


def _through_mlp(norm: str) -> Callable[[Any, Tensor, Tensor], Tensor]:
    def leave(block: Any, entering: Tensor, attended: Tensor) -> Tensor:
        residual = entering + attended
        return residual + block.mlp(getattr(block, norm)(residual))

    return leave


def _normed_twice(block: Any, entering: Tensor, attended: Tensor) -> Tensor:
    residual = entering + block.post_attention_layernorm(attended)
    changed = block.mlp(block.pre_feedforward_layernorm(residual))
    return residual + block.post_feedforward_layernorm(changed)


def _normed_after(block: Any, entering: Tensor, attended: Tensor) -> Tensor:
    residual = entering + block.post_attention_layernorm(attended)
    return residual + block.post_feedforward_layernorm(block.mlp(residual))


def _beside_mlp(block: Any, entering: Tensor, attended: Tensor) -> Tensor:
    if not block.use_parallel_residual:
        return _LLAMA.leave(block, entering, attended)
    return entering + attended + block.mlp(block.post_attention_layernorm(entering))


def _in_a_row(flat: Tensor, part: int, shape: ModelShape) -> Tensor:
    """All queries, then all keys, then all values."""
    sizes = shape.n_heads, shape.n_kv_heads, shape.n_kv_heads
    return flat.unflatten(-1, (-1, shape.d_head)).narrow(-2, sum(sizes[:part]), sizes[part])


def _head_by_head(flat: Tensor, part: int, shape: ModelShape) -> Tensor:
    return flat.unflatten(-1, (-1, 3, shape.d_head))[..., part, :]


_LLAMA = Architecture(
    enter=lambda block, residual: block.input_layernorm(residual),
    leave=_through_mlp("post_attention_layernorm"),
)
_GEMMA = replace(_LLAMA, leave=_normed_twice, norm_after="post_attention_layernorm")
_PHI3 = replace(_LLAMA, fused=("qkv_proj", _in_a_row))
_OLMO2 = Architecture(
    enter=lambda block, residual: residual,
    leave=_normed_after,
    norm_after="post_attention_layernorm",
)
_GPT2 = Architecture(
    enter=lambda block, residual: block.ln_1(residual),
    leave=_through_mlp("ln_2"),
    layers="h",
    norm="ln_f",
    attention="attn",
    out="c_proj",
    fused=("c_attn", _in_a_row),
    embed_positions="wpe",
)
_NEOX = replace(
    _LLAMA,
    leave=_beside_mlp,
    norm="final_layer_norm",
    attention="attention",
    out="dense",
    cache="layer_past",
    fused=("query_key_value", _head_by_head),
)

_FAMILIES: Mapping[str, Architecture] = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen2_moe": _LLAMA,
    "qwen3": _LLAMA,
    "qwen3_moe": _LLAMA,
    "phi3": _PHI3,
    "gemma2": _GEMMA,
    "gemma3_text": replace(_GEMMA, rotates_by_layer_type=True),
    "olmo2": _OLMO2,
    "gpt2": _GPT2,
    "gpt_neox": _NEOX,
}
KNOWN = "Llama, Mistral, Qwen 2 and 3, Phi-3, Gemma 2 and 3, OLMo 2, GPT-2, GPT-NeoX (Pythia)"


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer of a model, in the engine's words."""

    family: Architecture
    block: Any
    shape: ModelShape

    @property
    def attention(self) -> Any:
        """The module that attends."""
        return getattr(self.block, self.family.attention)

    @property
    def out(self) -> Any:
        """The output projection: head outputs, flat, to what attention adds."""
        return getattr(self.attention, self.family.out)

    def projection(self, name: Projection) -> tuple[Any, View]:
        """The module that makes queries, keys or values, and where they are in what it gives."""
        if self.family.fused is None:
            d_head = self.shape.d_head
            return getattr(self.attention, name), lambda flat: flat.unflatten(-1, (-1, d_head))
        module, pick = self.family.fused
        part = _ORDER.index(name)
        return getattr(self.attention, module), lambda flat: pick(flat, part, self.shape)

    def project(self, name: Projection, residual: Tensor) -> Tensor:
        """Queries, keys or values of residuals [..., d_model], not yet rotated or normed."""
        module, view = self.projection(name)
        return view(module(self.family.enter(self.block, residual)))

    def attend(self, residual: Tensor, inputs: Mapping[str, Any], cache: Any) -> Tensor:
        """What attention adds to residuals [n, rows, d_model], all its heads together."""
        entered = self.family.enter(self.block, residual)
        attended: Tensor = self.attention(entered, **inputs, **{self.family.cache: cache})[0]
        return attended

    def add_heads(self, heads: Tensor) -> Tensor:
        """What attention adds, of head outputs [..., n_heads, d_head]."""
        added: Tensor = self.out(heads.flatten(-2).contiguous())
        return added

    @property
    def norm_after(self) -> Any:
        """The module that norms what attention adds before the residual takes it, or None."""
        name = self.family.norm_after
        return getattr(self.block, name) if name else None

    def leave(self, entering: Tensor, attended: Tensor) -> Tensor:
        """What leaves the layer, of residuals [n, rows, d_model] and what attention adds."""
        return self.family.leave(self.block, entering, attended)

    def run(self, residual: Tensor, inputs: Mapping[str, Any], cache: Any) -> Tensor:
        """The whole layer."""
        return self.leave(residual, self.attend(residual, inputs, cache))


def unwrapped(model: Any) -> Any:
    """The causal language model itself, out of its PEFT wrapper; its adapters stay active."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def decoder(model: nn.Module) -> Any:
    """The stack of layers inside a causal language model, PEFT-wrapped or not."""
    return unwrapped(model).get_decoder()


def config_of(model: nn.Module) -> Any:
    """The configuration of the language model, also of one inside a wrapper for pictures."""
    return unwrapped(model).config.get_text_config()


def family_of(model: nn.Module) -> Architecture:
    """How this model is built, if `backend.engine.validation` agrees."""
    return _FAMILIES.get(config_of(model).model_type, _LLAMA)


def layers(model: nn.Module) -> list[Layer]:
    """The layers of a model, lowest first."""
    family, shape = family_of(model), shape_of(model)
    return [Layer(family, block, shape) for block in getattr(decoder(model), family.layers)]


def shape_of(model: nn.Module) -> ModelShape:
    """Layers, query heads, key-value heads and head size.

    Raises AttributeError when the layers have no attention that the engine can find.
    """
    family, config = family_of(model), config_of(model)
    blocks = getattr(decoder(model), family.layers)
    attention = getattr(blocks[0], family.attention)
    getattr(attention, family.out)
    n_heads = config.num_attention_heads
    d_head = getattr(attention, "head_dim", None) or config.hidden_size // n_heads
    n_kv_heads = getattr(config, "num_key_value_heads", None) or n_heads
    return ModelShape(len(blocks), n_heads, n_kv_heads, d_head)


def widths(model: nn.Module) -> tuple[int, int]:
    """How many numbers the residual stream and an MLP's inside have."""
    config = config_of(model)
    inner = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None)
    return config.hidden_size, inner or 4 * config.hidden_size


def dtype_of(model: nn.Module) -> torch.dtype:
    """Of the residual stream."""
    dtype: torch.dtype = unwrapped(model).get_input_embeddings().weight.dtype
    return dtype


def device_of(model: nn.Module) -> torch.device:
    """Where the model takes its token ids."""
    device: torch.device = unwrapped(model).get_input_embeddings().weight.device
    return device


def embed(model: nn.Module, input_ids: Tensor, tokens: Tensor) -> Tensor:
    """What enters the first layer, of token ids [n, seq] and where they stand [n or 1, seq]."""
    hidden: Tensor = unwrapped(model).get_input_embeddings()(input_ids)
    positions = family_of(model).embed_positions
    return hidden + getattr(decoder(model), positions)(tokens) if positions else hidden


def kind_of_rotation(model: nn.Module, layer: int) -> str | None:
    """The kind of layers that rotate like this one; None if all layers rotate alike."""
    if not family_of(model).rotates_by_layer_type:
        return None
    kind: str = config_of(model).layer_types[layer]
    return kind


def rotations(model: nn.Module, hidden: Tensor, tokens: Tensor, kind: str | None) -> Any:
    """How layers of a kind rotate queries and keys at `tokens` [n or 1, rows]; None if not."""
    stack = decoder(model)
    if not hasattr(stack, "rotary_emb"):
        return None
    return stack.rotary_emb(hidden, tokens, *([] if kind is None else [kind]))


def window(model: nn.Module, layer: int) -> int | None:
    """How many tokens back, itself included, a layer sees; None if all."""
    config = config_of(model)
    types = getattr(config, "layer_types", None)
    slides = types is None or types[layer] == "sliding_attention"
    return getattr(config, "sliding_window", None) if slides else None


def last_logits(model: nn.Module, input_ids: Tensor) -> Tensor:
    """Logits at the last token [n, vocab] of a plain run of the model."""
    logits: Tensor = model(input_ids=input_ids, use_cache=False, logits_to_keep=1).logits[:, -1]
    return logits


def logits_of(model: nn.Module, hidden: Tensor) -> Tensor:
    """The logits [..., vocab] read from residuals [..., d_model] that left the last layer."""
    return _capped(model, unembed(model, final_norm(model)(hidden)))


def logits_of_tokens(model: nn.Module, hidden: Tensor, ids: Tensor) -> Tensor:
    """`logits_of` [n, k, d_model], of each prompt's token ids [n, m] only: [n, k, m].

    Where a plain matrix makes them, no other token is multiplied.
    """
    module = unwrapped(model).get_output_embeddings()
    if type(module) is not nn.Linear:
        return logits_of(model, hidden).gather(-1, ids[:, None].expand(-1, hidden.shape[1], -1))
    logits = final_norm(model)(hidden) @ module.weight[ids].transpose(1, 2)
    return _capped(model, logits if module.bias is None else logits + module.bias[ids][:, None])


def _capped(model: nn.Module, logits: Tensor) -> Tensor:
    cap = logit_cap(model)
    return torch.tanh(logits / cap) * cap if cap else logits


def final_norm(model: nn.Module) -> Any:
    """The module that norms what left the last layer."""
    return getattr(decoder(model), family_of(model).norm)


def unembed(model: nn.Module, normed: Tensor) -> Tensor:
    """The logits [..., vocab] of normed residuals [..., d_model], before a cap."""
    logits: Tensor = unwrapped(model).get_output_embeddings()(normed)
    return logits


def logit_cap(model: nn.Module) -> float | None:
    """What the model's logits are kept below (Gemma 2), if anything."""
    cap: float | None = getattr(config_of(model), "final_logit_softcapping", None)
    return cap
