"""BibTeX: three entries, whatever the names."""

from __future__ import annotations

import re
import tomllib

import pytest

from backend.core.heads import Head
from backend.tasks.circuit import Circuit
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.prompts import Prompts
from takehome.citations import VERSION, bibtex, subject_of
from tests.dashboard import ROOT

PROMPTS = Prompts(ENTITY_TRACKING, 20, 0, (2,))


def entries(text: str) -> dict[str, dict[str, str]]:
    """Fields by the key of their entry, by BibTeX's rules: braces stand in pairs."""
    found = {}
    for start in re.finditer(r"@(\w+)\{([A-Za-z0-9]+),", text):
        fields, at = {}, start.end()
        while match := re.compile(r"\s*(\w+)\s*=\s*\{").match(text, at):
            depth, at = 1, match.end()
            begin = at
            while depth:
                if text[at] == "\\":
                    at += 1
                elif text[at] in "{}":
                    depth += 1 if text[at] == "{" else -1
                at += 1
            fields[match[1]] = " ".join(text[begin : at - 1].split())
            at += text[at] == ","
        assert re.match(r"\s*\}", text[at:])
        found[start[2]] = fields
    return found


@pytest.mark.parametrize("name", ["found", "50 % {of} _it_ & \\more $x$ #1 ~ ^ }"])
def test_the_paper_the_tool_and_the_result(name: str) -> None:
    circuit = Circuit.of(ENTITY_TRACKING, {"A": [Head(4, 0)]}, name)
    found = entries(bibtex(subject_of(circuit, "base", PROMPTS, "2026-11-27")))
    paper, tool, result = found.values()
    assert "Fine-Tuning Enhances Existing Mechanisms" in paper["title"]
    assert paper["year"] == "2024"
    assert tool["version"] == VERSION
    assert result["year"] == "2026"
    assert "20 prompts, seed 0, 2 boxes" in result["note"]
    assert "of Base" in result["title"]
    for letter in "%&$#_":
        assert not re.search(rf"(?<!\\){re.escape(letter)}", result["title"])


def test_the_day_is_the_circuits_own_if_it_is_one() -> None:
    for date, day in (("2025-01-02", "2025-01-02"), ("} soon", "2026-11-27"), (3, "2026-11-27")):
        circuit = Circuit.of(ENTITY_TRACKING, {"A": [Head(4, 0)]}, "x", {"date": date})
        assert subject_of(circuit, "base", PROMPTS, "2026-11-27").date == day


def test_the_version_is_that_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == VERSION
