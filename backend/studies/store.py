"""Results as files that find themselves again: each under a key of all that determined it.

A file has a readable header (what was measured, in which models, on which prompts, when, how long
it took), the parts of the result that are finished, and a checksum. It is written whole or not at
all, so any number of processes may write at once. A file under the name of a result made here that
cannot be trusted is moved aside; whatever else is no result is left where it is, and named.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from backend.core.errors import UserError
from backend.core.files import (
    CACHE,
    LOCAL,
    MB,
    Absent,
    Unreadable,
    json_of,
    obstacle,
    read,
    shown,
    write_atomically,
)
from backend.core.read_only import check_allowed
from backend.core.serialize import from_json, to_json
from backend.models.fingerprints import Fingerprint

ENGINE = 3
"""Raise this whenever a change may move any number: nothing older is then taken for an answer."""
FORMAT = "circuit-explorer/result/1"
RESULTS = LOCAL / "results"
SHIPPED = CACHE / "shipped"
DROPPED = CACHE
"""Where results from other machines may be put, too."""
DAMAGED = LOCAL / "damaged"
UNFINISHED = LOCAL / "unfinished"
_MOST_MB = 64
"""Every head at every token of the largest models takes 10."""
_KEY = re.compile(r"[a-z-]{1,20}-[0-9a-f]{24}", re.ASCII)
_PACKAGES = ("torch", "transformers", "peft", "numpy")
_ITS_FIELDS = {"format", "header", "parts", "sha256"}
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelMark:
    """Which model it was: its name and label where it ran, and what it was made of."""

    name: str
    label: str
    fingerprint: Fingerprint


@dataclass(frozen=True)
class Header:
    """What a result is of; request: as `to_json` wrote it; date: of its last part, in UTC."""

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
    content = {"header": to_json(header), "parts": list(parts)}
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
    by_key = {entry.header.key: entry for path in _named() if (entry := trusted(path))}
    return sorted(by_key.values(), key=lambda entry: entry.header.date, reverse=True)


def take_in() -> dict[Path, str]:
    """Put results that were copied into `cache` under their own names.

    What holds anything else stays where it is: gives the reasons, a clause each.
    """
    foreign = [path for path in RESULTS.glob("*.json") if not _has_key(path)]
    reasons = {path: _looked_into(path) for path in (*DROPPED.glob("*.json"), *foreign)}
    return {path: reason for path, reason in reasons.items() if reason}


def left() -> dict[Path, str]:
    """What lies among the results and is not one, and why; it stays where it is."""
    return take_in() | {path: flaw for path in _named() if (flaw := _flaw(path))}


def trusted(path: Path) -> Entry | None:
    """The entry in this file; None if there is none, or none to be trusted, which goes aside."""
    try:
        sign = _sign(path)
        found = _read(path, sign)
    except (OSError, Absent):
        return None
    except Unreadable as error:
        _say_once(path, error.reason)
        return None
    if isinstance(found, Untrusted):
        _set_aside(path, sign, str(found))
        return None
    return found


def distrust(entry: Entry, reason: str) -> None:
    """Move an entry aside whose parts are not what they ought to be."""
    if entry.header.engine == ENGINE:
        with suppress(OSError):
            _set_aside(entry.path, _sign(entry.path), reason)


def delete(entry: Entry) -> None:
    """Delete a result that was made here; raises UserError when that is not possible."""
    check_allowed("To delete a result")
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


def _named() -> list[Path]:
    """Files that lie where results do, under their names."""
    return [*SHIPPED.glob("*.json"), *filter(_has_key, RESULTS.glob("*.json"))]


def _has_key(path: Path) -> bool:
    return bool(_KEY.fullmatch(path.stem))


def _sign(path: Path) -> tuple[int, ...]:
    """What changes when another file takes this one's place; raises OSError."""
    state = path.stat()
    return state.st_ino, state.st_mtime_ns, state.st_size


@lru_cache(maxsize=256)
def _read(path: Path, sign: tuple[int, ...]) -> Entry | Untrusted:
    try:
        header, parts = _result(_data(path))
    except Untrusted as error:
        return error
    if header.key != path.stem:
        return Untrusted(f"it is the result {header.key}, under another name")
    return Entry(header, parts, path, sign[-1])


def _flaw(path: Path) -> str | None:
    """Why a file under the name of a result is not used, if so."""
    try:
        found = _read(path, _sign(path))
    except (OSError, Absent):
        return None
    except Unreadable as error:
        return error.reason
    return str(found) if isinstance(found, Untrusted) else None


def _looked_into(path: Path) -> str | None:
    """Take in the results of a file; gives the reason if the file stays where it is."""
    try:
        reason = _taken_in(path, _sign(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        reason = f"its results cannot be kept ({error.strerror})"
    if reason:
        _say_once(path, reason)
    return reason


@lru_cache(maxsize=1024)
def _taken_in(path: Path, _: tuple[int, ...]) -> str | None:
    try:
        data = _data(path)
    except Absent:
        return None
    except Unreadable as error:
        return error.reason
    except Untrusted as error:
        return str(error)
    is_several = isinstance(data, dict) and isinstance(data.get("results"), list)
    each, flaws = data["results"] if is_several else [data], []
    for number, one in enumerate(each, 1):
        try:
            write(*_result(one))
        except Untrusted as error:
            flaws.append(f"{f'of its results, number {number}: ' if is_several else ''}{error}")
    if flaws or not each:
        return flaws[0] if flaws else "it holds no result"
    if data.keys() - ({"results"} if is_several else _ITS_FIELDS):
        return "its results were taken in, but it holds something else as well"
    if reason := obstacle(path):
        return f"its results were taken in, but {reason}"
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        return f"its results were taken in, but it cannot be deleted ({error.strerror})"
    return None


def _data(path: Path) -> Any:
    try:
        return json_of(read(path, _MOST_MB * MB))
    except ValueError as error:
        raise Untrusted(str(error)) from error


def _result(data: Any) -> tuple[Header, list[Any]]:
    """The header and the parts of a result, as JSON has them; raises Untrusted."""
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise Untrusted("it is not a result of this tool")
    content = {"header": data.get("header"), "parts": data.get("parts")}
    try:
        if data.get("sha256") != _checksum(content):
            raise Untrusted("it has been changed or damaged: its checksum is wrong")
        header: Header = from_json(Header, content["header"])
        datetime.fromisoformat(header.date).astimezone()
    except UserError as error:
        raise Untrusted(str(error)) from error
    except (ValueError, OverflowError) as error:
        raise Untrusted(f"it holds what no result does: {error}") from error
    parts = content["parts"]
    if not isinstance(parts, list) or not _KEY.fullmatch(header.key):
        raise Untrusted("it is not a result of this tool")
    if not 0 < len(parts) <= header.n_parts or not header.key.startswith(f"{header.method}-"):
        raise Untrusted("its header does not fit its parts")
    return header, parts


def _set_aside(path: Path, sign: tuple[int, ...], reason: str) -> None:
    """Move a file that lies under the name of a result made here; say so of any other."""
    if path.parent != RESULTS or obstacle(path):
        _say_once(path, reason)
        return
    place, number = DAMAGED / path.name, 1
    while place.exists():
        place, number = DAMAGED / f"{path.name}.{number}", number + 1
    try:
        DAMAGED.mkdir(parents=True, exist_ok=True)
        if _sign(path) == sign:  # another process may have put a good one there
            os.replace(path, place)
            _log.warning("%s was moved to %s, because %s.", path, place, reason)
    except OSError as error:
        _log.warning("%s is not used, because %s. (%s)", path, reason, error.strerror)


@lru_cache(maxsize=1024)
def _say_once(path: Path, reason: str) -> None:
    _log.warning("%s is not used, and left where it is, because %s.", shown(path), reason)


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
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _checksum(content: Any) -> str:
    return hashlib.sha256(_canonical(content).encode()).hexdigest()
