"""What was measured here already, to stand beside the paper's: everything that is stored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import streamlit as st

from backend.core.components import Component
from backend.core.errors import UserError
from backend.methods.cmap import Cmap, CmapRequest
from backend.methods.compare import Comparison, ComparisonRequest, joined
from backend.methods.completeness import Completeness, CompletenessRequest
from backend.methods.functions import Functions, FunctionsRequest
from backend.methods.minimality import Minimality, MinimalityRequest
from backend.methods.registry import METHODS
from backend.methods.requests import SomeRequest, models_of, not_as_in_the_paper
from backend.models import catalogue
from backend.studies import store, studies
from backend.tasks.circuit import Circuit
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.prompts import Prompts
from shell.frame.choices import sizes
from shell.frame.studies import local_time
from shell.frame.words import unmarked

Result = TypeVar("Result")


@dataclass(frozen=True)
class Measured(Generic[Result]):
    """A result, what to call it, and what it was measured on."""

    title: str
    circuit: Circuit
    prompts: Prompts
    result: Result

    @property
    def setting(self) -> str:
        """The circuit and the prompts, in words."""
        circuit = f"circuit “{unmarked(self.circuit.name)}” ({sizes(self.circuit)})"
        return f"{self.prompts}; {circuit}; 95 % intervals"


def comparisons() -> list[Measured[Comparison]]:
    """Comparisons by what the paper measured, newest first."""
    return [
        Measured(_title(stored, ", "), asked.circuit, asked.prompts, joined(asked, stored.parts))
        for asked, stored in _stored(ComparisonRequest)
        if not any(not_as_in_the_paper(asked))
    ]


def transplants() -> list[Measured[Cmap]]:
    """CMAP of head outputs of whole groups, as the paper did it, newest first."""
    return [
        Measured(_title(stored, " into "), asked.circuit, asked.prompts, stored.parts[0])
        for asked, stored in _stored(CmapRequest)
        if asked.part is Component.output and not asked.sets and not any(not_as_in_the_paper(asked))
    ]


def minimalities() -> list[Measured[Minimality]]:
    """What every head adds, newest first."""
    return [
        Measured(_title(stored), asked.circuit, asked.prompts, stored.parts[0])
        for asked, stored in _stored(MinimalityRequest)
        if asked == MinimalityRequest(asked.model, asked.circuit, asked.prompts)
    ]


def completenesses() -> list[Measured[Completeness]]:
    """How alike circuits and models lose heads, newest first."""
    return [
        Measured(_title(stored), asked.circuit, asked.prompts, stored.parts[0])
        for asked, stored in _stored(CompletenessRequest)
        if asked == CompletenessRequest(asked.model, asked.circuit, asked.prompts)
    ]


def functions() -> list[Measured[tuple[Functions, ...]]]:
    """What groups carry, the label among it, newest first."""
    return [
        Measured(_title(stored), asked.circuit, asked.all_prompts, stored.parts)
        for asked, stored in _stored(FunctionsRequest)
        if {part.desideratum for part in stored.parts} >= {"object", "label", "position"}
    ]


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


def _stored(kind: type[SomeRequest]) -> Iterator[tuple[SomeRequest, studies.Stored]]:
    for entry in store.entries():
        method = METHODS.get(entry.header.method)
        if method and method.request is kind:
            try:
                stored = studies.read(entry)
            except UserError:
                continue  # the Results page says what is wrong with it
            asked = stored.request
            if isinstance(asked, kind) and asked.prompts.task == ENTITY_TRACKING:
                yield asked, stored


def _title(stored: studies.Stored, between: str = "") -> str:
    """“Chat into Base · 2026-11-21, 14:03”."""
    models = between.join(map(catalogue.label, models_of(stored.request)))
    return f"{models} · {local_time(stored.entry.header.date)}"
