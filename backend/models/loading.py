"""Load a causal language model and its tokenizer: bundled, from a folder or from the hub.

Safetensors only, no remote code, adapters with peft. Every failure is a UserError that says what
to do next.

Models that differ by an adapter may share their base: each has modules of its own, so that no
adapter is ever seen by another model, over the same weights, which are held once.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer
from transformers.utils import logging as transformers_logging

from backend.core.devices import decided, free_bytes
from backend.core.errors import UserError, is_out_of_memory
from backend.core.heads import ModelShape
from backend.core.placement import SPREAD, Dtype, Placement
from backend.core.progress import Cancelled
from backend.core.runtime import Runtime, at_work, runtime_for
from backend.engine.architectures import KNOWN, dtype_of, shape_of
from backend.engine.finite import check_gives_finite
from backend.engine.unfit import unfit
from backend.engine.validation import can_take_apart
from backend.models import registry
from backend.models.adapter_kinds import adapter_config, check_patterns, modules_of
from backend.models.adapters import Landed, put_on, spares_its_base
from backend.models.fingerprints import Fingerprint, base_hash, fingerprint
from backend.models.gguf_folders import note_of
from backend.models.model_files import is_adapter, n_parameters, weights_in
from backend.models.registry import Entry, base_of
from backend.models.state_dict import read_model
from backend.models.weights import folder_of
from backend.tasks.task import Task
from backend.tasks.vocabulary import tokenized

transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()

_TRIES = 3
_SENTENCE = "The apple is in Box F. Box F contains the"
_RUN_WHOLE = (
    "The engine cannot take this model apart, so every method runs all of it: exact, and slower."
)

Told = Callable[[str, float], None]
"""Called with what is done next and the share that is done; may raise Cancelled."""


@dataclass(frozen=True, eq=False)
class Base:
    """Weights in modules that are never run nor changed, for others to be made of.

    note: what is to be known of its files; empty if nothing.
    """

    model: nn.Module
    tokenizer: Any
    note: str = ""


Bases = MutableMapping[tuple[Path, str, str, str], Base]
"""Bases by folder, hash of the weights, device and dtype."""


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model ready to run, in evaluation mode.

    placement: where it is, its device decided; entry: what the registry said of it; base: what it
    shares with models of the same base; adapter: how much of its adapter is in it; files: what its
    files were when they were read; is_taken_apart: whether methods run only what can change (see
    `backend.engine.validation`), or all of the model; runtime: torch's switches while it works,
    None to leave them as they are.
    """

    name: str
    model: nn.Module
    tokenizer: Any
    shape: ModelShape
    placement: Placement = Placement("cpu")  # noqa: RUF009  # frozen
    entry: Entry | None = None
    base: Base | None = None
    adapter: Landed | None = None
    files: Fingerprint | None = None
    is_taken_apart: bool = True
    runtime: Runtime | None = None

    def notes(self, task: Task) -> tuple[str, ...]:
        """What is to be known of it: words that a task leaves out, whether it is run whole."""
        return (*self.about_files, *filter(None, [task.note(self.tokenizer)]))

    @property
    def about_files(self) -> tuple[str, ...]:
        """What is to be known of it whatever it is asked."""
        run_whole = "" if self.is_taken_apart else _RUN_WHOLE
        of_files = self.base.note if self.base else ""
        return tuple(filter(None, (of_files, run_whole)))


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
    unsafe or change while they are read, an adapter does not fit as a whole, there is too little
    memory, or the model is not of a kind that the engine knows.
    """
    placement = decided(placement)
    for _ in range(_TRIES):
        told("Looking for the files", 0.0)
        folder, adapter = find(name)
        files = fingerprint(name, placement.precision)
        try:
            loaded = _put_together(name, folder, adapter, placement, told, bases)
        except (UserError, Cancelled):
            raise
        except torch.OutOfMemoryError as error:
            reason = str(error).splitlines()[0]
            raise UserError(_too_little_memory(name, placement, reason)) from error
        except BaseException as error:
            if not _is_failure(error):
                raise
            raise UserError(_failed(name, error)) from error
        if fingerprint(name, placement.precision) == files:
            return replace(loaded, files=files)
    raise UserError(
        f"The files of “{name}” change while they are read. Wait until they are written, then load "
        "it again."
    )


def find(name: str) -> tuple[Path, Path | None]:
    """The folders of a model and of its adapter, fetched if need be, and looked at.

    Takes as long as it takes to fetch them, and nothing that others would have to wait for. Raises
    UserError like `load_model`.
    """
    entry = registry.entry(name)
    if entry.kind is registry.Kind.remote:
        raise UserError(
            f"“{name}” is on the cluster, and this needs it on this computer. Copy its files here "
            "and add it on the Models page, or choose a model that is here."
        )
    folder = folder_of(entry.source)
    adapter = folder_of(entry.adapter) if entry.adapter else None
    if adapter is None and is_adapter(folder):
        adapter, folder = folder, folder_of(base_of(folder))
    if is_adapter(folder):
        raise UserError(
            f"{folder} is an adapter itself, and an adapter goes on a model. Give the model that "
            "both were trained on."
        )
    if adapter:
        check_patterns(adapter, adapter_config(adapter), modules_of(weights_in(folder)))
    return folder, adapter


def _put_together(
    name: str,
    folder: Path,
    adapter: Path | None,
    placement: Placement,
    told: Told,
    bases: Bases | None,
) -> LoadedModel:
    if bases is None or (adapter and not spares_its_base(adapter, weights_in(adapter))):
        bases = {}
    base = _base(folder, placement, told, bases)
    told("Putting the model together", 0.95)
    model, landed = _sharing(base.model), None
    runtime = runtime_for(sum(weight.numel() for weight in model.parameters()), placement.tf32)
    with at_work(runtime):
        if adapter:
            model, landed = put_on(model, adapter)
        shape = _checked_shape(name, model, base.tokenizer)
        told("Checking how it is built", 0.98)
        check_gives_finite(name, model, base.tokenizer)
        is_taken_apart = can_take_apart(model)
    entry = registry.entry(name)
    return LoadedModel(
        name,
        model,
        base.tokenizer,
        shape,
        placement,
        entry,
        base,
        landed,
        is_taken_apart=is_taken_apart,
        runtime=runtime,
    )


def tokenizer_in(folder: Path) -> Any:
    """The tokenizer whose files, and whose model's configuration, are in a folder; no code of
    theirs is run."""
    return AutoTokenizer.from_pretrained(
        folder, use_fast=True, trust_remote_code=False, local_files_only=True
    )


def model_of_ones_own(name: str, model: nn.Module, tokenizer: Any) -> LoadedModel:
    """A model object and its tokenizer, where the model is and in the numbers it is in.

    It is put into evaluation mode. Raises UserError without a tokenizer, for other numbers than
    `Dtype` has, and when the model is not of a kind that the engine knows.
    """
    if tokenizer is None:
        raise UserError("A model object comes without words. Give its tokenizer, too.")
    dtype = str(dtype_of(model)).removeprefix("torch.")
    if dtype not in Dtype.__members__:
        raise UserError(
            f"“{name}” is in {dtype}. Convert it to one of {', '.join(Dtype.__members__)}."
        )
    devices = {str(weight.device) for weight in model.parameters()}
    placement = Placement(SPREAD if len(devices) > 1 else devices.pop(), Dtype[dtype])
    runtime = runtime_for(sum(weight.numel() for weight in model.parameters()), tf32=False)
    model.eval()
    with at_work(runtime):
        shape = _checked_shape(name, model, tokenizer)
        check_gives_finite(name, model, tokenizer)
        is_taken_apart = can_take_apart(model)
    return LoadedModel(
        name, model, tokenizer, shape, placement, is_taken_apart=is_taken_apart, runtime=runtime
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
    bare = _sharing(loaded.model)
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
    key = folder, base_hash(folder), placement.device, placement.dtype.name
    if (known := bases.get(key)) is not None:
        return known
    needed = n_parameters(folder) * placement.dtype.n_bytes
    free = free_bytes(placement.device)
    if needed > free:
        numbers = f"it takes {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free."
        raise UserError(_too_little_memory(folder.name, placement, numbers))
    base = _read(folder, placement, told)
    if base_hash(folder) == key[1]:  # or its files have changed meanwhile
        bases[key] = base
    return base


def _read(folder: Path, placement: Placement, told: Told) -> Base:
    with _counted(told):
        model, note = read_model(folder, placement)
    return Base(model, tokenizer_in(folder), " ".join(filter(None, (note_of(folder), note))))


def _sharing(model: nn.Module) -> nn.Module:
    """New modules over the same weights."""
    weights: Iterator[Tensor] = chain(model.parameters(), model.buffers())
    # What deepcopy finds in its memo it takes as it is: here, every weight.
    return copy.deepcopy(model, {id(tensor): tensor for tensor in weights})


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


def _is_failure(error: BaseException) -> bool:
    """Whether this is about the files, and not about the process; Rust panics, too, are errors."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def _failed(name: str, error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    reason = " ".join(line.strip() for line in lines[:2] if line.strip())[:300]
    if is_out_of_memory(error):
        reason = f"the memory is full ({reason})"
    if not reason.endswith("."):
        reason += "."
    return (
        f"The model “{name}” cannot be loaded: {reason} Check that the folder holds config.json, "
        "model.safetensors and tokenizer.json that belong together, or choose another model."
    )


def _checked_shape(name: str, model: nn.Module, tokenizer: Any) -> ModelShape:
    if reason := unfit(model):
        raise UserError(
            f"“{name}” is built in a way that is not known here: {reason}. "
            f"Choose a model of one of these families: {KNOWN}."
        )
    if not tokenizer.is_fast:
        raise UserError(
            f"The tokenizer of “{name}” cannot say where each token stands in the text. "
            "Save the model with its fast tokenizer (tokenizer.json) and load it again."
        )
    n_words = model.get_input_embeddings().weight.shape[0]  # type: ignore[operator]
    if not all(0 <= token < n_words for token in tokenized(tokenizer, [_SENTENCE])[0][0]):
        raise UserError(
            f"The tokenizer of “{name}” gives words that the model, of {n_words} words, has not. "
            "Put the tokenizer there that belongs to the model."
        )
    return shape_of(model)
