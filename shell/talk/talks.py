"""The talks there are: those that ship with this tool, and those that are kept here."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

from backend.core.errors import UserError
from backend.core.files import LOCAL, read, write_atomically
from backend.core.names import plain_name
from backend.core.read_only import check_allowed
from shell.talk.talk import MAX_KB, Talk, from_text, to_text

SHIPPED = Path(__file__).parent / "shipped"
ADDED = LOCAL / "talks"


def names() -> tuple[str, ...]:
    """Names of all talks, those that ship first."""
    return tuple(dict.fromkeys((*_in(SHIPPED), *_in(ADDED))))


def is_shipped(name: str) -> bool:
    """Whether a talk comes with this tool, and cannot be changed."""
    return name in _in(SHIPPED)


def talk(name: str) -> Talk:
    """The talk of this name; raises UserError when there is none, or it cannot be read."""
    path = _path(name)
    try:
        changed = path.stat().st_mtime_ns
    except OSError as error:
        raise UserError(
            f"There is no talk “{name}” here. Choose one on the Talks page, or import its file."
        ) from error
    return _read(path, changed)


def keep(name: str, what: Talk) -> None:
    """Write a talk under a name. Raises UserError for a name that cannot be one, or one that ships,
    for a talk that is too large, and when it cannot be written."""
    check_allowed("To keep or change a talk")
    if is_shipped(name):
        raise UserError(f"“{name}” comes with this tool. Make a copy of it and change that.")
    text = to_text(what)
    from_text(text)
    path = _path(name)
    try:
        write_atomically(path, text)
    except OSError as error:
        raise UserError(
            f"The talk cannot be written to {path} ({error.strerror}). Make room or rights there."
        ) from error


def add(name: str, what: Talk) -> str:
    """Keep a talk under a name, or under one like it that is free, and return that."""
    free, number = name, 1
    while free in names():
        number += 1
        free = f"{name[:60]}-{number}"
    keep(free, what)
    return free


def rename(name: str, title: str) -> None:
    """Give a talk another title; its name, and so its address, stays."""
    known = talk(name)
    keep(name, Talk(title, known.steps, known.needs))


def drop(name: str) -> None:
    """Delete a talk that is kept here."""
    check_allowed("To delete a talk")
    if not is_shipped(name):
        _path(name).unlink(missing_ok=True)


def name_for(title: str) -> str:
    """A name for the file of a talk with this title; raises UserError if there is none in it."""
    return plain_name("-".join(re.findall(r"[A-Za-z0-9_]+", title))[:60].lower())


def _in(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in folder.glob("*.json") if path.stem.isprintable()))


def _path(name: str) -> Path:
    return (SHIPPED if is_shipped(name) else ADDED) / f"{plain_name(name)}.json"


@lru_cache(maxsize=64)
def _read(path: Path, changed: int) -> Talk:
    return from_text(read(path, MAX_KB * 1024))
