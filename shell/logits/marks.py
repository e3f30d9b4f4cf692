"""Which heads on the Logits page belong to the circuit: those that write at the last token."""

from __future__ import annotations

from backend.core.heads import Head
from backend.tasks.circuit import Circuit
from backend.tasks.task import Group


def at_the_last_token(circuit: Circuit) -> list[tuple[Group, frozenset[Head]]]:
    """The groups that work at the last token, in the order of discovery, and their heads.

    A head of two groups is in the first.
    """
    taken: set[Head] = set()
    found = []
    for group in circuit.task.groups:
        if circuit.task.position(group.position).tail == 1:
            heads = frozenset(circuit.heads(group.key)) - taken
            taken |= heads
            found.append((group, heads))
    return found


def group_of(head: Head | None, circuit: Circuit | None) -> Group | None:
    """The group of a head, if it works at the last token."""
    if head is None or circuit is None:
        return None
    return next((group for group, heads in at_the_last_token(circuit) if head in heads), None)
