"""Everything that the Circuit page shows as one value, and the same as an address."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from backend.core.circuit import Group, Head
from backend.core.errors import UserError
from backend.tasks.entity_tracking import MAX_BOXES, MAX_SEED, MIN_BOXES
from backend.tasks.setting import Mode, Reading, Setting
from shell.frame.history import NodeKey, Switches

N_PROMPTS = (50, 100, 200, 500, 1000)
_NODE = re.compile(r"([ABCD])(\d{1,4})\.(\d{1,4})", re.ASCII)


@dataclass(frozen=True)
class View:
    """What is on the Circuit page; `example` counts prompts from 0, None is the first that is
    answered right."""

    model: str = "base"
    circuit: str = "base"
    n: int = 200
    seed: int = 0
    boxes: int = 7
    reading: Reading = Reading.circuit
    mode: Mode = Mode.mean
    source: str = "arithmetic-full"
    off: frozenset[NodeKey] = frozenset()
    switched: frozenset[NodeKey] = frozenset()
    outside: bool = False
    example: int | None = None

    @property
    def setting(self) -> Setting:
        """The model and the prompts."""
        return Setting(self.model, self.n, self.boxes, self.seed)

    @property
    def switches(self) -> Switches:
        """The switches alone."""
        return Switches(self.off, self.switched)


def to_query(view: View) -> dict[str, str]:
    """The view as query parameters; what has its default value is left out."""
    default = View()
    return {
        f.name: _write(getattr(view, f.name))
        for f in fields(View)
        if getattr(view, f.name) != getattr(default, f.name)
    }


def from_query(query: Mapping[str, str]) -> tuple[View, list[str]]:
    """Read query parameters; what cannot be read keeps its default and is named in a message."""
    values: dict[str, Any] = {}
    complaints = []
    for name, text in query.items():
        if name not in _READERS:
            continue
        try:
            values[name] = _READERS[name](text)
        except (ValueError, KeyError, UserError):
            complaints.append(f"“{name}={text[:40]}”")
    return View(**values), complaints


def _write(value: Any) -> str:
    if isinstance(value, frozenset):
        return ",".join(sorted(f"{group.name}{str(head)[1:]}" for group, head in value))
    if isinstance(value, Reading | Mode):
        return value.name
    return str(int(value)) if isinstance(value, bool) else str(value)


def _nodes(text: str) -> frozenset[NodeKey]:
    return frozenset(map(_node, text.split(","))) if text else frozenset()


def _node(text: str) -> NodeKey:
    match = _NODE.fullmatch(text)
    if not match:
        raise ValueError(text)
    return Group[match[1]], Head(int(match[2]), int(match[3]))


def _whole(allowed: Iterable[int] | range) -> Callable[[str], int]:
    def read(text: str) -> int:
        number = int(text)
        if number not in allowed:
            raise ValueError(text)
        return number

    return read


def _name(text: str) -> str:
    if not text.isprintable() or not 0 < len(text) <= 500:
        raise ValueError(text)
    return text


_READERS: dict[str, Callable[[str], Any]] = {
    "model": _name,
    "circuit": _name,
    "source": _name,
    "n": _whole(N_PROMPTS),
    "seed": _whole(range(MAX_SEED + 1)),
    "boxes": _whole(range(MIN_BOXES, MAX_BOXES + 1)),
    "reading": Reading.__getitem__,
    "mode": Mode.__getitem__,
    "off": _nodes,
    "switched": _nodes,
    "outside": lambda text: bool(_whole((0, 1))(text)),
    "example": _whole(range(max(N_PROMPTS))),
}
