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

from backend import registry
from backend.errors import UserError
from backend.files import LOCAL, MB, read_json, write_atomically
from backend.weights import base_of, cached, is_adapter

HASHES = LOCAL / "hashes.json"
_AT_ONCE = 64 * 2**20
"""Bytes that can be hashed without anyone noticing."""
_WEIGHTS = ("config.json", "*.safetensors")
_ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
_TOKENIZER = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.json", "*.txt")


@dataclass(frozen=True)
class Fingerprint:
    """Hashes of a model's weights with their configuration, its adapter if any, its tokenizer.

    precision: the numbers that it runs in, which determine a result as well.
    """

    weights: str
    adapter: str | None
    tokenizer: str
    precision: str

    def __str__(self) -> str:
        return _short(f"{self.weights}/{self.adapter}/{self.tokenizer}/{self.precision}")


def fingerprint(name: str, precision: str, patiently: bool = True) -> Fingerprint | None:
    """Of the model of this name, in this precision; None for one that is not on this machine.

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
        _digest(weights),
        _digest(adapter) if adapter else None,
        _digest(tokenizer),
        precision,
    )


def weights_hash(folder: Path) -> str:
    """Of the weights in a folder, with their configuration."""
    return _digest(_files(folder, _WEIGHTS))


def _places(name: str) -> tuple[Path, Path | None] | None:
    """The folders of a model and of its adapter, if it has one; None if they are not here."""
    entry = registry.entry(name)
    folder = cached(entry.source)
    adapter = cached(entry.adapter) if entry.adapter else None
    if folder and not entry.adapter and is_adapter(folder):
        try:
            folder, adapter = cached(base_of(folder)), folder
        except UserError:
            return None  # loading says what is wrong with it
    if folder is None or (entry.adapter and adapter is None):
        return None
    return folder, adapter


def _files(folder: Path, patterns: Iterable[str]) -> list[Path]:
    return sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})


def _digest(files: Iterable[Path]) -> str:
    return _short("".join(f"{path.name}:{_hash(path)};" for path in files))


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _hash(path: Path) -> str:
    sign, real = _sign(path), path.resolve()
    if real.parent.name == "blobs" and len(real.name) == 64:
        return real.name  # the hub's own cache names large files by their hashes
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
        known = read_json(HASHES, 64 * MB)
        return {str(sign): str(known) for sign, known in known.items()}
    except (UserError, AttributeError):
        return {}
