"""What a model is, wherever it lies and whatever it is called: hashes of the files that make it.

A file is read once; after that its hash is known by its place, size and time of change, also after
a restart (no torch).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from backend.catalogue import resolve
from backend.errors import UserError
from backend.files import LOCAL, write_atomically

HASHES = LOCAL / "hashes.json"
PRECISION = "float32"
"""The numbers that models run in, which determine a result as well."""
_AT_ONCE = 64 * 2**20
"""Bytes that can be hashed without anyone noticing."""
_WEIGHTS = ("config.json", "*.safetensors")
_ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
_TOKENIZER = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.json", "*.txt")


@dataclass(frozen=True)
class Fingerprint:
    """Hashes of a model's weights with their configuration, its adapter if any, its tokenizer."""

    weights: str
    adapter: str | None
    tokenizer: str
    precision: str

    def __str__(self) -> str:
        return _short(f"{self.weights}/{self.adapter}/{self.tokenizer}/{self.precision}")


def fingerprint(name: str, patiently: bool = True) -> Fingerprint | None:
    """Of the model of this name; None for one that is not on this machine.

    Unless asked `patiently`, None as well when gigabytes would have to be read first. Raises
    UserError for a name that cannot be a model's.
    """
    places = _places(name)
    if not places:
        return None
    weights, tokenizer = (_files(places[0], patterns) for patterns in (_WEIGHTS, _TOKENIZER))
    adapter = _files(places[1], _ADAPTER) if places[1] else []
    unread = [file for file in (*weights, *adapter, *tokenizer) if _sign(file) not in _hashes()]
    if not patiently and sum(file.stat().st_size for file in unread) > _AT_ONCE:
        return None
    return Fingerprint(
        _digest(weights), _digest(adapter) if adapter else None, _digest(tokenizer), PRECISION
    )


def _places(name: str) -> tuple[Path, Path | None] | None:
    """The folders of a model and of its adapter, if it has one; None if they are not here."""
    place = _folder(resolve(name))
    if place and (place / "adapter_config.json").is_file():
        base = _base_of(place)
        return (base, place) if base else None
    return (place, None) if place else None


def _folder(place: Path | str) -> Path | None:
    """Where a model's files are, those of a hub name in the hub's own cache."""
    if isinstance(place, Path):
        return place
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(place, local_files_only=True))
    except (OSError, ValueError):
        return None


def _base_of(adapter: Path) -> Path | None:
    """The folder of an adapter's base; one named like a sibling folder is that folder."""
    try:
        config = json.loads((adapter / "adapter_config.json").read_text("utf-8"))
        name = str(config["base_model_name_or_path"])
        sibling = adapter.parent / Path(name).name
        return sibling if sibling.is_dir() else _folder(resolve(name))
    except (OSError, ValueError, KeyError, TypeError, UserError):
        return None  # loading says what is wrong with it


def _files(folder: Path, patterns: Iterable[str]) -> list[Path]:
    return sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})


def _digest(files: Iterable[Path]) -> str:
    return _short("".join(f"{path.name}:{_hash(path)};" for path in files))


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _hash(path: Path) -> str:
    sign = _sign(path)
    if sign not in _hashes():
        with path.open("rb") as file:
            _hashes()[sign] = hashlib.file_digest(file, "sha256").hexdigest()
        with suppress(OSError):  # it is only asked for once more
            write_atomically(HASHES, json.dumps(dict(_hashes()), indent=0))
    return _hashes()[sign]


def _sign(path: Path) -> str:
    state = path.stat()
    return f"{path.resolve()}|{state.st_size}|{state.st_mtime_ns}"


@cache
def _hashes() -> dict[str, str]:
    """Hashes by place, size and time; a file that cannot be read is begun anew."""
    try:
        return {str(sign): str(known) for sign, known in json.loads(HASHES.read_text()).items()}
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}
