"""Everything that the Circuit page shows as one value, and the same as an address."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

from backend.core.errors import UserError
from backend.core.heads import Head
from backend.core.metrics import Metric
from backend.core.read_only import MOST_PROMPTS, is_read_only
from backend.tasks.desiderata import Desideratum
from backend.tasks.prompts import MAX_SEED, N_PROMPTS, Prompts
from backend.tasks.registry import DEFAULT_TASK, task_named
from backend.tasks.setting import Mode, Reading, Setting
from backend.tasks.task import Task
from shell.frame.history import NodeKey, Switches

PROMPT_COUNTS = (50, 100, 200, 500, 1000)
_NODE = re.compile(r"([A-Z]{1,3})(\d{1,4})\.(\d{1,4})", re.ASCII)


@dataclass(frozen=True)
class View:
    """What is on the Circuit page; `example` counts prompts from 0, None is the first that is
    answered right; `circuit` is empty while there is none for the task, and so is `desideratum` for
    the path-patching counterfactual; `contributions` colours heads by what they add to the logits
    directly; `presenting` leaves out what an audience need not see."""

    task: Task = DEFAULT_TASK
    model: str = "base"
    circuit: str = "base"
    n: int = N_PROMPTS
    seed: int = 0
    options: tuple[int, ...] = ()
    reading: Reading = Reading.circuit
    mode: Mode = Mode.mean
    metric: Metric = Metric.accuracy
    source: str = "arithmetic-full"
    desideratum: str = ""
    off: frozenset[NodeKey] = frozenset()
    switched: frozenset[NodeKey] = frozenset()
    outside: bool = False
    contributions: bool = False
    example: int | None = None
    presenting: bool = False

    @property
    def setting(self) -> Setting:
        """The model and the prompts."""
        return Setting(self.model, self.prompts)

    @property
    def prompts(self) -> Prompts:
        """The prompts alone."""
        return Prompts(self.task, self.n, self.seed, self.options)

    @property
    def tested(self) -> Desideratum | None:
        """The test whose alternate prompts give the values of heads that are off, if one does."""
        if self.mode is not Mode.counterfactual or not self.desideratum:
            return None
        return self.task.desideratum(self.desideratum)

    @property
    def switches(self) -> Switches:
        """The switches alone."""
        return Switches(self.off, self.switched)


def prompt_counts() -> tuple[int, ...]:
    """How many prompts may be asked; fewer in a read-only dashboard."""
    return tuple(n for n in PROMPT_COUNTS if n <= MOST_PROMPTS or not is_read_only())


def default_view(task: Task) -> View:
    """What is shown of a task unless told otherwise; only the first one comes with a circuit."""
    if task.family == DEFAULT_TASK.family:
        return View(task=task)
    return View(task=task, circuit="")


def to_query(view: View) -> dict[str, str]:
    """The view as query parameters; what has its default value is left out."""
    default = default_view(view.task)
    written = {
        f.name: _write(getattr(view, f.name))
        for f in fields(View)
        if f.name != "options" and getattr(view, f.name) != getattr(default, f.name)
    }
    if view.task != DEFAULT_TASK:
        written["task"] = view.task.name
    for option, value in zip(view.task.options, view.prompts.options, strict=True):
        if value != option.default:
            written[option.name] = str(value)
    return written


def from_query(query: Mapping[str, str]) -> tuple[View, list[str]]:
    """Read query parameters; what cannot be read keeps its default and is named in a message."""
    values: dict[str, Any] = {}
    complaints = []

    def read(name: str, reader: Callable[[str], Any], default: Any) -> Any:
        try:
            return reader(query[name]) if name in query else default
        except (ValueError, KeyError, UserError):
            complaints.append(f"“{name}={query[name][:40]}”")
            return default

    task = read("task", task_named, DEFAULT_TASK)
    unread = object()
    nodes = partial(_nodes, keys=task.keys)
    readers = _READERS | {
        "off": nodes,
        "switched": nodes,
        "desideratum": lambda text: task.desideratum(text).name if text else "",
    }
    for name, reader in readers.items():
        if (value := read(name, reader, unread)) is not unread:
            values[name] = value
    values["options"] = tuple(
        read(option.name, _whole(range(option.least, option.most + 1)), option.default)
        for option in task.options
    )
    return replace(default_view(task), **values), complaints


def _write(value: Any) -> str:
    if isinstance(value, frozenset):
        return ",".join(sorted(f"{key}{str(head)[1:]}" for key, head in value))
    if isinstance(value, Reading | Mode | Metric):
        return value.name
    return str(int(value)) if isinstance(value, bool) else str(value)


def _nodes(text: str, keys: Collection[str]) -> frozenset[NodeKey]:
    return frozenset(_node(node, keys) for node in text.split(",")) if text else frozenset()


def _node(text: str, keys: Collection[str]) -> NodeKey:
    match = _NODE.fullmatch(text)
    if not match or match[1] not in keys:
        raise ValueError(text)
    return match[1], Head(int(match[2]), int(match[3]))


def _whole(allowed: Iterable[int] | range) -> Callable[[str], int]:
    def read(text: str) -> int:
        number = int(text)
        if number not in allowed:
            raise ValueError(text)
        return number

    return read


def _switch(text: str) -> bool:
    return bool(_whole((0, 1))(text))


def _name(text: str) -> str:
    if not text.isprintable() or not 0 < len(text) <= 500:
        raise ValueError(text)
    return text


_READERS: dict[str, Callable[[str], Any]] = {
    "model": _name,
    "circuit": _name,
    "source": _name,
    "n": lambda text: _whole(prompt_counts())(text),
    "seed": _whole(range(MAX_SEED + 1)),
    "reading": Reading.__getitem__,
    "mode": Mode.__getitem__,
    "metric": Metric.__getitem__,
    "outside": _switch,
    "contributions": _switch,
    "example": _whole(range(max(PROMPT_COUNTS))),
    "presenting": _switch,
}
