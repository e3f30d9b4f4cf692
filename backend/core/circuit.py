"""Heads, sites, groups and circuits: the words of the paper as plain, immutable data (no torch)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

from backend.core.errors import UserError
from backend.core.files import json_of
from backend.core.serialize import to_json

FORMAT = "circuit-explorer/circuit/1"
_LONGEST_NAME = 500
_MOST = 10_000
"""Layers, and heads in a layer, that any model has fewer of."""


class Position(Enum):
    """A named token of the prompt, found in every prompt of a set (Prakash et al., setup)."""

    last = "last"
    """The token whose next token is the answer."""
    query_label = "query_label"
    """The label asked for, third token from the end."""
    prev_query_label = "prev_query_label"
    """The same label where it occurred in the context."""
    correct_object = "correct_object"
    """The object in the box asked for."""


class Group(Enum):
    """A group of heads that do one thing at one token (Prakash et al., figure 1)."""

    A = "Value Fetcher"
    """Attends to the right object from the last token and copies its value to the logits."""
    B = "Position Transmitter"
    """Attends to the query's label from the last token; tells A where to look (through A's q)."""
    C = "Position Detector"
    """Attends from the query's label to its previous occurrence; feeds B (through B's v)."""
    D = "Structure Reader"
    """Reads the segment around the previous occurrence of the label; feeds C (through C's v)."""

    @property
    def position(self) -> Position:
        """The token at which the group works."""
        return _POSITIONS[self]

    @property
    def composition(self) -> str:
        """What of the next group this one writes into: its "q" or "v", or the "logits"."""
        return _COMPOSITIONS[self]


_POSITIONS = {
    Group.A: Position.last,
    Group.B: Position.last,
    Group.C: Position.query_label,
    Group.D: Position.prev_query_label,
}
_COMPOSITIONS = {Group.A: "logits", Group.B: "q", Group.C: "v", Group.D: "v"}

READING_ORDER = (Group.D, Group.C, Group.B, Group.A)
"""The groups in the order in which information flows through them."""

_AUTHORS_KEYS = {
    Group.A: "value_fetcher",
    Group.B: "pos_transmitter",
    Group.C: "pos_detector",
    Group.D: "struct_reader",
}

_HEAD_NAME = re.compile(r"L(\d{1,4})\.(\d{1,4})", re.ASCII)


class Head(NamedTuple):
    """An attention head, counted from zero; on screen ``L14.27``."""

    layer: int
    index: int  # type: ignore[assignment]  # the field's word; tuple.index is not needed here

    def __str__(self) -> str:
        return f"L{self.layer}.{self.index}"

    @classmethod
    def parse(cls, name: str) -> Head:
        """Read ``L14.27``; raises UserError on anything else."""
        match = _HEAD_NAME.fullmatch(name)
        if not match:
            raise UserError(f"“{name}” is not a head. Write heads as L14.27: layer 14, head 27.")
        return cls(int(match[1]), int(match[2]))


class Site(NamedTuple):
    """A head at a named token: the unit that is knocked out or patched."""

    head: Head
    position: Position


class ModelShape(NamedTuple):
    """What two models must share for heads of one to be put into the other."""

    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_head: int


def check_sites(sites: Iterable[Site], shape: ModelShape, model_name: str) -> None:
    """Raise UserError if a site's head lies outside a model of this shape."""
    for head, position in sites:
        if head.layer >= shape.n_layers or head.index >= shape.n_heads:
            raise UserError(
                f"There is no head {head}@{position.name} in {model_name}: it has only "
                f"{shape.n_layers} layers of {shape.n_heads} heads (counted from 0). Choose heads "
                "that it has."
            )


@dataclass(frozen=True)
class Circuit:
    """Attention heads by group; a head may be in two groups, at two positions."""

    groups: Mapping[Group, tuple[Head, ...]]
    name: str = "circuit"
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def heads(self, group: Group) -> tuple[Head, ...]:
        """The heads of one group."""
        return self.groups.get(group, ())

    @property
    def members(self) -> tuple[tuple[Group, Head], ...]:
        """Every (group, head), in reading order D, C, B, A."""
        return tuple((group, head) for group in READING_ORDER for head in self.heads(group))

    @property
    def sites(self) -> frozenset[Site]:
        """The (head, position) pairs of the circuit; A and B share the last token."""
        return self.sites_of(Group)

    def sites_of(self, groups: Iterable[Group]) -> frozenset[Site]:
        """The (head, position) pairs of some groups."""
        return frozenset(
            Site(head, group.position) for group in groups for head in self.heads(group)
        )

    def keep(self, members: Iterable[tuple[Group, Head]]) -> Circuit:
        """The circuit made of just these members, with the same name and provenance."""
        chosen = set(members)
        groups = {group: tuple(sorted(head for g, head in chosen if g is group)) for group in Group}
        return Circuit(groups, self.name, self.provenance)

    def check(self, shape: ModelShape, model_name: str) -> None:
        """Raise UserError if a head lies outside a model of this shape."""
        for group, head in self.members:
            if head.layer >= shape.n_layers or head.index >= shape.n_heads:
                raise UserError(
                    f"The circuit “{self.name}” has head {head} in group {group.name}, but "
                    f"{model_name} has only {shape.n_layers} layers of {shape.n_heads} heads "
                    "(counted from 0). Choose a circuit that was found in a model of this shape."
                )

    def as_data(self) -> dict[str, Any]:
        """The circuit as JSON has it, provenance included."""
        groups = {g.name: [[*head] for head in self.heads(g)] for g in Group}
        return {
            "format": FORMAT,
            "name": self.name,
            "groups": groups,
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
            groups = {
                group: _parse_heads(key, data.get(key, [])) for group, key in _AUTHORS_KEYS.items()
            }
            return cls(groups, provenance={"format": "the paper's authors'"})
        if not isinstance(data, dict) or not isinstance(data.get("groups"), dict):
            raise UserError(
                "This JSON has no field “groups”. Choose a circuit file saved by this tool."
            )
        provenance = data.get("provenance", {})
        if not isinstance(provenance, dict):
            raise UserError("The field “provenance” must be an object. Mend it or leave it out.")
        if not data["groups"] or not data["groups"].keys() <= Group.__members__.keys():
            raise UserError(
                f"The field “groups” holds {_some(list(data['groups']))}. Write the heads of A, B, "
                "C and D there, of one or more of them."
            )
        groups = {
            group: _parse_heads(f"groups.{group.name}", data["groups"].get(group.name, []))
            for group in Group
        }
        return cls(groups, _parse_name(data.get("name", "circuit")), provenance)


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
