"""What a model is, wherever it lies and whatever it is called: hashes of the files that make it.

A file is read once; after that its hash is known by its place, number (inode), size and times, also
after a restart (no torch). So weights of the same size and time of change are told apart: what a
program cannot set back is when a file's entry was last changed. What stays unseen is a change below
the file system, one within a few milliseconds of the reading, and one to a file in the hub's own
cache, which is known by the hash that the hub gave it as its name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from backend.core.errors import UserError
from backend.core.files import LOCAL, MB, Unreadable, is_file, read_json, write_atomically
from backend.models import elsewhere, registry
from backend.models.model_files import (
    ADAPTER_CONFIG,
    CONFIG,
    INDEX,
    WEIGHTS,
    is_adapter,
    weight_files,
)
from backend.models.registry import base_of
from backend.models.weights import cached

HASHES = LOCAL / "hashes.json"
_AT_ONCE = 64 * 2**20
"""Bytes that can be hashed without anyone noticing."""
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
    """Of the model of this name, in this precision; None for one that is not on this machine, nor
    on the cluster that was asked.

    Unless asked `patiently`, None as well when gigabytes would have to be read first. Raises
    UserError for a name that cannot be a model's.
    """
    if there := elsewhere.known().get(name):
        return replace(there.files, precision=precision)
    found = _files(name)
    if found is None:
        return None
    unread = [path for part in found for path in part if _sign(path) not in _hashes()]
    if not patiently and sum(path.stat().st_size for path in unread) > _AT_ONCE:
        return None
    weights, adapter, tokenizer = found
    return Fingerprint(
        _digest(weights),
        _digest(adapter) if adapter else None,
        _digest(tokenizer),
        precision,
    )


def is_here(name: str) -> bool:
    """Whether all files of a model are on this machine."""
    return _places(name) is not None


def base_hash(folder: Path) -> str:
    """Of all that is read of a base: its weights with their configuration, and its tokenizer."""
    return _digest([*_weights(folder), *tokenizer_files(folder)])


def tokenizer_files(folder: Path) -> list[Path]:
    """The files that a model's tokenizer is made of, beside its configuration."""
    found = {path for pattern in _TOKENIZER for path in folder.glob(pattern)}
    return sorted(filter(is_file, found))


def _files(name: str) -> tuple[list[Path], list[Path], list[Path]] | None:
    """The files of a model's weights, adapter and tokenizer; None if they are not here."""
    places = _places(name)
    if not places:
        return None
    folder, adapter = places
    return _weights(folder), _weights(adapter) if adapter else [], tokenizer_files(folder)


def _weights(folder: Path) -> list[Path]:
    """The weights of a model or an adapter, and what says how they are meant."""
    weights = weight_files(folder)
    about = [ADAPTER_CONFIG] if is_adapter(folder) else [CONFIG]
    if not is_adapter(folder) and weights != [folder / WEIGHTS]:
        about.append(INDEX)
    return sorted(path for path in (*weights, *(folder / name for name in about)) if is_file(path))


def _places(name: str) -> tuple[Path, Path | None] | None:
    """The folders of a model and of its adapter, if it has one; None if they are not here."""
    entry = registry.entry(name)
    if entry.kind is registry.Kind.remote:
        return None
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


def _digest(files: Iterable[Path]) -> str:
    return _short("".join(f"{path.name}:{_hash(path)};" for path in files))


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _hash(path: Path) -> str:
    real = path.resolve()
    if real.parent.name == "blobs" and len(real.name) == 64:
        return real.name  # the hub's own cache names large files by their hashes
    sign = _sign(path)
    if sign in _hashes():
        return _hashes()[sign]
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if _sign(path) == sign:  # or it has changed meanwhile
        _hashes()[sign] = found
        with suppress(OSError):  # it is only asked for once more
            write_atomically(HASHES, json.dumps(dict(_hashes()), indent=0))
    return found


def _sign(path: Path) -> str:
    at = path.stat()
    return f"{path.resolve()}|{at.st_ino}|{at.st_size}|{at.st_mtime_ns}|{at.st_ctime_ns}"


@cache
def _hashes() -> dict[str, str]:
    """Hashes by place, size and times; a file that cannot be read is begun anew."""
    try:
        return {str(sign): str(known) for sign, known in read_json(HASHES, 64 * MB).items()}
    except (Unreadable, AttributeError):
        return {}
