"""The figures of the Circuit page, for what the page shows and for a click before the page runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from backend.tasks.circuit import Circuit
from backend.tasks.setting import Intervention, intervention
from circuitviz.figures import Figures
from shell.circuit import carried, numbers, presented
from shell.frame.view import View

if TYPE_CHECKING:
    from backend.studies.session import Session


class Compared(NamedTuple):
    """Every head on, and the switches as they are."""

    before: Intervention
    now: Intervention


def compared(circuit: Circuit, view: View) -> Compared:
    """What is compared in a view."""
    asked = (circuit, view.reading, view.mode)
    return Compared(
        intervention(*asked, source=view.source, desideratum=view.desideratum),
        intervention(*asked, view.off, view.switched, view.source, view.desideratum),
    )


def figures(session: Session, circuit: Circuit, view: View) -> Figures:
    """What the page shows for the switches of a view, of runs that are kept or made now.

    Raises RuntimeError when the memory is full.
    """
    measured, spoken = _measured(session, compared(circuit, view), view)
    if view.presenting:
        return Figures(tuple(map(presented.read_out, measured)), spoken, presented.how(view))
    return Figures(tuple(map(numbers.read_out, measured)), spoken)


def _measured(session: Session, both: Compared, view: View) -> tuple[list[numbers.Measured], str]:
    if view.tested:
        if view.presenting:
            found = carried.headlines(session, view.metric, *both)
        else:
            found = [each for row in carried.figures(session, *both).values() for each in row]
        return found, carried.spoken(session, both.now)
    from backend.studies.session import answers

    whole, words = session.whole, view.task.words
    before, after = (answers(session, step) for step in both)
    found = numbers.headlines(view.reading, view.metric, words, whole, before, after)
    if not view.presenting:
        found.append(numbers.beside(view.metric, words, before, after))
    return found, numbers.spoken(view.reading, view.metric, whole, after)
