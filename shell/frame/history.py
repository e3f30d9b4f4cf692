"""What the Circuit page shows, as one immutable value with undo and redo."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from backend.tasks.circuit import Node

NodeKey = Node


@dataclass(frozen=True)
class Switches:
    """Which heads are switched: those of the circuit that are off, and others.

    A head outside the circuit is off when only the circuit is read, and on when the whole model
    is; `switched` are those that are the other way round.
    """

    off: frozenset[NodeKey] = frozenset()
    switched: frozenset[NodeKey] = frozenset()


@dataclass(frozen=True)
class History:
    """The switches now, with what undo and redo lead to."""

    now: Switches = Switches()
    past: tuple[Switches, ...] = field(default=(), repr=False)
    future: tuple[Switches, ...] = field(default=(), repr=False)

    def set(self, switches: Switches) -> History:
        """Go on to other switches; the same ones are no step."""
        if switches == self.now:
            return self
        return History(switches, (*self.past, self.now))

    def without_detour(self) -> History:
        """The history without its last two steps if they lead there and back."""
        if self.past[-2:-1] != (self.now,):
            return self
        return History(self.now, self.past[:-2])

    def undo(self) -> History:
        """One step back, if there is one."""
        if not self.past:
            return self
        return History(self.past[-1], self.past[:-1], (self.now, *self.future))

    def redo(self) -> History:
        """One step forward again, if there is one."""
        if not self.future:
            return self
        return replace(History(self.future[0], (*self.past, self.now)), future=self.future[1:])
