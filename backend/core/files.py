"""Files: read only if ordinary and of bounded size, written whole or not at all.

Whatever lies where a file is expected may have been put there by anybody: a pipe would block, a
device never end, and a few bytes of JSON can hold what breaks a program far from here.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from backend.core.errors import UserError

CACHE = Path(__file__).parents[2] / "cache"
"""What ships with this tool: results that are there at once."""
VARIABLE = "CIRCUIT_EXPLORER_LOCAL"
LOCAL = Path(os.environ.get(VARIABLE) or CACHE / "local")
"""What is made here; elsewhere if the environment says so, as where homes are small."""
MB = 2**20
_DEEPEST = 64
_LONGEST_NUMBER = 40
_NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


class Unreadable(UserError):
    """A file that is not read; `reason` is a clause about it."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{shown(path)} cannot be read: {reason}. Mend it or choose another.")
        self.reason = reason


class Absent(Unreadable):
    """There is no such file."""


def is_file(path: Path) -> bool:
    """Whether an ordinary file is there, or a link to one; False for a name that none can have."""
    try:
        return path.is_file()
    except OSError:
        return False


def read(path: Path, at_most: int) -> bytes:
    """What is in an ordinary file of at most so many bytes, or in one that a link leads to.

    Raises Absent when there is none, and Unreadable when it is something else.
    """
    try:
        # Some devices do something when they are opened; what comes in between is seen below.
        _refuse_odd(path, path.stat(), at_most)
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            state = os.fstat(handle)
            _refuse_odd(path, state, at_most)
            return file.read(state.st_size)
    except ValueError as error:  # a NUL is in its name
        raise Absent(path, "there is no such file") from error
    except OSError as error:
        if error.errno in _NOWHERE:
            raise Absent(path, "there is no such file") from error
        raise Unreadable(path, str(error.strerror)) from error


def read_text(path: Path, at_most: int) -> str:
    """The text of a file; raises as `read` does, and Unreadable for what is not UTF-8."""
    try:
        return read(path, at_most).decode()
    except UnicodeDecodeError as error:
        raise Unreadable(path, "it is not text in UTF-8") from error


def read_json(path: Path, at_most: int) -> Any:
    """The JSON in a file; raises as `read` does, and Unreadable for what `json_of` refuses."""
    try:
        return json_of(read(path, at_most))
    except ValueError as error:
        raise Unreadable(path, str(error)) from error


def json_of(content: str | bytes) -> Any:
    """The JSON in a text; not one so deep, nor numbers or letters, that nothing else can take.

    Raises ValueError that says what is wrong with it.
    """
    try:
        text = content.decode() if isinstance(content, bytes) else content
        data = json.loads(text, parse_int=_whole_number)
        if _SURROGATE.search(text):
            json.dumps(data, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: {error}") from error
    except UnicodeDecodeError as error:
        raise ValueError("it is not text in UTF-8") from error
    except UnicodeEncodeError as error:
        raise ValueError("it holds half of a letter (a lone surrogate)") from error
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error
    level = [data]
    for _ in range(_DEEPEST):
        level = [each for some in level for each in _within(some)]
        if not level:
            return data
    raise ValueError(_TOO_DEEP)


def shown(path: Path | str) -> str:
    """A path as a line of text, whatever its name holds."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(path))


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that whoever reads it, whenever, finds all of the old or of the new one.

    Only an ordinary file is ever replaced. Raises OSError when it cannot be written.
    """
    if reason := obstacle(path):
        raise FileExistsError(errno.EEXIST, reason, str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    handle, name = tempfile.mkstemp(prefix=".", suffix=".unfinished", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def obstacle(path: Path) -> str | None:
    """What is there that no file should replace, as “it is a link”; None if nothing is.

    Raises OSError or ValueError for a name that no file can have.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return None
    kind = "a link" if stat.S_ISLNK(mode) else _KINDS.get(stat.S_IFMT(mode))
    return f"it is {kind}" if kind else None


_TOO_DEEP = f"it is nested more than {_DEEPEST} deep"


def _refuse_odd(path: Path, state: os.stat_result, at_most: int) -> None:
    if not stat.S_ISREG(state.st_mode):
        kind = _KINDS.get(stat.S_IFMT(state.st_mode), "something else")
        raise Unreadable(path, f"it is {kind}, not an ordinary file")
    if state.st_size > at_most:
        raise Unreadable(path, f"it has more than {at_most / MB:.0f} MB")


def _whole_number(digits: str) -> int:
    if len(digits) > _LONGEST_NUMBER:
        raise ValueError(f"it holds a number of {len(digits)} digits")
    return int(digits)


def _within(data: Any) -> Iterator[Any]:
    """The lists and objects in a list or an object."""
    values = data.values() if isinstance(data, dict) else data if isinstance(data, list) else ()
    return (value for value in values if isinstance(value, (dict, list)))
