"""What was measured here already, to stand beside the paper's: finished studies and saved runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import streamlit as st

from backend import catalogue
from backend.errors import UserError
from backend.results import Cmap, Comparison, Completeness, Minimality, Part
from backend.saved import revived, saved
from shell import kept
from shell.choices import sizes
from shell.examination import USUAL
from shell.studies import Heads, Prompts, Study, joined

Result = TypeVar("Result")
Other = TypeVar("Other")
_NOW = "this session"


@dataclass(frozen=True)
class Measured(Generic[Result]):
    """A result, what to call it, and what it was measured on."""

    title: str
    heads: Heads
    prompts: Prompts
    result: Result

    @property
    def setting(self) -> str:
        """The circuit and the prompts, in words."""
        circuit = f"circuit “{self.heads.name}” ({sizes(self.heads.circuit)})"
        return f"{self.prompts}; {circuit}; 95 % intervals"


def comparisons() -> list[Measured[Comparison]]:
    """Comparisons of this session and of the command line, newest first."""
    return [
        Measured(title, study.request.heads, study.request.prompts, joined(study.request, parts))
        for title, study in _studies("compare", "comparison", kept.comparison)
        if (parts := study.job.parts)
    ]


def transplants() -> list[Measured[Cmap]]:
    """CMAP of head outputs, as the paper did it, in the same order."""
    return [
        Measured(_pair(title, found), study.request.heads, study.request.prompts, found)
        for title, study in _studies("cmap", "transplants", kept.transplants)
        if (found := next(iter(study.job.parts), None)) and found.part == Part.output.name
    ]


def minimalities() -> list[Measured[Minimality]]:
    """What every head adds, in the same order."""
    return _answers("minimality", Minimality)


def completenesses() -> list[Measured[Completeness]]:
    """How alike circuits and models lose heads, in the same order."""
    return _answers("completeness", Completeness)


def choose(found: list[Measured[Result]], key: str, how: str) -> Measured[Result] | None:
    """The one to show: the newest, or another if there are several; `how` says how to get one."""
    if not found:
        st.caption(f"Nothing like it is measured here yet. {how}")
        return None
    if len(found) == 1:
        return found[0]
    titles = [each.title for each in found]
    place = st.selectbox(
        "Measured here",
        range(len(found)),
        format_func=lambda place: titles[place],
        key=f"{key}_{len(found)}",
        label_visibility="collapsed",
    )
    return found[place]


def _pair(title: str, found: Cmap) -> str:
    source, target = map(catalogue.label, (found.source, found.target))
    return f"{source} into {target} · {title}"


def _studies(
    command: str, study: str, read: Callable[[kept.Data], Study[Other]]
) -> Iterator[tuple[str, Study[Other]]]:
    """The study on its page in this session, then the saved ones that can be read."""
    if study in st.session_state:
        yield _NOW, st.session_state[study]
    for title, data in _newest_first(command):
        try:
            yield title, read(data)
        except UserError:
            continue  # the study's own page says what is wrong with the file


def _answers(name: str, kind: type[Result]) -> list[Measured[Result]]:
    found: list[Measured[Result]] = []
    asked = st.session_state.get(name)
    if asked and asked.job.parts:
        setting = asked.request.setting
        found.append(
            Measured(
                f"{catalogue.label(setting.model)} · {_NOW}",
                asked.request.heads,
                Prompts(setting.n, setting.boxes, setting.seed),
                asked.job.parts[0],
            )
        )
    for title, data in _newest_first(name):
        try:
            answer: Any = revived(kind, data.get("result"))
            named = f"{catalogue.label(answer.model)} · {title}"
            found.append(Measured(named, kept.heads(data), kept.prompts(data), answer))
        except UserError:
            continue  # the Discover page measures anew what it cannot read
    return found


def _newest_first(command: str) -> list[tuple[str, kept.Data]]:
    """Saved runs that were measured in the paper's way."""
    usual = {
        title: data
        for title, data in saved(command).items()
        if all(data.get(name, value) == value for name, value in USUAL.items())
    }
    return sorted(usual.items(), key=lambda item: str(item[1].get("date", "")), reverse=True)
