"""A model made of a folder's files: each weight in memory of its own, and in its place.

The configuration may say how the model is built, and nothing of how it is run: neither code, nor
kernels, nor an attention of its own choice. It is held against the headers of the files before
anything as large as it says is made.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors import safe_open
from torch import nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
)

from backend.core.errors import UserError
from backend.core.placement import SPREAD, Placement
from backend.models.model_files import CONFIG, read_object, weight_files, weights_in

_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_HOW_IT_IS_RUN = (
    "implementation", "auto_map", "kernel", "fusion_config", "transformers_weights",
    "return_dict", "output_attentions", "output_hidden_states", "torchscript",
)  # fmt: skip
"""What may be part of the name of a field that is left out."""
_QUANTISED = ("quantization_config", "compression_config")
_QUANTISED_WEIGHTS = (".qweight", ".qzeros", ".weight_packed", ".SCB", ".absmax", ".quant_state")


def read_model(folder: Path, placement: Placement) -> tuple[nn.Module, str]:
    """The model in a folder, and what is to be known of its files; empty if nothing.

    Raises UserError for quantised weights, for weights that are missing, and for weights that have
    no place in the model and would have changed what it computes.
    """
    held = weights_in(folder)
    config = _configuration(folder, held)
    kind = _kind_that_fits(config, sum(map(prod, held.values())))
    with ExitStack() as opened:
        # Not by a map of the file, which would change, or end the process, when somebody writes.
        files = [
            opened.enter_context(safe_open(path, framework="pt", device="cpu", backend="pread"))
            for path in weight_files(folder)
        ]
        model, report = kind.from_pretrained(
            None,
            config=config,
            state_dict={
                name: file.get_slice(name)
                for file in files
                for name in file.keys()  # noqa: SIM118  # it is no dictionary
            },
            trust_remote_code=False,
            local_files_only=True,
            dtype=getattr(torch, placement.dtype.name),
            device_map="auto" if placement.device == SPREAD else {"": placement.device},
            attn_implementation="eager",
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    model.config.name_or_path = str(folder)
    if mismatched := sorted(report["mismatched_keys"], key=str):
        name, there, needed = mismatched[0]
        raise UserError(
            f"In {folder}, {name} is {_sizes(there)} and its config.json says {_sizes(needed)}. "
            "Put the files there that belong together."
        )
    if missing := sorted(report["missing_keys"]):
        raise UserError(
            f"{folder} lacks {len(missing)} of the model's weights, such as {missing[0]}. Put all "
            "of its files there, or choose another model."
        )
    return model.eval().requires_grad_(False), _without_a_place(folder, model, report)


def _configuration(folder: Path, held: Mapping[str, Any]) -> Any:
    about = read_object(folder / CONFIG)
    fields = dict(_fields(about))
    is_packed = any(name.endswith(_QUANTISED_WEIGHTS) for name in held)
    if is_packed or any(fields.get(name) for name in _QUANTISED):
        raise UserError(_quantised(folder, fields))
    if not isinstance(about.get("model_type"), str):
        raise UserError(
            f"{folder / CONFIG} does not say what kind of model it is (model_type). Put the file "
            "there as it was published."
        )
    for name in _LAYERS:
        if isinstance(n_layers := fields.get(name), int) and n_layers > len(held):
            raise UserError(
                f"{folder / CONFIG} says that the model has {n_layers} layers, and its files hold "
                f"{len(held)} weights. Put the files there that belong together."
            )
    with TemporaryDirectory() as place:
        (Path(place) / CONFIG).write_text(json.dumps(_built(about)), encoding="utf-8")
        return AutoConfig.from_pretrained(place, trust_remote_code=False, local_files_only=True)


def _fields(about: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    """The fields of a configuration, those of models within it included; its own count most."""
    for each in about.values():
        if isinstance(each, dict):
            yield from _fields(each)
    yield from about.items()


def _built(about: Any) -> Any:
    """What a configuration says of how the model is built."""
    if not isinstance(about, dict):
        return about
    return {
        name: _built(value)
        for name, value in about.items()
        if not any(part in name for part in _HOW_IT_IS_RUN)
    }


def _quantised(folder: Path, fields: Mapping[str, Any]) -> str:
    about = next((fields[name] for name in _QUANTISED if fields.get(name)), None)
    method = about.get("quant_method") if isinstance(about, dict) else None
    with_method = f" (by {method[:30]})" if isinstance(method, str) else ""
    return (
        f"The weights in {folder} are quantised{with_method}, and the engine computes with whole "
        "ones only. Give the 16-bit model that they were made from; an adapter that was trained on "
        "quantised weights goes on that model, too: "
        "`python -m backend add NAME BASE --adapter ADAPTER`."
    )


def _kind_that_fits(config: Any, n_held: int) -> Any:
    """The class of the model, once it is sure that it does not need more than the files hold."""
    sees_pictures = type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    kinds = AutoModelForCausalLM
    if sees_pictures and type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        kinds = AutoModelForImageTextToText
    with torch.device("meta"):
        plan = kinds.from_config(config, attn_implementation="eager")
    tied = set(getattr(plan, "all_tied_weights_keys", ()))
    n_needed = sum(w.numel() for name, w in plan.named_parameters() if name not in tied)
    if n_needed > n_held:
        raise UserError(
            f"Its configuration describes a model of {n_needed:,} numbers, and its files hold "
            f"{n_held:,}: weights are missing. Put the files there that belong together."
        )
    return type(plan)


def _without_a_place(folder: Path, model: Any, report: Mapping[str, Any]) -> str:
    """What is to be known of weights that the configuration has no place for.

    Those of another part, such as a value head or an encoder of images, are left out. Those within
    the model's own parts would have been used. Known leftovers, such as the rotations that older
    models wrote down, transformers leaves out of its report.
    """
    unused = sorted(report["unexpected_keys"])
    parts = {name for name, _ in model.named_modules()} - {"", model.base_model_prefix}
    inside = [name for name in unused if _has_prefix(name, parts)]
    if inside:
        raise UserError(
            f"{folder} holds {len(inside)} weights that its config.json has no place for, such as "
            f"{inside[0]}: the model would run without them. Put the config.json there that "
            "belongs to them."
        )
    if not unused:
        return ""
    return (
        f"{len(unused)} weights of its files are of no part of the language model and are left "
        f"out, such as {unused[0]}."
    )


def _sizes(shape: Iterable[int]) -> str:
    return " × ".join(map(str, shape))


def _has_prefix(name: str, parts: set[str]) -> bool:
    steps = name.split(".")
    return any(".".join(steps[:n]) in parts for n in range(1, len(steps)))
