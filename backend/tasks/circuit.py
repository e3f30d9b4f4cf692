"""Circuits: the heads of a task's groups, as values and as files (no torch)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from backend.core.errors import UserError
from backend.core.files import json_of
from backend.core.heads import Head, ModelShape, Site
from backend.core.serialize import to_json
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.registry import task_named
from backend.tasks.task import Task

FORMAT = "circuit-explorer/circuit/1"
_LONGEST_NAME = 500
_MOST = 10_000
"""Layers, and heads in a layer, that any model has fewer of."""
_AUTHORS_KEYS = {
    "A": "value_fetcher",
    "B": "pos_transmitter",
    "C": "pos_detector",
    "D": "struct_reader",
}

Node = tuple[str, Head]
"""The key of a group, and a head in it."""


@dataclass(frozen=True)
class Circuit:
    """Attention heads by group; a head may be in two groups, at two positions.

    provenance: how it was found, and anything else that its file says; it makes no other circuit.
    Raises UserError for a group that the task does not have.
    """

    task: Task
    nodes: frozenset[Node]
    name: str = "circuit"
    provenance: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        unknown = {key for key, _ in self.nodes} - {*self.task.keys}
        if unknown:
            raise UserError(
                f"{self.task.title} has no group {', '.join(sorted(unknown))[:60]}. Choose of "
                f"{', '.join(self.task.keys)}."
            )

    @classmethod
    def of(
        cls,
        task: Task,
        groups: Mapping[str, Iterable[Head]],
        name: str = "circuit",
        provenance: Mapping[str, Any] | None = None,
    ) -> Circuit:
        """The circuit with these heads in the groups with these keys."""
        nodes = frozenset((key, head) for key, heads in groups.items() for head in heads)
        return cls(task, nodes, name, provenance or {})

    def heads(self, key: str) -> tuple[Head, ...]:
        """The heads of one group, in order."""
        return tuple(sorted(head for of, head in self.nodes if of == key))

    @property
    def members(self) -> tuple[Node, ...]:
        """Every (group, head), in the order in which information flows through them."""
        order = (group.key for group in self.task.reading_order)
        return tuple((key, head) for key in order for head in self.heads(key))

    @property
    def sites(self) -> frozenset[Site]:
        """The (head, position) pairs of the circuit; groups may share a token."""
        return self.sites_of(self.task.keys)

    def sites_of(self, keys: Iterable[str]) -> frozenset[Site]:
        """The (head, position) pairs of some groups."""
        return frozenset(
            Site(head, self.task.group(key).position) for key in keys for head in self.heads(key)
        )

    def keep(self, members: Iterable[Node]) -> Circuit:
        """The circuit made of just these members, with the same name and provenance."""
        return Circuit(self.task, frozenset(members), self.name, self.provenance)

    def check(self, shape: ModelShape, model_name: str) -> None:
        """Raise UserError if a head lies outside a model of this shape."""
        for key, head in self.members:
            if head.layer >= shape.n_layers or head.index >= shape.n_heads:
                raise UserError(
                    f"The circuit “{self.name}” has head {head} in group {key}, but "
                    f"{model_name} has only {shape.n_layers} layers of {shape.n_heads} heads "
                    "(counted from 0). Choose a circuit that was found in a model of this shape."
                )

    def check_task(self, task: Task) -> None:
        """Raise UserError if it is a circuit for another task."""
        if self.task.family != task.family:
            raise UserError(
                f"The circuit “{self.name}” is for {self.task.title.lower()}, and the prompts are "
                f"of {task.title.lower()}. Choose a circuit for that task."
            )

    def as_data(self) -> dict[str, Any]:
        """The circuit as JSON has it, provenance included."""
        return {
            "format": FORMAT,
            "task": self.task.family,
            "name": self.name,
            "groups": {key: [[*head] for head in self.heads(key)] for key in self.task.keys},
            "provenance": to_json(self.provenance),
        }

    def to_json(self) -> str:
        """The circuit as JSON text, provenance included."""
        return json.dumps(self.as_data(), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Circuit:
        """Read what to_json or the paper's authors wrote.

        The authors' files have no field “groups”, and call the groups `value_fetcher`,
        `pos_transmitter`, `pos_detector` and `struct_reader`. Raises UserError naming the field
        that is wrong.
        """
        try:
            data = json_of(text)
        except ValueError as error:
            raise UserError(
                f"This is not a circuit file: {error}. Choose a JSON file saved by this tool."
            ) from error
        return cls.from_data(data)

    @classmethod
    def from_data(cls, data: Any) -> Circuit:
        """Read what as_data gave, or the authors' keys; raises UserError naming a wrong field."""
        if isinstance(data, dict) and "groups" not in data and data.keys() & _AUTHORS_KEYS.values():
            found = {
                key: _parse_heads(field, data.get(field, []))
                for key, field in _AUTHORS_KEYS.items()
            }
            return cls.of(ENTITY_TRACKING, found, provenance={"format": "the paper's authors'"})
        if not isinstance(data, dict) or not isinstance(data.get("groups"), dict):
            raise UserError(
                "This JSON has no field “groups”. Choose a circuit file saved by this tool."
            )
        provenance = data.get("provenance", {})
        if not isinstance(provenance, dict):
            raise UserError("The field “provenance” must be an object. Mend it or leave it out.")
        # Files of the first versions name no task: there was but one.
        task = task_named(str(data.get("task", ENTITY_TRACKING.name)))
        if not data["groups"] or not data["groups"].keys() <= set(task.keys):
            raise UserError(
                f"The field “groups” holds {_some(list(data['groups']))}. Write the heads of "
                f"{', '.join(task.keys[:-1])} and {task.keys[-1]} there, of one or more of them."
            )
        found = {key: _parse_heads(f"groups.{key}", heads) for key, heads in data["groups"].items()}
        return cls.of(task, found, _parse_name(data.get("name", "circuit")), provenance)


def _parse_name(name: Any) -> str:
    is_line = isinstance(name, str) and name.isprintable() and 0 < len(name) <= _LONGEST_NAME
    if not is_line:
        raise UserError(
            f"The field “name” holds {_some(name)}. Write a line of text there, of at most "
            f"{_LONGEST_NAME} letters, or leave it out."
        )
    return str(name)


def _parse_heads(field_name: str, pairs: Any) -> tuple[Head, ...]:
    if not isinstance(pairs, list):
        raise UserError(
            f"The field “{field_name}” must be a list, and holds {_some(pairs)}. Mend the file."
        )
    for pair in pairs:
        is_head = isinstance(pair, list) and len(pair) == 2
        if not is_head or any(type(n) is not int or not 0 <= n < _MOST for n in pair):
            raise UserError(
                f"The field “{field_name}” holds {_some(pair)}, which is not a head. "
                "Write each head as [layer, index], both counted from 0."
            )
    return tuple(sorted({Head(*pair) for pair in pairs}))


def _some(data: Any) -> str:
    """What is in a field, or its beginning."""
    text = json.dumps(data)
    return text if len(text) <= 60 else f"{text[:60]}…"
