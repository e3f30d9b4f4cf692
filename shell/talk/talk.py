"""A talk as a value: views of the dashboard in order, each with a title and a note."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from backend.core.errors import UserError
from backend.core.files import json_of
from shell.frame.view import from_query

FORMAT = 1
MAX_KB = 512
MOST_STEPS = 200
LONGEST_TITLE = 120
LONGEST_NOTE = 4000
_LONGEST_VALUE = 20_000


@dataclass(frozen=True)
class Step:
    """What is shown, on which page: its view as an address has it, and the page's own choices as
    JSON has them (`shell.talk.kept`)."""

    title: str
    note: str = ""
    page: str = "circuit"
    view: Mapping[str, str] = field(default_factory=dict)
    choices: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Talk:
    """needs: what must be done first where models of its steps are not here, in a sentence."""

    title: str
    steps: tuple[Step, ...] = ()
    needs: str = ""

    def moved(self, place: int, by: int) -> Talk:
        """With a step further on, or back; unchanged where that leads out of the talk."""
        steps = [*self.steps]
        if not 0 <= place + by < len(steps):
            return self
        steps.insert(place + by, steps.pop(place))
        return replace(self, steps=tuple(steps))

    def without(self, place: int) -> Talk:
        """With a step less."""
        return replace(self, steps=self.steps[:place] + self.steps[place + 1 :])

    def with_step(self, place: int, step: Step) -> Talk:
        """With another step in a place; at the end, one more."""
        return replace(self, steps=(*self.steps[:place], step, *self.steps[place + 1 :]))


def to_text(talk: Talk) -> str:
    """The talk as its file has it."""
    return json.dumps({"format": FORMAT, **asdict(talk)}, ensure_ascii=False, indent=1) + "\n"


def from_text(content: str | bytes) -> Talk:
    """Read a talk's file. Raises UserError that names the field that does not fit."""
    if len(content) > MAX_KB * 1024:
        raise UserError(f"This talk has more than {MAX_KB} KB. Choose a smaller one.")
    try:
        data = json_of(content)
    except ValueError as error:
        raise UserError(
            f"This is no talk: {error}. Choose a file that was exported here."
        ) from error
    data = _object(data, "the file", ("format", "title", "steps", "needs"))
    if data.get("format") != FORMAT:
        raise _wrong("format", f"is not {FORMAT}")
    steps = data.get("steps")
    if not isinstance(steps, list) or len(steps) > MOST_STEPS:
        raise _wrong("steps", f"is not a list of at most {MOST_STEPS} steps")
    return Talk(
        _text(data, "title", "title", LONGEST_TITLE),
        tuple(_step(step, f"steps.{number}") for number, step in enumerate(steps, 1)),
        _text(data, "needs", "needs", LONGEST_NOTE, ""),
    )


def titled(title: str) -> str:
    """The title, if a talk or a step can have it; raises UserError otherwise."""
    return _text({"title": title.strip()}, "title", "title", LONGEST_TITLE)


def noted(note: str) -> str:
    """The note, if a step can have it; raises UserError otherwise."""
    return _text({"note": note}, "note", "note", LONGEST_NOTE, "")


def _step(data: Any, where: str) -> Step:
    from shell.talk import kept  # only now: the rooms of all pages come with it

    data = _object(data, where, ("title", "note", "page", "view", "choices"))
    page = data.get("page", "circuit")
    if page not in kept.PAGES:
        raise _wrong(f"{where}.page", f"is not one of {', '.join(kept.PAGES)}")
    query = _object(data.get("view", {}), f"{where}.view", None)
    for name in query:
        _text(query, name, f"{where}.view.{name}", _LONGEST_VALUE)
    view, complaints = from_query(query)
    if complaints or view.presenting:
        raise _wrong(f"{where}.view", f"cannot be shown: {'; '.join(complaints) or 'presenting'}")
    chosen = _object(data.get("choices", {}), f"{where}.choices", None)
    kept.check(page, view.task, chosen, f"{where}.choices")
    return Step(
        _text(data, "title", f"{where}.title", LONGEST_TITLE),
        _text(data, "note", f"{where}.note", LONGEST_NOTE, ""),
        page,
        query,
        chosen,
    )


def _object(data: Any, where: str, known: tuple[str, ...] | None) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise _wrong(where, "is not a JSON object")
    for name in data:
        if known is not None and name not in known:
            raise _wrong(f"{where}: {name[:40]}", "is not a field of a talk")
    return data


def _text(
    data: Mapping[str, Any], name: str, where: str, longest: int, default: str | None = None
) -> str:
    text = data.get(name, default)
    if not isinstance(text, str) or len(text) > longest or (default is None and not text.strip()):
        raise _wrong(where, f"is not a text of at most {longest} letters")
    return text


def _wrong(where: str, reason: str) -> UserError:
    return UserError(f"“{where}” {reason}. Mend it in the talk’s file, or choose another file.")
