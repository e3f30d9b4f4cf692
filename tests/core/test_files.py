"""Files: whatever lies there, they are read in no time or refused in a sentence."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from backend.core.errors import UserError
from backend.core.files import (
    MB,
    Absent,
    is_file,
    json_of,
    obstacle,
    read,
    read_json,
    read_text,
    shown,
    write_atomically,
)


def _socket(place: Path) -> None:
    # The name of a socket may not be long.
    here = os.open(place.parent, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as new:
        new.bind(f"/proc/self/fd/{here}/{place.name}")
    os.close(here)


def _link_to_pipe(place: Path) -> None:
    os.mkfifo(place.with_name("pipe"))
    place.symlink_to(place.with_name("pipe"))


ODD: dict[str, Callable[[Path], None]] = {
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
    "a socket": _socket,
    "a device": lambda place: place.symlink_to("/dev/zero"),
    "a pipe, ": _link_to_pipe,
}


@pytest.mark.parametrize("kind", ODD)
def test_only_ordinary_files_are_read(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "x.json"
    ODD[kind](place)
    with pytest.raises(
        UserError, match=rf"x\.json cannot be read: it is {kind}.*not an ordinary file.* Mend it or"
    ):
        read(place, MB)
    assert not is_file(place)


@pytest.mark.parametrize("kind", ODD)
def test_only_ordinary_files_are_replaced(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "x.json"
    ODD[kind](place)
    before = place.lstat()
    assert (obstacle(place) or "").startswith("it is a ")
    with pytest.raises(FileExistsError, match="it is a"):
        write_atomically(place, "new")
    assert place.lstat() == before


def test_a_link_to_a_file_is_read_and_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("{}")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert read_json(tmp_path / "link", MB) == {}
    with pytest.raises(FileExistsError, match="it is a link"):
        write_atomically(tmp_path / "link", "new")
    assert (tmp_path / "file").read_text() == "{}"


def test_a_file_that_turns_into_a_pipe_blocks_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x").write_text("{}")
    state = (tmp_path / "x").stat()
    (tmp_path / "x").unlink()
    os.mkfifo(tmp_path / "x")
    monkeypatch.setattr(Path, "stat", lambda path: state)
    with pytest.raises(UserError, match="it is a pipe"):
        read(tmp_path / "x", MB)


def test_no_more_is_read_than_allowed(tmp_path: Path) -> None:
    with (tmp_path / "x").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(UserError, match="more than 1 MB"):
        read(tmp_path / "x", MB)
    (tmp_path / "y").write_bytes(b"1" * MB)
    assert len(read(tmp_path / "y", MB)) == MB


@pytest.mark.parametrize("name", ["nothing", "a" * 300, "a/" * 3000, "nul\0", "file/below", "loop"])
def test_what_cannot_be_there_is_absent(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert not is_file(tmp_path / name)
    with pytest.raises(Absent, match="there is no such file"):
        read(tmp_path / name, MB)


def test_what_may_not_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x").write_text("{}")

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(UserError, match=r"Permission denied.* Mend it"):
        read(tmp_path / "x", MB)


def _nested(depth: int) -> str:
    return "[" * depth + "]" * depth


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "not JSON"),
        ("{'a': 1}", "not JSON"),
        ("\ufeff{}", "not JSON"),
        (b"\xff\xfe{\0}\0", "not text in UTF-8"),
        (_nested(65), "more than 64 deep"),
        (_nested(900), "more than 64 deep"),
        (_nested(10**5), "more than 64 deep"),
        ('{"a":' * 10**5 + "1" + "}" * 10**5, "more than 64 deep"),
        ("9" * 41, "a number of 41 digits"),
        (f'{{"a": [-{"9" * 5000}]}}', "a number of 5001 digits"),
        (r'"\ud800"', "half of a letter"),
        (r'{"a\uDFFFb": 1}', "half of a letter"),
    ],
)
def test_json_that_would_break_something_later_is_refused(
    tmp_path: Path, content: str | bytes, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        json_of(content)
    (tmp_path / "x").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=rf"x cannot be read: .*{reason}.* Mend it"):
        read_json(tmp_path / "x", MB)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("9" * 40, int("9" * 40)),
        (r'"\ud83d\ude00 \\ud800"', "😀 \\ud800"),
        ('{"a": [1, null, true, "ü"]}', {"a": [1, None, True, "ü"]}),
        ("1", 1),
    ],
)
def test_all_other_json_is_what_it_is(text: str, value: object) -> None:
    assert json_of(text) == json_of(text.encode()) == value
    assert json_of(_nested(64))


def test_text_is_utf_8(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\xe9")
    with pytest.raises(UserError, match="not text in UTF-8"):
        read_text(tmp_path / "x", MB)
    (tmp_path / "x").write_text("é")
    assert read_text(tmp_path / "x", MB) == "é"


def test_a_path_is_one_line_of_text() -> None:
    assert shown("a\nb\udcff\u202e“c”") == "a\\nb\\udcff\\u202e“c”"
