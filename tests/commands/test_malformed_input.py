"""Whatever is typed, uploaded, dropped or written by hand: a sentence that ends with what to do.

Each case goes through a public entrance, and is answered at once, without a traceback. Folders of
models have a table of their own.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import process_time
from types import SimpleNamespace

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from backend.commands import cli
from backend.core.errors import UserError
from backend.models import catalogue, registry
from backend.studies import store
from shell.frame import sidebar
from tests.dashboard import ROOT

LONGEST_S = 10
_WHAT_TO_DO = re.compile(
    r"\b([Cc]hoose|[Mm]end|[Ww]rite|[Gg]ive|[Aa]sk for|[Uu]se|[Dd]elete|[Pp]ut|is not like)\b"
)
Make = Callable[[Path], object]


@contextmanager
def at_once() -> Iterator[None]:
    """By the work that it takes: a busy machine is slow, and what blocks does so for ever."""
    started = process_time()
    yield
    assert process_time() - started < LONGEST_S


def ends_with_what_to_do(message: str) -> bool:
    *_, last = message.strip().splitlines()
    return bool(_WHAT_TO_DO.search(last))


def text(content: str | bytes) -> Make:
    """A way to make a file of this content."""
    return lambda path: path.write_bytes(
        content if isinstance(content, bytes) else content.encode()
    )


def groups(inside: str) -> Make:
    """A way to make a circuit file with this in its groups."""
    return text(f'{{"groups": {{{inside}}}}}')


def huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 2**40)


ODD: dict[str, tuple[Make, str]] = {
    "a pipe": (os.mkfifo, "it is a pipe, not an ordinary file"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "it is a device"),
    "a folder": (Path.mkdir, "it is a folder"),
    "a terabyte": (huge, "it has more than"),
    "a loop": (lambda path: path.symlink_to(path), "There is no circuit"),
}
CONTENTS: dict[str, tuple[Make, str]] = {
    "empty": (text(""), "not JSON"),
    "cut off": (text('{"groups": {"A": [[1,'), "not JSON"),
    "not text": (text(b"\xff\xfe{\0}\0"), "not text"),
    "zeros": (text(b"\0" * 1000), "not JSON"),
    "a picture": (text(b"\x89PNG\r\n\x1a\n\0\0"), "not text"),
    "marked": (text("\ufeff{}"), "not JSON"),
    "html": (text("<html><script>alert(1)</script>"), "not JSON"),
    "pickle": (text(b"\x80\x04\x95\x0b\0"), "not text"),
    "a word": (text("base"), "not JSON"),
    "a number": (text("7"), "no field “groups”"),
    "a list": (text("[[1, 2]]"), "no field “groups”"),
    "null": (text("null"), "no field “groups”"),
    "nothing": (text("{}"), "no field “groups”"),
    "a result": (text('{"format": "circuit-explorer/result/1"}'), "no field “groups”"),
    "deep lists": (text("[" * 10**6), "deep"),
    "deep objects": (text('{"a":' * 10**5), "deep"),
    "deep below": (groups(f'"A": {"[" * 900}{"]" * 900}'), "deep"),
    "5,000 digits": (groups(f'"A": [[0, {"9" * 5000}]]'), "a number of 5000 digits"),
    "41 digits": (groups(f'"A": [[0, {"9" * 41}]]'), "a number of 41 digits"),
    "40 digits": (groups(f'"A": [[{"9" * 40}, 0]]'), "groups.A"),
    "a surrogate": (groups(r'"A": [], "\ud800": []'), "half of a letter"),
    "no groups": (groups(""), "“groups” holds []"),
    "other groups": (groups('"E": [[1, 2]], "A": []'), "“groups” holds"),
    "names of groups": (groups('"Value Fetcher": [[1, 2]]'), "“groups” holds"),
    "groups in a list": (text('{"groups": [[1, 2]]}'), "“groups”"),
    "heads as an object": (groups('"A": {"0": [1, 2]}'), "groups.A"),
    "heads as a name": (groups('"A": "L1.2"'), "groups.A"),
    "a head as a name": (groups('"A": ["L1.2"]'), "groups.A"),
    "a head of three": (groups('"B": [[1, 2, 3]]'), "groups.B"),
    "half a head": (groups('"C": [[1]]'), "groups.C"),
    "a negative head": (groups('"D": [[-1, 0]]'), "groups.D"),
    "a truth": (groups('"D": [[true, 0]]'), "groups.D"),
    "a fraction": (groups('"A": [[1.5, 0]]'), "groups.A"),
    "infinite": (groups('"A": [[1e999, 0]]'), "groups.A"),
    "not a number": (groups('"A": [[NaN, 0]]'), "groups.A"),
    "a number as name": (text('{"groups": {"A": []}, "name": 3}'), "“name”"),
    "two lines": (text(r'{"groups": {"A": []}, "name": "a\nb"}'), "“name”"),
    "backwards": (text(r'{"groups": {"A": []}, "name": "\u202egpj"}'), "“name”"),
    "a long name": (text(f'{{"groups": {{"A": []}}, "name": "{"x" * 10**5}"}}'), "“name”"),
    "a note": (text('{"groups": {"A": []}, "provenance": "mine"}'), "“provenance”"),
    "the authors’": (text('{"value_fetcher": {"1": 2}}'), "value_fetcher"),
}
FAR_OFF = ("outside", (groups('"A": [[4, 8]]'), "has head L4.8 in group A, but"))


@pytest.mark.parametrize("name", [*ODD, *CONTENTS, FAR_OFF[0]])
def test_a_circuit_file_of_a_command(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, reason = (ODD | CONTENTS | dict([FAR_OFF]))[name]
    make(tmp_path / "circuit.json")
    with at_once():
        code = cli.main(["edges", "base", "--circuit", str(tmp_path / "circuit.json")])
    out, err = capsys.readouterr()
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert reason in err
    assert ends_with_what_to_do(err)
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("name", CONTENTS)
def test_an_uploaded_circuit(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, reason = CONTENTS[name]
    make(tmp_path / "circuit.json")
    content = (tmp_path / "circuit.json").read_bytes()
    complaint = _upload(monkeypatch, "circuit.json", content)
    assert reason in complaint
    assert ends_with_what_to_do(complaint)
    assert not catalogue.ADDED_CIRCUITS.exists()


@pytest.mark.parametrize(
    "file_name",
    ["", ".json", "a b.json", "base.json", "x" * 300 + ".json", "a\0b.json", "\ud800.json", "…"],
)
def test_the_name_of_an_uploaded_circuit(file_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    complaint = _upload(monkeypatch, file_name, b'{"groups": {"A": []}}')
    assert ends_with_what_to_do(complaint)
    assert not catalogue.ADDED_CIRCUITS.exists()


def _upload(monkeypatch: pytest.MonkeyPatch, name: str, content: bytes) -> str:
    """What the sidebar says of a file."""
    state = {"uploaded_circuit": SimpleNamespace(name=name, getvalue=lambda: content)}
    monkeypatch.setattr(st, "session_state", state)
    with at_once():
        sidebar._add_circuit()
    return str(state["upload_complaint"])


LONG = "a" * 300
ARGUMENTS: list[tuple[str, str]] = [
    ("accuracy", "required"),
    ("accuracy base --seed -1", "“-1” is not a whole number from 0 to 2147483647"),
    ("accuracy base --seed 2147483648", "is not a whole number"),
    ("accuracy base --seed 1.5", "is not a whole number"),
    ("accuracy base --seed 0x10", "is not a whole number"),
    ("accuracy base --seed ١", "is not a whole number"),
    (f"accuracy base --seed {'9' * 5000}", "is not a whole number"),
    ("accuracy base --prompts 0", "“0” is not a whole number from 1 to 100000"),
    ("accuracy base --prompts -5", "is not a whole number"),
    ("accuracy base --prompts 99999999999999999999", "is not a whole number"),
    ("accuracy base --prompts nan", "is not a whole number"),
    ("accuracy base --prompts many", "is not a whole number"),
    ("accuracy base --boxes 1", "“1” is not a whole number from 2 to 10"),
    ("accuracy base --boxes 11", "is not a whole number"),
    ("accuracy base --dtype int8", "invalid choice"),
    ("accuracy base --secret", "unrecognized arguments"),
    ("accuracy base --out {there}", "it is a folder"),
    ("accuracy base --out {there}/no/x.json", "its folder is not there"),
    (f"accuracy base --out {{there}}/{LONG}", "File name too long"),
    ("accuracy base --out {there}/\0", "cannot be written"),
    ("accuracy base --out /dev/null", "it is a device"),
    ("accuracy base --out {there}/link", "it is a link"),
    ("accuracy base --out {there}/pipe", "it is a pipe"),
    ("accuracy base --out {there}/file/x", "cannot be written"),
    ("accuracy base --out ~nobody-here/x", "cannot be written"),
    ("discover base --keep A=0", "is not like B=6"),
    (f"discover base --keep A={'9' * 5000}", "is not like B=6"),
    ("discover base --keep E=3", "is not like B=6"),
    ("discover base --save ../x", "cannot be used as a name"),
    ("discover base --until 1.5", "is not a number from 0.01 to 1"),
    ("discover base --until x", "is not a number from 0.01 to 1"),
    ("discover base --until 0.9 --most 0", "is not a whole number"),
    ("discover base --until 0.9 --growth z", "invalid choice"),
    ("discover base --save base", "Choose another name"),
    (f"discover base --save {LONG}", "cannot be used as a name"),
    ("cmap base", "required"),
    ("cmap base chat --heads L1", "is not like L4.0@last"),
    ("cmap base chat --heads L99999.0@last", "is not like L4.0@last"),
    ("cmap base chat --heads L1.0@middle", "is not like L4.0@last"),
    ("cmap base chat --heads @", "is not like L4.0@last"),
    ("cmap base chat --sets E", "is not like A+B"),
    ("cmap base chat --part o", "invalid choice"),
    ("minimality base --least nan", "is not a number from 0 to 100"),
    ("minimality base --removed 2", "is not a number from 0 to 1"),
    ("completeness base --sets 1000000000", "is not a whole number"),
    ("add a/b owner/name", "cannot be used as a name"),
    ("prove", "invalid choice"),
]


@pytest.mark.parametrize(("arguments", "reason"), ARGUMENTS)
def test_an_argument_is_checked_when_it_is_read(
    arguments: str, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "file")
    os.mkfifo(tmp_path / "pipe")
    before = {path: path.lstat() for path in tmp_path.iterdir()}
    with at_once(), pytest.raises(SystemExit) as ended:
        cli.main([word.format(there=tmp_path) for word in arguments.split(" ")])
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (2, "")
    assert err.startswith("usage: ")
    *_, last = err.splitlines()
    assert "error: " in last
    assert reason in last
    assert len(last) < 1000
    assert {path: path.lstat() for path in tmp_path.iterdir()} == before


ASKED: list[tuple[str, str]] = [
    ("accuracy no-such-model", "There is no model “no-such-model”"),
    (f"accuracy {LONG}", "There is no model"),
    (f"accuracy /{LONG}", "There is no model"),
    ("accuracy \0", "There is no model"),
    ("accuracy ../..", "There is no model"),
    ("accuracy /dev/zero", "There is no model"),
    ("accuracy a/b/c", "There is no model"),
    ("accuracy ~nobody-here", "There is no model"),
    ("accuracy base --device cuda:99", "cuda:99"),
    ("accuracy base --device toaster", "toaster"),
    ("faithfulness base --circuit nothing", "There is no circuit “nothing”"),
    (f"faithfulness base --circuit {LONG}", "There is no circuit"),
    ("faithfulness base --circuit \0", "There is no circuit"),
    ("faithfulness base --circuit /dev/zero", "it is a device"),
    ("faithfulness base --circuit /", "it is a folder"),
    ("compare base --overlap nothing", "There is no circuit “nothing”"),
    ("cmap base chat --heads L9999.9999@last", "There is no head L9999.9999@last in Base"),
    ("cmap base chat --heads L4.0@last+L0.8@query_label", "There is no head L0.8@query_label"),
    ("remove no-such-model", "was not added here"),
    ("remove base", "was not added here"),
    (f"add mine {LONG}", "There is no model"),
    ("add base owner/name", "Choose another name"),
    ("add mine owner/name --label a\nb", "must be a line of text"),
    (f"add mine owner/name --label {'x' * 600}", "must be a line of text"),
]


@pytest.mark.parametrize(("arguments", "reason"), ASKED)
def test_a_command_that_cannot_be_done(
    arguments: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with at_once():
        code = cli.main(arguments.split(" "))
    out, err = capsys.readouterr()
    assert (code, out) == (1, "")
    *_, last = err.splitlines()
    assert last.startswith("error: ")
    assert reason in last
    assert ends_with_what_to_do(err)


@pytest.mark.parametrize("arguments", ["accuracy \udcff", "faithfulness base --circuit /dev/zero"])
def test_a_command_as_a_process(arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "backend", *arguments.split(" ")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1


TABLES: dict[str, tuple[Make, str]] = {
    "empty table": (text("[x]"), "no source"),
    "not toml": (text("[x"), "cannot be read"),
    "bytes": (text(b"\xff"), "not text"),
    "deep": (text("x = " + "[" * 5000), "cannot be read"),
    "digits": (text(f"[x]\nsource = {'9' * 5000}"), "cannot be read"),
    "a surrogate": (text('[x]\nsource = "\\ud800"'), "cannot be read"),
    "a number": (text("[x]\nsource = 3"), "must be a line of text"),
    "a list": (text('[x]\nsource = ["a/b"]'), "must be a line of text"),
    "two lines": (text('[x]\nsource = "a/b"\nlabel = "a\\nb"'), "must be a line of text"),
    "too long": (text(f'[x]\nsource = "{"a" * 501}"'), "must be a line of text"),
    "a path inside": (text('[x]\nsource = "../b"'), "neither a hub name"),
    "a bad name": (text('["a b"]\nsource = "a/b"'), "cannot be used as a name"),
    "a field": (text('[x]\nsource = "a/b"\nrun = "c"'), "unknown field"),
    "a pipe": (os.mkfifo, "a pipe"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "a device"),
    "a folder": (Path.mkdir, "a folder"),
    "a terabyte": (huge, "more than 1 MB"),
}


@pytest.mark.parametrize("name", TABLES)
def test_models_written_by_hand(name: str) -> None:
    make, reason = TABLES[name]
    make(registry.ADDED)
    with at_once():
        complaint = str(registry.added().complaint)
    assert reason in complaint
    assert ends_with_what_to_do(complaint)
    assert next(iter(registry.models())) == "base"
    with pytest.raises(UserError):
        registry.add("new", "owner/name")


ADDRESSES = [
    {"n": "7", "seed": "-1", "boxes": "1", "reading": "all", "mode": "x", "off": "E1.2"},
    {"n": "9" * 5000, "seed": str(2**31), "boxes": "11", "example": "-1", "outside": "2"},
    {"n": "", "seed": "", "boxes": "", "reading": "", "mode": "", "example": "", "outside": ""},
    {"n": "1e2", "seed": "0x1", "boxes": "nan", "switched": "A1", "off": "A1.2,,A1.3"},
    {"model": "x" * 501, "circuit": "a\nb", "source": "\u202eb", "example": "1" * 40},
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address(address: dict[str, str]) -> None:
    test = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    test.switch_page("pages/results.py")
    for name, value in address.items():
        test.query_params[name] = value
    test.run()
    assert not test.exception
    assert not test.error


DROPPED: dict[str, Make] = {
    **{name: make for name, (make, _) in CONTENTS.items()},
    **{name: make for name, (make, _) in ODD.items() if name != "a loop"},
    "no results": text('{"results": []}'),
    "no header": text('{"format": "circuit-explorer/result/1", "parts": [], "sha256": ""}'),
}


@pytest.mark.parametrize("place", ["DROPPED", "RESULTS"])
def test_a_file_among_the_results(place: str) -> None:
    folder = getattr(store, place)
    folder.mkdir()
    for name, make in DROPPED.items():
        make(folder / f"{name}.json")
    before = {path: path.lstat() for path in folder.iterdir()}
    with at_once():
        assert store.entries() == []
        left = store.left()
    assert left.keys() == before.keys()
    assert {path: path.lstat() for path in folder.iterdir()} == before
    test = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    test.switch_page("pages/results.py").run()
    assert not test.exception
    (warning,) = test.warning
    assert "Mend them, or put them elsewhere" in warning.value


def test_there_are_many() -> None:
    cases = (ODD, CONTENTS, CONTENTS, ARGUMENTS, ASKED, TABLES, DROPPED, DROPPED)
    assert sum(map(len, cases)) + sum(map(len, ADDRESSES)) > 200
