"""A GGUF file made an ordinary folder: config.json, float32 safetensors, tokenizer; once.

Read by transformers' own reader and the `gguf` package, of a copy that nobody else writes to; then
held against the file's header: every tensor has its place in the model, and every weight of the
model is there.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.modeling_gguf_pytorch_utils import (
    TENSOR_PROCESSORS,
    TensorProcessor,
    get_gguf_hf_weights_map,
    load_gguf_checkpoint,
)

from backend.core.devices import free_bytes
from backend.core.errors import UserError
from backend.core.files import MB, is_file, shown
from backend.core.progress import Cancelled, Report
from backend.models import gguf_folders
from backend.models.gguf_folders import Origin, folder_for, origin_of, write_origin
from backend.models.gguf_header import Header, header_of
from backend.models.gguf_tokenizer import write_tokenizer
from backend.models.model_files import CONFIG, WEIGHTS
from backend.models.weights import cached

ARCHITECTURES = ("llama", "qwen2", "qwen3")
"""Those of which a GGUF file says all that the model's configuration needs; each has a test."""
_INSTEAD = "Fetch the file again, or give the model as safetensors instead."


def convert(path: Path, report: Report) -> Path:
    """The folder made of a GGUF file, under `cache/local/models`; made only if it is not there.

    It is there as a whole or not at all. Raises UserError when the file is damaged, of an
    architecture or of tensor types that are not known here, when its tokenizer does not agree with
    what it says, and when there is too little memory or room.
    """
    try:
        gguf_folders.MADE.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(
            prefix=".", suffix=".unfinished", dir=gguf_folders.MADE, ignore_cleanup_errors=True
        ) as place:
            return _converted(path, Path(place), report)
    except (UserError, Cancelled):
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(
            f"The folder of {shown(path)} cannot be made in {gguf_folders.MADE} ({reason}). Make "
            "room or rights there."
        ) from error
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"{shown(path)} cannot be read: {lines[0][:300].rstrip('.')}. {_INSTEAD}"
        ) from error


def _converted(path: Path, staging: Path, report: Report) -> Path:
    report("Copying the file", 0.0)
    copy = staging / "copy.gguf"
    digest = _copy(path, copy)
    folder = folder_for(path, digest)
    if origin_of(folder) and cached(folder):
        return folder
    report("Reading what it holds", 0.1)
    header = header_of(copy)
    _check_is_known(path, header)
    _check_room(path, header, staging)
    made = staging / "model"
    made.mkdir()
    report("Reading the weights", 0.3)
    _write_model(copy, header, made)
    report("Reading the tokenizer", 0.8)
    write_tokenizer(copy, header.fields, made)
    write_origin(made, Origin(shown(path.name), digest, header.quantisation))
    shutil.rmtree(folder, ignore_errors=True)  # what is left of one that somebody took apart
    with suppress(FileExistsError):
        os.rename(made, folder)
    return folder


def _copy(path: Path, to: Path) -> str:
    """Copy an ordinary file; returns the sha256 of what was copied."""
    if not is_file(path):
        raise UserError(f"{shown(path)} is not an ordinary file. Choose another.")
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    digest = sha256()
    with os.fdopen(handle, "rb") as source, to.open("wb") as target:
        left = os.fstat(handle).st_size
        if left > shutil.disk_usage(to.parent).free:
            raise UserError(f"There is no room for a copy of {shown(path)}. Make room on the disk.")
        while left and (part := source.read(min(left, 16 * MB))):
            digest.update(part)
            target.write(part)
            left -= len(part)
    return digest.hexdigest()


def _check_is_known(path: Path, header: Header) -> None:
    name = header.architecture
    if name not in ARCHITECTURES:
        raise UserError(
            f"{shown(path)} is of an architecture that is not read from GGUF files here "
            f"(“{name[:40]}”). Give the model as safetensors instead, or a file of one of "
            f"{', '.join(ARCHITECTURES)}."
        )
    scaling = header.fields.get(f"{name}.rope.scaling.type", "none")
    if scaling != "none" or "rope_freqs.weight" in header.types:
        raise UserError(
            f"{shown(path)} stretches its rotary positions, which the reader of GGUF files leaves "
            "out: the model would compute something else. Give it as safetensors instead."
        )
    n_layers = header.fields.get(f"{name}.block_count")
    if not isinstance(n_layers, int) or not 0 < n_layers <= len(header.types):
        raise ValueError(f"it says that it has {n_layers} layers")


def _check_room(path: Path, header: Header, staging: Path) -> None:
    needed = 4 * header.n_numbers
    for what, free in (
        ("memory", free_bytes("cpu")),
        ("room on the disk", shutil.disk_usage(staging).free),
    ):
        if needed > free:
            raise UserError(
                f"{shown(path)} takes {needed / 1e9:.1f} GB in float32, and there are "
                f"{free / 1e9:.1f} GB of {what}. Make room, or choose a smaller model."
            )


def _write_model(copy: Path, header: Header, folder: Path) -> None:
    about = load_gguf_checkpoint(str(copy))["config"]
    about.pop("_model_name_or_path", None)
    config = AutoConfig.for_model(**about)
    with torch.device("meta"):
        plan = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    _check_places(header, plan, about)
    read = load_gguf_checkpoint(
        str(copy), return_tensors=True, model_to_load=plan, torch_dtype=torch.float32
    )
    tensors: dict[str, torch.Tensor] = read["tensors"]
    tied = set(getattr(plan, "all_tied_weights_keys", ()))
    needed = {name: w.shape for name, w in plan.named_parameters() if name not in tied}
    for name, shape in needed.items():
        if name not in tensors:
            raise ValueError(f"it lacks {name}")
        if tensors[name].shape != shape:
            sizes = [" × ".join(map(str, each)) for each in (tensors[name].shape, shape)]
            raise ValueError(f"its {name} is {sizes[0]}, and it says {sizes[1]}")
    save_file(
        {name: tensors[name].contiguous() for name in needed},
        folder / WEIGHTS,
        metadata={"format": "pt"},
    )
    config.architectures = [type(plan).__name__]
    config.dtype = torch.float32
    config.to_json_file(folder / CONFIG)


def _check_places(header: Header, plan: nn.Module, about: Any) -> None:
    """Raise ValueError if the reader would leave out a tensor of the file."""
    processor = TENSOR_PROCESSORS.get(header.architecture, TensorProcessor)(config=about)
    places = get_gguf_hf_weights_map(plan, processor)
    if left_out := sorted(set(header.types) - set(places)):
        raise ValueError(
            f"the model that it describes has no place for {len(left_out)} of its tensors, such as "
            f"{left_out[0]}"
        )
