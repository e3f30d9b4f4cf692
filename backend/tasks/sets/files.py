"""The sets that are kept here, under their names: `cache/local/prompts`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from backend.core.errors import UserError
from backend.core.files import LOCAL, read_json, shown, write_atomically
from backend.core.names import plain_name
from backend.core.read_only import check_allowed
from backend.core.serialize import from_json, to_json
from backend.tasks.sets.rows import MAX_KB, Misfit, Row, rows_of
from backend.tasks.task import Task

ADDED = LOCAL / "prompts"
FORMAT = "circuit-explorer/prompts/1"
_MOST_BYTES = 4 * MAX_KB * 1024


@dataclass(frozen=True, eq=False)
class Kept:
    """What a set says: rows for a task, by its name, and those that were not read."""

    task: str
    rows: tuple[Row, ...]
    misfits: tuple[Misfit, ...]


def names() -> tuple[str, ...]:
    """Names of the sets that are kept, whatever is in their files."""
    return tuple(sorted(path.stem for path in ADDED.glob("*.json")))


def kept(name: str) -> Kept:
    """The set of this name; raises UserError when there is none, or its file is malformed."""
    if name not in names():
        known = ", ".join(names()) or "none; add one"
        raise UserError(f"There are no prompts “{name[:60]}”. Choose of {known}.")
    path = ADDED / f"{plain_name(name)}.json"
    try:
        state = path.stat()
    except OSError as error:
        raise UserError(f"{shown(path)} cannot be read. Choose other prompts.") from error
    return _read(path, state.st_mtime_ns, state.st_size)


def add(name: str, content: bytes, task: Task) -> Kept:
    """Keep the prompts of a CSV or JSONL text under a name, in place of earlier ones.

    Raises UserError for a name that is not plain, and where no row can be used.
    """
    check_allowed("To add prompts")
    plain_name(name)
    read = rows_of(content, task)
    rows = tuple(row for row in read if isinstance(row, Row))
    misfits = tuple(row for row in read if isinstance(row, Misfit))
    if not rows:
        told = "; ".join(f"row {each.number}: {each.reason}" for each in misfits[:5])
        raise UserError(f"None of {len(misfits)} rows can be used: {told}. Mend them.")
    found = Kept(task.name, rows, misfits)
    path = ADDED / f"{name}.json"
    try:
        write_atomically(path, json.dumps({"format": FORMAT, **to_json(found)}) + "\n")
    except OSError as error:
        raise UserError(
            f"The prompts cannot be written to {shown(path)} ({error.strerror}). Make room or "
            "rights there."
        ) from error
    return found


def remove(name: str) -> None:
    """Delete a set; raises UserError when there is none."""
    check_allowed("To remove prompts")
    if name not in names():
        raise UserError(f"There are no prompts “{name[:60]}”. Choose some that were added.")
    try:
        (ADDED / f"{plain_name(name)}.json").unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"“{name}” cannot be deleted ({error.strerror}). Mend the rights of {shown(ADDED)}."
        ) from error


@lru_cache(maxsize=32)
def _read(path: Path, _: int, __: int) -> Kept:
    data: Any = read_json(path, _MOST_BYTES)
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise UserError(f"{shown(path)} holds no prompts of this tool. Add them again.")
    found: Kept = from_json(Kept, data)
    if not found.rows or not all(_is_sound(row) for row in found.rows):
        raise UserError(f"{shown(path)} holds rows that cannot be. Add them again.")
    return found


def _is_sound(row: Row) -> bool:
    texts: Sequence[str] = (row.text, row.answer, *row.competitors, row.counterfactual or "x")
    return all(text.isprintable() and text for text in texts) and all(
        0 <= start < end <= len(row.text) for start, end in row.spans.values()
    )
