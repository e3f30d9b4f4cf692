"""Rows of prompts out of CSV or JSONL: each is read, or told why not (no tokenizer yet)."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backend.core.errors import UserError
from backend.core.files import json_of
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.sets.boxes import box_fields
from backend.tasks.task import Task

MOST_ROWS, MAX_KB = 5000, 4096
_LONGEST = 4000
_FIELDS = ("clean", "sentence", "counterfactual", "answer", "competitors", "positions")
_MARK = re.compile(r"\[([^\[\]|]+)\|(\w+)\]", re.ASCII)
_SEPARATOR = "|"
Span = tuple[int, int]


@dataclass(frozen=True)
class Row:
    """A prompt without its answer; spans: letters of its tokens with names, by name."""

    number: int
    text: str
    answer: str
    competitors: tuple[str, ...]
    counterfactual: str | None
    spans: Mapping[str, Span]


@dataclass(frozen=True)
class Misfit:
    """A row that is not used, counted from 1, and why: a clause."""

    number: int
    reason: str


class _Wrong(Exception):
    """What is wrong with a row, as a clause."""


def needed_tokens(task: Task) -> tuple[str, ...]:
    """The tokens that every row names: where circuits work, but for the last of the prompt."""
    return tuple(position.name for position in task.positions if position.tail != 1)


def known_tokens(task: Task) -> tuple[str, ...]:
    """The tokens that a row may name."""
    names = (*needed_tokens(task), *(role.name for role in task.roles))
    ends = {position.name for position in task.positions if position.tail == 1}
    return tuple(name for name in dict.fromkeys(names) if name not in ends)


def rows_of(content: bytes, task: Task) -> list[Row | Misfit]:
    """The rows of a file, in order; raises UserError for what is neither CSV nor JSONL."""
    if len(content) > MAX_KB * 1024:
        raise UserError(f"These prompts have more than {MAX_KB // 1024} MB. Choose fewer.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError("This is not text in UTF-8. Save it so.") from error
    rows = _json_rows(text) if text.lstrip().startswith("{") else _csv_rows(text)
    if not rows:
        raise UserError("There is no prompt in it. Write one on each line.")
    if len(rows) > MOST_ROWS:
        raise UserError(f"It has {len(rows)} prompts, and {MOST_ROWS} at most. Choose fewer.")
    return [_checked(number, row, task) for number, row in enumerate(rows, 1)]


def _json_rows(text: str) -> list[Any]:
    rows: list[Any] = []
    for line in filter(str.strip, text.splitlines()):
        try:
            rows.append(json_of(line))
        except ValueError as error:
            rows.append(str(error))
    return rows


def _csv_rows(text: str) -> list[Any]:
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        return [{key: of for key, of in row.items() if of not in ("", None)} for row in reader]
    except csv.Error as error:
        raise UserError(f"This is not CSV: {error}. Mend it, or write JSONL.") from error


def _checked(number: int, row: Any, task: Task) -> Row | Misfit:
    try:
        return _row(number, row, task)
    except _Wrong as error:
        return Misfit(number, str(error))


def _row(number: int, row: Any, task: Task) -> Row:
    if isinstance(row, str):
        raise _Wrong(row)
    if not isinstance(row, dict):
        raise _Wrong("it is no object with fields")
    known = known_tokens(task)
    for key in row:
        if key not in (*_FIELDS, *known):
            raise _Wrong(
                f"it has an unknown field {_some(key)}; there are {', '.join((*_FIELDS, *known))}"
            )
    if "sentence" in row:
        text, _, last = _line(row, "sentence").rstrip(" .").rpartition(" ")
        row = {"answer": last} | {key: of for key, of in row.items() if key != "sentence"}
        row = (box_fields(text, last) if task.name == ENTITY_TRACKING.name else {}) | row
        row["clean"] = row.get("clean", text)
    marked = _line(row, "clean")
    text, spans = _unmarked(marked)
    if not text or text != text.strip():
        raise _Wrong("its prompt is empty, or has a space at an end")
    words = _named(row, known)
    for name in (*spans, *words):
        if name not in known:
            raise _Wrong(f"it marks {_some(name)}; there are {', '.join(known)}")
    spans |= {name: _find(name, word, text) for name, word in words.items()}
    for name in needed_tokens(task):
        if name not in spans:
            raise _Wrong(
                f"it does not say where “{name}” is: mark it as [word|{name}], or give its word"
            )
    other = _unmarked(_line(row, "counterfactual"))[0] if "counterfactual" in row else None
    return Row(number, text, _line(row, "answer"), _competitors(row), other, spans)


def _named(row: Mapping[str, Any], known: Sequence[str]) -> dict[str, Any]:
    """Tokens that are named by their words."""
    table = row.get("positions", {})
    if not isinstance(table, dict):
        raise _Wrong("its “positions” are no object from names to words")
    return {**table, **{name: row[name] for name in known if name in row}}


def _line(row: Mapping[str, Any], key: str) -> str:
    """A field that is a line of text."""
    if key not in row:
        raise _Wrong(f"it has no “{key}”")
    text = row[key]
    if not isinstance(text, str) or not text.isprintable() or not 0 < len(text) <= _LONGEST:
        raise _Wrong(f"its “{key}” is no line of text")
    return text


def _competitors(row: Mapping[str, Any]) -> tuple[str, ...]:
    found = row.get("competitors", [])
    words = [word.strip() for word in found.split(_SEPARATOR)] if isinstance(found, str) else found
    is_words = isinstance(words, list) and all(
        isinstance(word, str) and word.isprintable() and 0 < len(word) <= _LONGEST for word in words
    )
    if not is_words or not words:
        raise _Wrong(f"its “competitors” are no words, apart by “{_SEPARATOR}”")
    return tuple(words)


def _unmarked(marked: str) -> tuple[str, dict[str, Span]]:
    """A text without its marks, and the letters that they were around."""
    text, spans, start = "", dict[str, Span](), 0
    for mark in _MARK.finditer(marked):
        text += marked[start : mark.start()]
        if mark[2] in spans:
            raise _Wrong(f"it marks {_some(mark[2])} twice")
        spans[mark[2]] = (len(text), len(text) + len(mark[1]))
        text += mark[1]
        start = mark.end()
    return text + marked[start:], spans


def _find(name: str, word: Any, text: str) -> Span:
    """Where a word is in the text, as “word” or “word#2”, its second time."""
    if not isinstance(word, str) or not word:
        raise _Wrong(f"its word for “{name}” is no text")
    plain, _, time = word.partition("#")
    places = [
        (found.start(), found.end())
        for found in re.finditer(rf"(?<!\w){re.escape(plain)}(?!\w)", text)
    ]
    if not places:
        raise _Wrong(f"its word {_some(plain)} for “{name}” is not in the prompt")
    if not time and len(places) > 1:
        raise _Wrong(
            f"its word {_some(plain)} for “{name}” is there {len(places)} times: write which as "
            f"{_some(plain + '#1')}"
        )
    place = int(time) if time.isascii() and time.isdigit() and len(time) < 4 else 1
    if not 1 <= place <= len(places):
        raise _Wrong(f"its word {_some(plain)} for “{name}” is there {len(places)} times only")
    return places[place - 1]


def _some(text: object) -> str:
    line = "".join(c if c.isprintable() else " " for c in str(text))
    return f"“{line}”" if len(line) <= 40 else f"“{line[:40]}…”"
