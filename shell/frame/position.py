"""Where one is in a talk, as a value and as part of the address."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from backend.core.errors import UserError
from backend.core.names import plain_name


@dataclass(frozen=True)
class Position:
    """A step of the talk of this name, from 0."""

    talk: str
    step: int = 0


def to_query(position: Position | None) -> dict[str, str]:
    """The position as query parameters; people count steps from 1."""
    return {} if position is None else {"talk": position.talk, "step": str(position.step + 1)}


def from_query(query: Mapping[str, str]) -> tuple[Position | None, list[str]]:
    """Read query parameters; what cannot be read is named in a message."""
    if "talk" not in query:
        return None, []
    try:
        talk = plain_name(query["talk"])
    except UserError:
        return None, [f"“talk={query['talk'][:40]}”"]
    step = query.get("step", "1")
    if not (step.isascii() and step.isdecimal() and 0 < len(step) <= 4 and int(step)):
        return Position(talk), [f"“step={step[:40]}”"]
    return Position(talk, int(step) - 1), []
