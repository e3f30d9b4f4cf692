"""Results as files that find themselves again: each under a key of all that determined it.

A file has a readable header (what was measured, in which models, on which prompts, when, how long
it took), the parts of the result that are finished, and a checksum. It is written whole or not at
all, so any number of processes may write at once. What cannot be trusted is moved aside.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from backend.errors import UserError
from backend.files import CACHE, LOCAL, write_atomically
from backend.fingerprints import Fingerprint
from backend.saved import plain, revived

ENGINE = 2
"""Raise this whenever a change may move any number: nothing older is then taken for an answer."""
FORMAT = "circuit-explorer/result/1"
RESULTS = LOCAL / "results"
SHIPPED = CACHE / "shipped"
DROPPED = CACHE
"""Where results from other machines may be put, too."""
DAMAGED = LOCAL / "damaged"
UNFINISHED = LOCAL / "unfinished"
_KEY = re.compile(r"[a-z-]{1,20}-[0-9a-f]{24}", re.ASCII)
_PACKAGES = ("torch", "transformers", "peft", "numpy")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelMark:
    """Which model it was: its name and label where it ran, and what it was made of."""

    name: str
    label: str
    fingerprint: Fingerprint


@dataclass(frozen=True)
class Header:
    """What a result is of; request: as `plain` wrote it; date: of its last part, in UTC."""

    key: str
    engine: int
    method: str
    models: tuple[ModelMark, ...]
    request: Mapping[str, Any]
    n_parts: int
    date: str
    seconds: float
    versions: Mapping[str, str]


@dataclass(frozen=True, eq=False)
class Entry:
    """A file of the store; `parts`, the finished ones, as JSON has them."""

    header: Header
    parts: Sequence[Any]
    path: Path
    n_bytes: int

    @property
    def is_complete(self) -> bool:
        """Whether every part is there."""
        return len(self.parts) == self.header.n_parts

    @property
    def is_shipped(self) -> bool:
        """Whether it came with this tool."""
        return self.path.parent == SHIPPED


class Untrusted(Exception):
    """A file that this tool has not written, or not so."""


def key_of(method: str, determinants: Any) -> str:
    """A name for all that determines a result, given as JSON has it."""
    text = _canonical({"engine": ENGINE, "method": method, "of": determinants})
    return f"{method}-{hashlib.sha256(text.encode()).hexdigest()[:24]}"


def new_header(
    key: str,
    method: str,
    models: tuple[ModelMark, ...],
    request: Mapping[str, Any],
    n_parts: int,
    seconds: float,
) -> Header:
    """A header of this engine, as of now."""
    date = datetime.now(UTC).isoformat(timespec="seconds")
    versions = {"python": sys.version.split()[0]} | {name: version(name) for name in _PACKAGES}
    return Header(key, ENGINE, method, models, request, n_parts, date, round(seconds, 2), versions)


def as_data(header: Header, parts: Sequence[Any]) -> dict[str, Any]:
    """What a file holds: the header, the parts and their checksum."""
    content = {"header": plain(header), "parts": list(parts)}
    return {"format": FORMAT, **content, "sha256": _checksum(content)}


def write(header: Header, parts: Sequence[Any]) -> None:
    """Keep the finished parts, unless as many are kept already; raises OSError."""
    known = _there(header.key)
    if known and len(known.parts) >= len(parts):
        return
    write_atomically(RESULTS / f"{header.key}.json", _text(as_data(header, parts)))


def find(key: str) -> Entry | None:
    """What is stored under this key, made here or shipped: whichever has more parts."""
    take_in()
    return _there(key)


def entries() -> list[Entry]:
    """Everything that is stored, newest first."""
    take_in()
    paths = [path for folder in (SHIPPED, RESULTS) for path in folder.glob("*.json")]
    by_key = {entry.header.key: entry for path in paths if (entry := trusted(path))}
    return sorted(by_key.values(), key=lambda entry: entry.header.date, reverse=True)


def take_in() -> None:
    """Put files that were copied into `cache` under their own names; bad ones go aside."""
    foreign = [path for path in RESULTS.glob("*.json") if not _KEY.fullmatch(path.stem)]
    for path in (*DROPPED.glob("*.json"), *foreign):
        try:
            found = [*_results_in(_data(path))]
        except FileNotFoundError:
            continue
        except Untrusted as error:
            _set_aside(path, str(error))
            continue
        with suppress(OSError):
            for header, parts in found:
                write(header, parts)
            path.unlink(missing_ok=True)


def trusted(path: Path) -> Entry | None:
    """The entry in this file; None if there is none, or none to be trusted, which goes aside."""
    try:
        state = path.stat()
        return _read(path, state.st_mtime_ns, state.st_size)
    except OSError:
        return None
    except Untrusted as error:
        _set_aside(path, str(error))
        return None


def distrust(entry: Entry, reason: str) -> None:
    """Move an entry aside whose parts are not what they ought to be."""
    if entry.header.engine == ENGINE:
        _set_aside(entry.path, reason)


def delete(entry: Entry) -> None:
    """Delete a result that was made here; raises UserError when that is not possible."""
    try:
        entry.path.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"{entry.path} cannot be deleted ({error.strerror}). Mend the rights of its folder."
        ) from error


def set_aside() -> list[str]:
    """Names of the files that were moved aside."""
    return sorted(path.name for path in DAMAGED.glob("*.json*"))


def unfinished(key: str) -> Path:
    """A folder for what a long part of a result keeps while it is not finished."""
    return UNFINISHED / key


def has_unfinished(key: str) -> bool:
    """Whether anything is kept in that folder."""
    return any(unfinished(key).rglob("*.safetensors"))


def forget_unfinished(key: str) -> None:
    """Delete that folder; the part is finished."""
    shutil.rmtree(unfinished(key), ignore_errors=True)


def _there(key: str) -> Entry | None:
    found = [trusted(folder / f"{key}.json") for folder in (RESULTS, SHIPPED)]
    there = [entry for entry in found if entry]
    return max(there, key=lambda entry: len(entry.parts), default=None)


@lru_cache(maxsize=256)
def _read(path: Path, _: int, n_bytes: int) -> Entry:
    ((header, parts),) = _results_in(_data(path), several=False)
    if header.key != path.stem:
        raise Untrusted(f"it is the result {header.key}, under another name")
    return Entry(header, parts, path, n_bytes)


def _data(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise Untrusted(f"it cannot be read: {error}") from error


def _results_in(data: Any, several: bool = True) -> Iterator[tuple[Header, list[Any]]]:
    """The result in a file, or those that the command line put into one."""
    if several and isinstance(data, dict) and isinstance(data.get("results"), list):
        for each in data["results"]:
            yield from _results_in(each, several=False)
        return
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise Untrusted("it is not a result of this tool")
    content = {"header": data.get("header"), "parts": data.get("parts")}
    if data.get("sha256") != _checksum(content):
        raise Untrusted("it has been changed or damaged: its checksum is wrong")
    try:
        header: Header = revived(Header, content["header"])
    except UserError as error:
        raise Untrusted(str(error)) from error
    parts = content["parts"]
    if not isinstance(parts, list) or not _KEY.fullmatch(header.key):
        raise Untrusted("it is not a result of this tool")
    if not 0 < len(parts) <= header.n_parts or not header.key.startswith(f"{header.method}-"):
        raise Untrusted("its header does not fit its parts")
    yield header, parts


def _set_aside(path: Path, reason: str) -> None:
    place, number = DAMAGED / path.name, 1
    while place.exists():
        place, number = DAMAGED / f"{path.name}.{number}", number + 1
    try:
        DAMAGED.mkdir(parents=True, exist_ok=True)
        os.replace(path, place)
    except OSError as error:
        _log.warning("%s is not used, because %s. (%s)", path, reason, error.strerror)
    else:
        _log.warning("%s was moved to %s, because %s.", path, place, reason)


def _text(data: Mapping[str, Any]) -> str:
    """JSON with a line for each field of the header, and for each part."""
    header = ",\n".join(f'  "{name}": {json.dumps(of)}' for name, of in data["header"].items())
    parts = ",\n".join(json.dumps(part, allow_nan=False) for part in data["parts"])
    return (
        f'{{\n"format": {json.dumps(data["format"])},\n'
        f'"header": {{\n{header}\n}},\n'
        f'"parts": [\n{parts}\n],\n"sha256": "{data["sha256"]}"\n}}\n'
    )


def _canonical(data: Any) -> str:
    return json.dumps(data, sort_keys=True, separators=(",", ":"))


def _checksum(content: Any) -> str:
    return hashlib.sha256(_canonical(content).encode()).hexdigest()
