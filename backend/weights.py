"""A model's files on this machine: found, fetched, or what to do to have them (no torch).

Files that are here are used as they are: the hub is only asked for what is missing.
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from backend import registry
from backend.errors import UserError

_WANTED = ("*.json", "*.safetensors", "tokenizer*", "*.txt")
_UNWANTED = ("*/*", "consolidated*")
"""Copies of the weights in other forms, which some models bring along."""


def cached(place: Path | str) -> Path | None:
    """The folder of a model's files if all that is needed is on this machine; asks nobody."""
    if isinstance(place, Path):
        return place if _is_complete(place) else None
    from huggingface_hub import try_to_load_from_cache

    for config in ("config.json", "adapter_config.json"):
        found = try_to_load_from_cache(place, config)
        if isinstance(found, str) and _is_complete(Path(found).parent):
            return Path(found).parent
    return None


def config_folder(place: Path | str) -> Path | None:
    """The folder that holds at least the model's configuration on this machine; asks nobody."""
    if isinstance(place, Path):
        return place if (place / "config.json").is_file() else None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(place, "config.json")
    return Path(found).parent if isinstance(found, str) else None


def folder_of(place: Path | str) -> Path:
    """The folder of a model's files, fetched from the hub if they are not on this machine.

    Raises UserError that says what to do: when there are none, when they may not be fetched, when
    the hub cannot be reached, and when there are weights in pickle files only.
    """
    folder = cached(place) or (_fetched(place) if isinstance(place, str) else place)
    if not folder.is_dir():
        raise UserError(
            f"The folder {folder} is not there. Put the model there, or change its place."
        )
    if not _weights(folder) and (_pickles(folder) or _has_only_pickles(place)):
        raise UserError(_pickled(place))
    return folder


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds a PEFT adapter instead of a model."""
    return (folder / "adapter_config.json").is_file()


def base_of(adapter: Path) -> Path | str:
    """Where the base of an adapter is, as it says; one named like a folder beside it is that one.

    Raises UserError when it does not say, or when there is no such place.
    """
    try:
        config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
        name = config["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError):
        name = None
    if not isinstance(name, str) or not name:
        raise UserError(
            f"The adapter {adapter} does not name its base. Add it on the Models page, with the "
            "model that it was trained on as its source."
        )
    beside = adapter.parent / Path(name).name
    return beside if beside.is_dir() and beside != adapter else registry.place(name)


def n_parameters(folder: Path) -> int:
    """How many numbers the safetensors files of a folder hold, by their headers; 0 if damaged."""
    total = 0
    for path in _weights(folder):
        try:
            with path.open("rb") as file:
                size = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(size) if size < path.stat().st_size else b"{}")
            for name, tensor in header.items():
                if name != "__metadata__":
                    total += _product(tensor["shape"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return 0
    return total


def download_command(name: str) -> str:
    """The command that fetches a hub model's files, and none of its other forms."""
    wanted = " ".join(f"--include {shlex.quote(pattern)}" for pattern in _WANTED)
    unwanted = " ".join(f"--exclude {shlex.quote(pattern)}" for pattern in _UNWANTED)
    return f"{_hf()} download {name} {wanted} {unwanted}"


def _fetched(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        found = snapshot_download(name, allow_patterns=[*_WANTED], ignore_patterns=[*_UNWANTED])
    except GatedRepoError as error:
        raise UserError(
            f"“{name}” is gated: its owner lets in whom they choose. Ask at "
            f"https://huggingface.co/{name}, log in with `{_hf()} auth login`, then load it again."
        ) from error
    except RepositoryNotFoundError as error:
        raise UserError(
            f"The hub has no model “{name}”, or it is private. Check the name at "
            f"https://huggingface.co/{name}; if it is yours, log in with `{_hf()} auth login`."
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        # What a failed connection raises besides, depends on the version of the hub's library.
        raise UserError(_unreachable(name)) from error
    folder = Path(found)
    if not _is_complete(folder) and _weights(folder):
        raise UserError(_unreachable(name))
    return folder


def _unreachable(name: str) -> str:
    return (
        f"Not all files of “{name}” are on this computer, and the hub cannot be reached to fetch "
        f"them. With a network, run `{download_command(name)}`; then load it again."
    )


def _pickled(place: Path | str) -> str:
    convert = (
        "Have them saved as safetensors by whoever made them"
        if isinstance(place, Path)
        else "Have the hub convert them, at https://huggingface.co/spaces/safetensors/convert"
    )
    return (
        f"The weights of “{place}” are in pickle files (.bin) only, which can run code, so they "
        f"are not read here. {convert}, then load it again."
    )


def _has_only_pickles(place: Path | str) -> bool:
    """Whether the hub has pickled weights of a model; False when it cannot be asked."""
    if isinstance(place, Path):
        return False
    from huggingface_hub import list_repo_files
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return any(name.endswith(".bin") for name in list_repo_files(place))
    except (HfHubHTTPError, OSError):
        return False


def _is_complete(folder: Path) -> bool:
    """Whether the folder has all weights, and a tokenizer unless it is an adapter."""
    if is_adapter(folder):
        return bool(_weights(folder))
    has_tokenizer = any(folder.glob("tokenizer*")) or (folder / "vocab.json").is_file()
    if not (folder / "config.json").is_file() or not has_tokenizer:
        return False
    try:
        index = json.loads((folder / "model.safetensors.index.json").read_text(encoding="utf-8"))
        parts = set(index["weight_map"].values())
    except FileNotFoundError:
        parts = {"model.safetensors"}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    return all((folder / part).is_file() for part in parts)


def _weights(folder: Path) -> list[Path]:
    if is_adapter(folder):
        return [*folder.glob("adapter_model.safetensors")]
    return [path for path in folder.glob("*.safetensors") if not path.match("consolidated*")]


def _pickles(folder: Path) -> list[Path]:
    return [*folder.glob("pytorch_model*.bin"), *folder.glob("adapter_model*.bin")]


def _product(sizes: Sequence[int]) -> int:
    product = 1
    for size in sizes:
        product *= size
    return product


def _hf() -> str:
    """The hub's own command, also where it is not on the path."""
    return "hf" if shutil.which("hf") else str(Path(sys.executable).with_name("hf"))
