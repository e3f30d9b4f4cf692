"""Results as JSON files in `cache/local/results`, where pages and the command line find them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from enum import Enum
from math import isfinite
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from backend.catalogue import plain_name
from backend.circuit import Head
from backend.errors import UserError

RESULTS = Path(__file__).parent.parent / "cache" / "local" / "results"


def plain(value: Any) -> Any:
    """The value as JSON has it; an undefined figure is null."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Enum):
        return value.name
    return None if isinstance(value, float) and not isfinite(value) else value


def revived(kind: Any, data: Any) -> Any:
    """The result of type `kind` out of what `plain` made of it.

    Raises UserError naming what does not fit, for a file that was written by something else.
    """
    if isinstance(kind, type) and is_dataclass(kind):
        of = get_type_hints(kind)
        needed = {field.name for field in fields(kind) if field.default is MISSING}
        if not isinstance(data, dict) or not needed <= data.keys():
            raise UserError(f"This is not a saved {kind.__name__}. Compute it again.")
        return kind(**{name: revived(of[name], data[name]) for name in of if name in data})
    if kind is Head and isinstance(data, list) and [type(part) for part in data] == [int, int]:
        return Head(*data)
    if kind is float and data is None:
        return float("nan")
    if isinstance(kind, UnionType):
        (some,) = (of for of in get_args(kind) if of is not type(None))
        return None if data is None else revived(some, data)
    if get_origin(kind) is tuple and isinstance(data, list):
        return tuple(revived(get_args(kind)[0], item) for item in data)
    if get_origin(kind) is Mapping and isinstance(data, dict):
        return {name: revived(get_args(kind)[1], item) for name, item in data.items()}
    if kind in (str, int, float) and isinstance(data, (int, float) if kind is float else kind):
        return data
    raise UserError(f"{str(data)[:60]!r} is not what a saved result holds there. Compute it again.")


def save(name: str, command: str, data: Mapping[str, Any]) -> Path:
    """Write a command's result under a plain name; raises UserError for any other name."""
    path = RESULTS / f"{plain_name(name)}.json"
    text = json.dumps({"command": command, **plain(data)}, indent=2)
    try:
        RESULTS.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"The result cannot be written to {path} ({error.strerror}). Make room or rights there."
        ) from error
    return path


def saved(command: str) -> dict[str, dict[str, Any]]:
    """What a command has saved, by name; files that are not results are passed over."""
    found = {}
    for path in sorted(RESULTS.glob("*.json")):
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(data, dict) and data.get("command") == command:
            found[path.stem] = data
    return found
