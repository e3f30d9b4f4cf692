"""Load a causal language model and its tokenizer: bundled, from a folder or from the hub.

Safetensors only, no remote code, adapters with peft. Every failure is a UserError that says what
to do next.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from peft import PeftConfig, PeftModel
from safetensors import SafetensorError
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from backend.anatomy import KNOWN, shape_of
from backend.catalogue import resolve
from backend.circuit import ModelShape
from backend.errors import UserError

transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()

_LOAD_ERRORS = (
    OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, IndexError,
    json.JSONDecodeError, SafetensorError, HfHubHTTPError, HFValidationError,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model ready to run: in float32, in evaluation mode, on the GPU when there is one."""

    name: str
    model: nn.Module
    tokenizer: Any
    shape: ModelShape


def load_model(name: str) -> LoadedModel:
    """Load a bundled model, a folder or a hub model; a PEFT adapter comes with its base.

    Raises UserError when the name is unknown, the files are damaged or unsafe, or the model is
    not of the Llama kind.
    """
    place = resolve(name)
    try:
        model, tokenizer = _adapter(place) if _is_adapter(place) else _whole(place)
    except _LOAD_ERRORS as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise UserError(
            f"The model “{name}” cannot be loaded: {reason} Check that the folder holds "
            "config.json, model.safetensors and tokenizer.json that belong together, or choose "
            "another model."
        ) from error
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = model.to(device=device, dtype=torch.float32).eval().requires_grad_(False)
    return LoadedModel(name, model, tokenizer, _checked_shape(name, model, tokenizer))


def _is_adapter(place: Path | str) -> bool:
    if isinstance(place, Path):
        return (place / "adapter_config.json").is_file()
    from huggingface_hub import file_exists

    return file_exists(place, "adapter_config.json")


def _whole(place: Path | str) -> tuple[nn.Module, Any]:
    model, report = AutoModelForCausalLM.from_pretrained(
        place,
        use_safetensors=True,
        trust_remote_code=False,
        dtype=torch.float32,
        attn_implementation="eager",
        output_loading_info=True,
    )
    if report["missing_keys"]:
        raise ValueError(f"{len(report['missing_keys'])} weights are missing from its files.")
    return model, AutoTokenizer.from_pretrained(place, use_fast=True, trust_remote_code=False)


def _adapter(place: Path | str) -> tuple[nn.Module, Any]:
    """An adapter on its base; a base named like a sibling folder is that folder."""
    config = PeftConfig.from_pretrained(str(place))
    base_name = str(config.base_model_name_or_path)
    sibling = place.parent / Path(base_name).name if isinstance(place, Path) else None
    base, tokenizer = _whole(sibling if sibling and sibling.is_dir() else resolve(base_name))
    if isinstance(place, Path) and not (place / "adapter_model.safetensors").is_file():
        raise ValueError(
            "adapter_model.safetensors is missing; other formats are not safe to read."
        )
    return PeftModel.from_pretrained(base, str(place)).get_base_model(), tokenizer


def _checked_shape(name: str, model: nn.Module, tokenizer: Any) -> ModelShape:
    try:
        shape = shape_of(model)
    except (AttributeError, IndexError, TypeError) as error:
        raise UserError(
            f"“{name}” is built in a way that is not known here: its attention cannot be found. "
            f"Choose a model of one of these families: {KNOWN}."
        ) from error
    if not tokenizer.is_fast:
        raise UserError(
            f"The tokenizer of “{name}” cannot say where each token stands in the text. "
            "Save the model with its fast tokenizer (tokenizer.json) and load it again."
        )
    return shape
