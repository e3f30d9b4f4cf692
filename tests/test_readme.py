"""What README says of the tests is there."""

from __future__ import annotations

import re

import pytest

from tests.dashboard import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
PROMISES = README.partition("## What is promised")[2].partition("\n## ")[0]
NAMED = sorted(set(re.findall(r"`(test_\w+\.py)(?:::(\w+))?`", PROMISES)))


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_every_test_that_stands_for_a_promise_is_there(file: str, name: str) -> None:
    (path,) = (ROOT / "tests").rglob(file)
    assert not name or f"def {name}(" in path.read_text(encoding="utf-8")


def test_the_promises_are_read() -> None:
    assert len(NAMED) > 30


def test_the_lines_of_python_run(capsys: pytest.CaptureFixture[str]) -> None:
    (lines,) = re.findall(r"```python\n(.*?)```", README, re.S)
    exec(lines, {})
    assert capsys.readouterr().out.count("Estimate(value=0.") == 3
