"""A model's files on this machine: found, fetched, or what to do to have them (no torch).

Files that are here are used as they are: the hub is only asked for what is missing.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

from backend.core.errors import UserError
from backend.core.files import is_file
from backend.models.adapter_kinds import adapter_config
from backend.models.model_files import (
    CONFIG,
    is_adapter,
    is_folder,
    read_object,
    weight_files,
    weights_in,
    what_else,
)

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
        return place if is_file(place / CONFIG) else None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(place, CONFIG)
    return Path(found).parent if isinstance(found, str) else None


def folder_of(place: Path | str) -> Path:
    """The folder of a model's files, fetched from the hub if they are not on this machine.

    Raises UserError that says what to do: when there are none, when they may not be fetched, when
    the hub cannot be reached, when they are damaged, when there are no weights but in files that
    are not read here, and for an adapter of a kind that the engine cannot work with.
    """
    folder = cached(place) or (_fetched(place) if isinstance(place, str) else place)
    if not is_folder(folder):
        raise UserError(
            f"The folder {folder} is not there. Put the model there, or change its place."
        )
    if is_adapter(folder):
        adapter_config(folder)
    else:
        read_object(folder / CONFIG)
    missing = [path.name for path in weight_files(folder) if not is_file(path)]
    if missing and (_holds_pickles(folder) or _has_only_pickles(place)):
        raise UserError(_pickled(place))
    if missing:
        raise UserError(
            f"{folder} lacks its weights, {missing[0]}. {what_else(folder)}".rstrip()
            + " Put them there as safetensors, or choose another model."
        )
    weights_in(folder)
    return folder


def trouble(place: Path | str) -> str | None:
    """Why a model or an adapter whose files are here cannot be loaded, as far as they tell."""
    if isinstance(place, str) and cached(place) is None:
        return None
    try:
        folder_of(place)
    except UserError as error:
        return str(error)
    return None


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
    if not _is_complete(folder) and any(map(is_file, weight_files(folder))):
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
    try:
        has_weights = all(map(is_file, weight_files(folder)))
    except UserError:
        return False
    if is_adapter(folder):
        return has_weights
    has_tokenizer = any(folder.glob("tokenizer*")) or is_file(folder / "vocab.json")
    return has_weights and has_tokenizer and is_file(folder / CONFIG)


def _holds_pickles(folder: Path) -> bool:
    return any(any(folder.glob(f"{kind}_model*.bin")) for kind in ("pytorch", "adapter"))


def _hf() -> str:
    """The hub's own command, also where it is not on the path."""
    return "hf" if shutil.which("hf") else str(Path(sys.executable).with_name("hf"))
