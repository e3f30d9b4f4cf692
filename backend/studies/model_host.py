"""The process on a cluster that has models, and answers what pages ask of them.

It prepares and keeps what a dashboard there would, and sends plain arrays and text.
"""

from __future__ import annotations

import logging
from typing import Any

from backend.cluster.host import Answer, Outcome, Told, packed
from backend.core.errors import UserError, explained
from backend.core.placement import Placement
from backend.core.priority import urgent
from backend.core.progress import Cancelled, Report

_log = logging.getLogger(__name__)


class ModelHost:
    """The actor, which loads models like this; it answers each question in a thread of its own."""

    def __init__(self, placement: Placement) -> None:
        from backend.models import loaded_models

        loaded_models.place_by_default(placement)
        self._told: dict[str, Told] = {}
        self._cancelled: set[str] = set()
        self._n_asked = 0

    def answer(self, ticket: str, n_pieces: int, what: str, asked: tuple[Any, ...]) -> Any:
        """What one of `QUESTIONS` answers, in pieces."""
        self._n_asked += 1
        self._told[ticket] = Told("Starting", 0.0)

        def report(stage: str, share: float) -> None:
            self._told[ticket] = Told(stage, share)
            if ticket in self._cancelled:
                raise Cancelled

        try:
            return packed(_answer(what, asked, report), n_pieces)
        finally:
            self._told.pop(ticket)
            self._cancelled.discard(ticket)

    def told(self, ticket: str) -> Told:
        """How far the answer to a question is."""
        return self._told.get(ticket, Told("Starting", 0.0))

    def cancel(self, ticket: str) -> None:
        """End a question at its next step."""
        self._cancelled.add(ticket)

    def n_asked(self) -> int:
        """How many questions there were."""
        return self._n_asked


def _answer(what: str, asked: tuple[Any, ...], report: Report) -> Answer:
    from backend.studies.questions import QUESTIONS

    try:
        with urgent():
            return Answer(Outcome.answered, QUESTIONS[what](report, *asked))
    except Cancelled:
        return Answer(Outcome.refused, "It was cancelled. Start again.")
    except Exception as error:
        if not isinstance(error, UserError):
            _log.exception("“%s” failed", what)
        return Answer(Outcome.refused, explained(error))
