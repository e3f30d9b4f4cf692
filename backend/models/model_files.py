"""The files of a model's folder, read with care: regular files of bounded size (no torch).

A folder is somebody else's: what is in it may be a pipe, a gigabyte of brackets, or say of itself
what is not so. Whatever is wrong with it ends in a UserError, at once.
"""

from __future__ import annotations

import os
from math import prod
from pathlib import Path
from typing import Any

from backend.core.errors import UserError
from backend.core.files import MB, Unreadable, is_file, json_of, read_json

CONFIG = "config.json"
ADAPTER_CONFIG = "adapter_config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"

_LONGEST = 128 * MB
"""Four times the largest tokenizer in use."""
_LONGEST_HEADER = 100_000_000
"""What safetensors itself allows."""
_LARGEST = 2**48
_PICKLES = "pickle files, which can run code, which are not read here"
_NOT_READ = {
    ".gguf": "GGUF files, which are read when they are added, on the Models page or by "
    "`python -m backend add NAME FILE`",
    ".bin": _PICKLES,
    ".pt": _PICKLES,
    ".pth": _PICKLES,
    ".ckpt": _PICKLES,
    ".h5": "TensorFlow's files, which are not read here",
    ".msgpack": "Flax's files, which are not read here",
}


def is_folder(path: Path) -> bool:
    """Whether this is a folder that can be looked at."""
    try:
        return path.is_dir()
    except OSError:
        return False


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file; raises UserError when there is none."""
    return _object(path, read_json(path, _LONGEST))


def tensors_in(path: Path) -> dict[str, tuple[int, ...]]:
    """The names and shapes of the tensors in a safetensors file, by its header.

    Raises UserError when the header is not one, or says what the file has no room for.
    """
    try:
        if not is_file(path):
            raise Unreadable(path, "there is no such file")
        with path.open("rb") as file:
            n_bytes = os.fstat(file.fileno()).st_size
            size = int.from_bytes(file.read(8), "little")
            if not 0 < size <= min(_LONGEST_HEADER, n_bytes - 8):
                raise Unreadable(path, "it does not start as a safetensors file does")
            header = _object(path, json_of(file.read(size)))
    except OSError as error:
        raise Unreadable(path, str(error.strerror)) from error
    except ValueError as error:
        raise Unreadable(path, f"of its header, {error}") from error
    header.pop("__metadata__", None)
    return {name: _shape(path, name, tensor, n_bytes - 8 - size) for name, tensor in header.items()}


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds a PEFT adapter instead of a model.

    A whole model is one whatever a training run left beside it.
    """
    has_model = is_file(folder / CONFIG) and any(is_file(folder / n) for n in (WEIGHTS, INDEX))
    return is_file(folder / ADAPTER_CONFIG) and not has_model


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that a model or an adapter is read from; they need not all be there.

    Raises UserError when the index is damaged or names anything but such files in the same folder.
    """
    if is_adapter(folder):
        return [folder / ADAPTER_WEIGHTS]
    if is_file(folder / WEIGHTS) or not is_file(folder / INDEX):
        return [folder / WEIGHTS]
    named = read_object(folder / INDEX).get("weight_map")
    if not isinstance(named, dict) or not named:
        raise Unreadable(folder / INDEX, "it has no weight_map")
    for name in named.values():
        if not isinstance(name, str) or Path(name).name != name or "\0" in name:
            raise UserError(
                f"{folder / INDEX} names “{name}”, which is not a file of its folder. Put the "
                "model's files there as they were published."
            )
        if not name.endswith(".safetensors"):
            raise UserError(
                f"{folder / INDEX} names “{name}”, and only safetensors are read here. Have the "
                "model saved as safetensors."
            )
    return [folder / name for name in sorted(set(named.values()))]


def weights_in(folder: Path) -> dict[str, tuple[int, ...]]:
    """The names and shapes of all weights of a model or an adapter, by the headers of its files.

    Raises UserError when one is missing or damaged.
    """
    found: dict[str, tuple[int, ...]] = {}
    for path in weight_files(folder):
        found |= tensors_in(path)
    return found


def n_parameters(folder: Path) -> int:
    """How many numbers the weights of a folder are; raises UserError like `weights_in`."""
    return sum(prod(shape) for shape in weights_in(folder).values())


def what_else(folder: Path) -> str:
    """Which weights a folder holds that are not read as they are, in a sentence; empty if none.

    Also of a single file.
    """
    try:
        paths = [folder] if is_file(folder) else folder.iterdir()
        names = sorted(path.name for path in paths)
    except OSError:
        return ""
    for ending, kind in _NOT_READ.items():
        held = [name for name in names if name.endswith(ending) and not name.startswith("training")]
        if held:
            return f"It holds {_few(held)}: {kind}."
    return ""


def _few(names: list[str]) -> str:
    return ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")


def _object(path: Path, found: Any) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise Unreadable(path, "it holds no JSON object")
    return found


def _shape(path: Path, name: str, tensor: Any, room: int) -> tuple[int, ...]:
    match tensor:
        case {"shape": [*sizes], "data_offsets": [int(start), int(end)]}:
            if (
                all(type(size) is int and 0 <= size < _LARGEST for size in sizes)
                and 0 <= start <= end <= room
                and prod(sizes) <= 2 * (end - start)
            ):
                return tuple(sizes)
    raise Unreadable(path, f"it has no room for its “{name[:100]}”")
