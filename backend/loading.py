"""Load a causal language model and its tokenizer: bundled, from a folder or from the hub.

Safetensors only, no remote code, adapters with peft. Every failure is a UserError that says what
to do next.

Models that differ by an adapter may share their base: each has modules of its own, so that no
adapter is ever seen by another model, over the same weights, which are held once.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from peft import LoraConfig, PeftConfig, PeftModel
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from backend import registry
from backend.anatomy import KNOWN, shape_of
from backend.circuit import ModelShape
from backend.decomposition import holds
from backend.devices import decided, free_bytes
from backend.errors import UserError
from backend.fingerprints import weights_hash
from backend.placement import SPREAD, Placement
from backend.registry import Entry
from backend.runtime import Runtime, at_work, runtime_for
from backend.vocabulary import usable_vocabulary
from backend.weights import base_of, folder_of, is_adapter, n_parameters

transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()

_LOAD_ERRORS = (
    OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, IndexError,
    json.JSONDecodeError, SafetensorError, HfHubHTTPError, HFValidationError,
)  # fmt: skip

_RUN_WHOLE = (
    "The engine cannot take this model apart, so every method runs all of it: exact, and slower."
)

Told = Callable[[str, float], None]
"""Called with what is done next and the share that is done; may raise to cancel."""


@dataclass(frozen=True, eq=False)
class Base:
    """Weights in modules that are never run nor changed, for others to be made of."""

    model: nn.Module
    tokenizer: Any


Bases = MutableMapping[tuple[Path, str, str, str], Base]
"""Bases by folder, hash of the weights, device and dtype."""


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model ready to run, in evaluation mode.

    placement: where it is, its device decided; entry: what the registry said of it; base: what it
    shares with models of the same base; adapter: the folder of its PEFT adapter; is_taken_apart:
    whether methods run only what can change (see `backend.decomposition`), or all of the model;
    runtime: torch's switches while it works, None to leave them as they are.
    """

    name: str
    model: nn.Module
    tokenizer: Any
    shape: ModelShape
    placement: Placement = Placement("cpu")  # noqa: RUF009  # frozen
    entry: Entry | None = None
    base: Base | None = None
    adapter: Path | None = None
    is_taken_apart: bool = True
    runtime: Runtime | None = None

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What is to be known of it: words left out of its prompts, and whether it is run whole."""
        left_out = usable_vocabulary(self.tokenizer).note
        run_whole = "" if self.is_taken_apart else _RUN_WHOLE
        return tuple(note for note in (left_out, run_whole) if note)


def untold(stage: str, share: float) -> None:
    """Progress that nobody asked about."""


def load_model(
    name: str,
    placement: Placement = Placement(),  # noqa: B008  # frozen
    told: Told = untold,
    bases: Bases | None = None,
) -> LoadedModel:
    """Load a model that the registry knows, a folder or a hub model; an adapter with its base.

    A base that is in `bases` is used, and one that is read is put there. Raises UserError when the
    name or the device is unknown, the files are not here and cannot be fetched, are damaged or
    unsafe, there is too little memory, or the model is not of a kind that the engine knows.
    """
    placement = decided(placement)
    entry = registry.entry(name)
    told("Looking for the files", 0.0)
    folder = folder_of(entry.source)
    adapter = folder_of(entry.adapter) if entry.adapter else None
    if adapter is None and is_adapter(folder):
        adapter, folder = folder, folder_of(base_of(folder))
    try:
        bases = bases if bases is not None and (adapter is None or _spares(adapter)) else {}
        base = _base(folder, placement, told, bases)
        told("Putting the model together", 0.95)
        model = _on_base(base, adapter)
    except torch.OutOfMemoryError as error:
        raise UserError(_too_little_memory(name, placement, str(error).splitlines()[0])) from error
    except _LOAD_ERRORS as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise UserError(
            f"The model “{name}” cannot be loaded: {reason} Check that the folder holds "
            "config.json, model.safetensors and tokenizer.json that belong together, or choose "
            "another model."
        ) from error
    shape = _checked_shape(name, model, base.tokenizer)
    told("Checking how it is built", 0.98)
    runtime = runtime_for(sum(weight.numel() for weight in model.parameters()), placement.tf32)
    with at_work(runtime):
        is_taken_apart = holds(model)
    return LoadedModel(
        name,
        model,
        base.tokenizer,
        shape,
        placement,
        entry,
        base,
        adapter,
        is_taken_apart,
        runtime,
    )


def weight_bytes(models: Iterable[nn.Module]) -> int:
    """Bytes of the weights of some models, those that they share counted once."""
    tensors = chain.from_iterable((*model.parameters(), *model.buffers()) for model in models)
    return sum({t.data_ptr(): t.numel() * t.element_size() for t in tensors}.values())


def in_float32(model: nn.Module) -> nn.Module:
    """A copy of the model with the same weights in float32, on the same devices."""
    return copy.deepcopy(model).float()


def has_output_adapter(loaded: LoadedModel) -> bool:
    """Whether an adapter changes the output projection of attention."""
    return bool(_adapted_outputs(loaded.model))


def without_output_adapter(loaded: LoadedModel) -> LoadedModel:
    """The model with the adapter on `o_proj` left out in every layer, over the same weights.

    The authors' code multiplies patched head outputs by `o_proj.weight`, which is the base's.
    """
    if loaded.base is None:
        return loaded
    bare = _on_base(loaded.base, loaded.adapter)
    for attention in _adapted_outputs(bare):
        attention.o_proj = attention.o_proj.base_layer
    return replace(loaded, model=bare)


def _adapted_outputs(model: nn.Module) -> list[Any]:
    """The attention modules whose output projection has an adapter."""
    return [
        module
        for module in model.modules()
        if hasattr(getattr(module, "o_proj", None), "base_layer")
    ]


def _base(folder: Path, placement: Placement, told: Told, bases: Bases) -> Base:
    key = folder, weights_hash(folder), placement.device, placement.dtype.name
    if (known := bases.get(key)) is not None:
        return known
    needed = n_parameters(folder) * placement.dtype.n_bytes
    free = free_bytes(placement.device)
    if needed > free:
        numbers = f"it takes {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free."
        raise UserError(_too_little_memory(folder.name, placement, numbers))
    bases[key] = base = _read(folder, placement, told)
    return base


def _read(folder: Path, placement: Placement, told: Told) -> Base:
    with _counted(told):
        model, report = AutoModelForCausalLM.from_pretrained(
            folder,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            dtype=getattr(torch, placement.dtype.name),
            device_map="auto" if placement.device == SPREAD else {"": placement.device},
            attn_implementation="eager",
            output_loading_info=True,
        )
    if report["missing_keys"]:
        raise ValueError(f"{len(report['missing_keys'])} weights are missing from its files.")
    tokenizer = AutoTokenizer.from_pretrained(
        folder, use_fast=True, trust_remote_code=False, local_files_only=True
    )
    return Base(model.eval().requires_grad_(False), tokenizer)


def _on_base(base: Base, adapter: Path | None) -> nn.Module:
    """New modules over the base's weights, with an adapter of their own."""
    weights: Iterator[Tensor] = chain(base.model.parameters(), base.model.buffers())
    # What deepcopy finds in its memo it takes as it is: here, every weight.
    model = copy.deepcopy(base.model, {id(tensor): tensor for tensor in weights})
    if adapter is None:
        return model
    wrapped = PeftModel.from_pretrained(model, str(adapter), autocast_adapter_dtype=False)
    model = wrapped.get_base_model().eval().requires_grad_(False)
    dtype = next(base.model.parameters()).dtype
    for name, weight in model.named_parameters():
        if "lora_" in name:
            weight.data = weight.data.to(dtype)
    return model


def _spares(adapter: Path) -> bool:
    """Whether an adapter leaves the weights of its base as they are when it is put on."""
    config = PeftConfig.from_pretrained(str(adapter))
    return (
        isinstance(config, LoraConfig)
        and config.bias == "none"
        and config.init_lora_weights in (True, False, "gaussian")
    )


@contextmanager
def _counted(told: Told) -> Iterator[None]:
    """Tell how many weights are read, as transformers' own progress bar would."""

    def bar(_: Any, arguments: tuple[Any, ...], __: dict[str, Any]) -> _Bar:
        return _Bar(arguments[0] if arguments else (), told)

    before = transformers_logging.set_tqdm_hook(bar)
    try:
        yield
    finally:
        transformers_logging.set_tqdm_hook(before)


class _Bar:
    """Stands in for a progress bar."""

    def __init__(self, steps: Iterable[Any], told: Told) -> None:
        self._steps = list(steps)
        self._told = told

    def __iter__(self) -> Iterator[Any]:
        for done, step in enumerate(self._steps):
            self._told("Reading the weights", 0.05 + 0.9 * done / len(self._steps))
            yield step

    def __getattr__(self, _: str) -> Callable[..., None]:
        return lambda *_, **__: None


def _too_little_memory(name: str, placement: Placement, numbers: str) -> str:
    return (
        f"“{name}” does not fit into the memory of {placement.device} in {placement.dtype.name}: "
        f"{numbers} Unload a model on the Models page, or choose another device or bfloat16."
    )


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
