"""The fields of a file that people write: each is checked, and named where it is wrong."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from backend.core.errors import UserError
from backend.core.files import shown

LONGEST_LINE, LONGEST_TEXT = 200, 4000
_NAME = re.compile(r"[a-z][a-z0-9_]{0,29}", re.ASCII)
_MARKUP = re.compile(r"[\\`*_\[\]|$~<>&{}#@]|:(?=[^\s\d]|\d+:)|www\.", re.IGNORECASE)
"""What a page would take for markup, a link or an icon."""


@dataclass(frozen=True)
class Field:
    """A value in a file and where it is, as `groups[2].into`, counted from 1."""

    path: str
    value: Any

    def wrong(self, reason: str, advice: str) -> UserError:
        """The error that names this field: what is wrong, and what to write there instead."""
        return UserError(f"The field “{shown(self.path)}” {reason}. {advice}.")

    def text(self, longest: int = LONGEST_LINE) -> str:
        """Text as it is, of printable characters; raises UserError for anything else."""
        text = self.value
        if not isinstance(text, str):
            raise self.wrong(f"holds {some(text)}, which is no text", "Write it in quotes")
        if not 0 < len(text) <= longest:
            raise self.wrong(f"has {len(text)} letters", f"Write 1 to {longest}")
        if not text.isprintable():
            raise self.wrong("holds a letter that cannot be shown", "Write it on one line")
        return text

    def prose(self, longest: int = LONGEST_LINE) -> str:
        """Text for readers, its lines joined; raises UserError for markup as for anything else."""
        value = self.value
        words = " ".join(value.split()) if isinstance(value, str) else value
        text = Field(self.path, words).text(longest)
        if found := _MARKUP.search(text):
            raise self.wrong(f"holds “{found[0]}”", "Write plain words, without markup or links")
        return text

    def name(self) -> str:
        """A name within the file; raises UserError for anything else."""
        if not isinstance(self.value, str) or not _NAME.fullmatch(self.value):
            raise self.wrong(
                f"holds {some(self.value)}, which is no name",
                "Use up to 30 small letters, digits and “_”, a letter first",
            )
        return self.value

    def one_of(self, known: Collection[str], what: str) -> str:
        """One of some names; raises UserError for anything else."""
        if not isinstance(self.value, str) or self.value not in known:
            raise self.wrong(
                f"holds {some(self.value)}, which is no {what}", _choose(known).capitalize()
            )
        return self.value

    def number(self, least: int, most: int) -> int:
        """A whole number in this range; raises UserError for anything else."""
        if type(self.value) is not int or not least <= self.value <= most:
            raise self.wrong(
                f"holds {some(self.value)}", f"Write a whole number from {least} to {most}"
            )
        return self.value

    def flag(self) -> bool:
        """True or false; raises UserError for anything else."""
        if not isinstance(self.value, bool):
            raise self.wrong(f"holds {some(self.value)}", "Write true or false")
        return self.value

    def items(self, most: int, least: int = 1) -> list[Field]:
        """The items of a list, each with its place; raises UserError for anything else."""
        if not isinstance(self.value, list):
            raise self.wrong(f"holds {some(self.value)}, which is no list", "Write a list in [ ]")
        if not least <= len(self.value) <= most:
            raise self.wrong(f"has {len(self.value)} items", f"Write {least} to {most}")
        return [Field(f"{self.path}[{place}]", item) for place, item in enumerate(self.value, 1)]

    def entries(self, most: int) -> list[Field]:
        """What a table holds, whatever the names are; raises UserError for anything else."""
        if not isinstance(self.value, dict):
            raise self.wrong(f"holds {some(self.value)}, which is no table", "Write a table there")
        if not 0 < len(self.value) <= most:
            raise self.wrong(f"has {len(self.value)} entries", f"Write 1 to {most}")
        return [
            Field(f"{self.path}.{key}" if self.path else key, value)
            for key, value in self.value.items()
        ]

    def table(self, needed: Collection[str], optional: Collection[str] = ()) -> Table:
        """A table with these fields; raises UserError for one missing or unknown."""
        if not isinstance(self.value, dict):
            raise self.wrong(f"holds {some(self.value)}, which is no table", "Write a table there")
        known = (*needed, *optional)
        for key in self.value:
            if key not in known:
                raise self.inner(key).wrong("is not known", f"Leave it out, or {_choose(known)}")
        for key in needed:
            if key not in self.value:
                raise self.inner(key).wrong("is missing", "Write it")
        return Table(self)

    def inner(self, key: str) -> Field:
        """The field with this name in a table."""
        path = f"{self.path}.{key[:60]}" if self.path else key[:60]
        return Field(path, self.value.get(key))


@dataclass(frozen=True)
class Table:
    """A table whose fields are known; `at` says where it is."""

    at: Field

    def __getitem__(self, key: str) -> Field:
        return self.at.inner(key)

    def __contains__(self, key: str) -> bool:
        return key in self.at.value

    def given(self, *keys: str) -> Iterator[Field]:
        """Those of these fields that are there."""
        return (self[key] for key in keys if key in self)


def some(value: Any) -> str:
    """What is in a field, or its beginning, as a line."""
    text = f"“{value}”" if isinstance(value, str) else repr(value)
    line = "".join(c if c.isprintable() else " " for c in text)
    return line if len(line) <= 60 else f"{line[:60]}…"


def _choose(known: Collection[str]) -> str:
    names = list(known)
    if len(names) < 2:
        return f"choose {names[0]}" if names else "there is none to choose"
    return f"choose of {', '.join(names)}"
