"""What README says of the tests is there."""

from __future__ import annotations

import re

import pytest

from tests.dashboard import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PROMISES = README.partition("## What is promised")[2].partition("\n## ")[0]
NAMED = sorted(set(re.findall(r"`(test_\w+\.py)(?:::(\w+))?`", PROMISES)))


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_every_test_that_stands_for_a_promise_is_there(file: str, name: str) -> None:
    (path,) = (ROOT / "tests").rglob(file)
    assert not name or f"def {name}(" in path.read_text(encoding="utf-8")


PATHS = re.findall(r"`([\w/]+(?:/|\.py))`", CONTRIBUTING)


@pytest.mark.parametrize("path", [path for path in PATHS if "NAME" not in path])
def test_what_contributing_names_is_there(path: str) -> None:
    assert (ROOT / path).exists()


def test_every_room_is_in_the_layout() -> None:
    rooms = {path.parent for room in ("backend", "shell") for path in ROOT.glob(f"{room}/*/*.py")}
    layout = README.partition("## Layout")[2]
    assert [str(room) for room in rooms if f" {room.name}/ " not in layout] == []


def test_the_promises_are_read() -> None:
    assert len(NAMED) > 30


def test_the_lines_of_python_run(capsys: pytest.CaptureFixture[str]) -> None:
    (lines,) = re.findall(r"```python\n(.*?)```", README, re.S)
    exec(lines, {})
    assert capsys.readouterr().out.count("Estimate(value=0.") == 4
