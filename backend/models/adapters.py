"""A LoRA adapter put on a model, and the proof that all of it is there.

An adapter whose weights carry other names than the model's fits nowhere, and what is left is the
base. So weights are counted both ways: each of the file's must land, and each of the adapter's
places must be filled from the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import safe_open
from torch import Tensor, nn

from backend.core.errors import UserError
from backend.engine.architectures import device_of, last_logits
from backend.models.adapter_kinds import adapter_config, check_numbers
from backend.models.model_files import ADAPTER_WEIGHTS

_N_TOKENS = 16
_EMBEDDINGS = ("embed_tokens.weight", "lm_head.weight", "wte.weight", "embed_in.weight",
               "embed_out.weight")  # fmt: skip


@dataclass(frozen=True)
class Landed:
    """How much of an adapter is in a model: its weights, and how far it moves the logits at most.

    moves: the largest absolute change of a logit on a fixed short input.
    """

    n_weights: int
    moves: float

    def __str__(self) -> str:
        moves = f"moves the logits by up to {self.moves:.2g}" if self.moves else "changes nothing"
        return f"adapter: {self.n_weights} of {self.n_weights} weights, {moves}"


def spares_its_base(adapter: Path, names: Mapping[str, Any]) -> bool:
    """Whether an adapter with weights of these names leaves those of its base as they are."""
    about = adapter_config(adapter)
    copied = [f".{name}." for name in about.get("modules_to_save") or ()]
    return about.get("bias", "none") == "none" and all(
        ".lora_" in name or any(part in name for part in copied) for name in names
    )


def put_on(model: nn.Module, adapter: Path) -> tuple[nn.Module, Landed]:
    """The model with the adapter on its modules, in the numbers that it has.

    Raises UserError for an adapter of another kind, one that does not fit as a whole, and one that
    makes the logits something else than numbers.
    """
    about, weights = adapter_config(adapter), _weights(adapter)
    check_numbers(
        adapter, about, max((max(w.shape, default=0) for w in weights.values()), default=0)
    )
    _check_sizes(model, adapter, weights)
    without = _logits(model)
    dtype = next(model.parameters()).dtype
    known = {field.name for field in fields(LoraConfig) if field.init}
    config = LoraConfig(**{name: value for name, value in about.items() if name in known})
    wrapped = PeftModel(model, config, autocast_adapter_dtype=False)
    for place in _places(wrapped).values():
        place.fill_(torch.nan)
    try:
        lost = set_peft_model_state_dict(wrapped, weights).unexpected_keys
    except KeyError as error:
        raise UserError(_lacks(adapter, str(error), 1, len(weights))) from error
    if lost:
        raise UserError(_fits_not(adapter, sorted(lost), len(weights), model))
    places = _places(wrapped)
    if empty := sorted(name for name, place in places.items() if place.isnan().all()):
        raise UserError(_lacks(adapter, empty[0], len(empty), len(places)))
    adapted: nn.Module = wrapped.get_base_model().eval().requires_grad_(False)
    for name, weight in adapted.named_parameters():
        if "lora_" in name:
            weight.data = weight.data.to(dtype)
    moves = (_logits(adapted) - without).abs().max().item()
    if not moves < float("inf"):
        raise UserError(
            f"With the adapter {adapter}, the model's logits are not numbers in "
            f"{str(dtype).removeprefix('torch.')}. Load it in float32 or bfloat16, or choose "
            "another adapter."
        )
    return adapted, Landed(len(weights), moves)


def _weights(adapter: Path) -> dict[str, Tensor]:
    """The adapter's weights, in memory of their own."""
    with safe_open(adapter / ADAPTER_WEIGHTS, framework="pt", backend="pread") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def _places(wrapped: PeftModel) -> dict[str, Tensor]:
    """The adapter's places for weights in the model, named as in files."""
    found: dict[str, Tensor] = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    return found


@torch.no_grad()
def _logits(model: nn.Module) -> Tensor:
    """After a short text of words that are the same for every model of as many: [1, n_words]."""
    words = torch.Generator().manual_seed(0)
    n_words = model.get_input_embeddings().weight.shape[0]  # type: ignore[operator]
    ids = torch.randint(n_words, (1, _N_TOKENS), generator=words).to(device_of(model))
    return last_logits(model, ids).float()


def _check_sizes(model: Any, adapter: Path, weights: Mapping[str, Tensor]) -> None:
    n_words = model.get_input_embeddings().weight.shape[0]
    for name, weight in weights.items():
        if name.endswith(_EMBEDDINGS) and weight.ndim == 2 and weight.shape[0] != n_words:
            raise UserError(
                f"The adapter {adapter} holds embeddings of {weight.shape[0]} words, and its base "
                f"has {n_words}: it was trained after `resize_token_embeddings`. Save the base "
                f"after `resize_token_embeddings({weight.shape[0]})` with the adapter's tokenizer, "
                "and add the adapter with that base."
            )


def _fits_not(adapter: Path, lost: list[str], n: int, model: nn.Module) -> str:
    fit = f"only {n - len(lost)}" if len(lost) < n else "none"
    here = next(name for name, _ in model.named_modules() if name.count(".") > 2)
    return (
        f"Of the {n} weights of the adapter {adapter}, {fit} fit its base: {lost[0]} has no place "
        f"in a model with {here}. It was made for another model; add it with that one: `python -m "
        f"backend add NAME BASE --adapter {adapter}`."
    )


def _lacks(adapter: Path, name: str, n_empty: int, n: int) -> str:
    return (
        f"Of the {n} weights that the adapter {adapter} needs, {n_empty} are not in its file, such "
        f"as {name}. Put the adapter_config.json there that belongs to the weights."
    )
