"""Results that the command line saved in `cache/`, shown like those of a run on the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import streamlit as st

from backend import jobs
from backend.circuit import Circuit
from backend.errors import UserError
from backend.results import Cmap, Comparison, HeadMap, Part
from backend.saved import revived, saved
from shell.studies import CmapRequest, ComparedModel, ComparisonRequest, Heads, Prompts, Study

Data = Mapping[str, Any]


def offer(command: str, study: str, read: Callable[[Data], Study]) -> None:
    """A list of what a command has saved; a choice becomes the study shown. Empty: no list."""
    found = saved(command)
    if not found:
        return
    key = f"kept_{command}"
    st.selectbox(
        "Saved runs",
        list(found),
        index=None,
        format_func=lambda name: f"{name} · {found[name].get('date', 'no date')[:10]}",
        key=key,
        placeholder="Open",
        width=150,
        on_change=lambda: _open(found, key, study, read),
        help=f"Results of `python -m backend {command} … --save NAME`.",
    )
    if complaint := st.session_state.pop(f"{key}_complaint", None):
        st.error(complaint)


def comparison(data: Data) -> Study[ComparisonRequest]:
    """A saved comparison; raises UserError when the file holds something else."""
    result: Comparison = revived(Comparison, data.get("result"))
    models = tuple(row.name for row in result.models)
    parts = [
        ComparedModel(row, tuple(pair for pair in result.differences if pair.second == row.name))
        for row in result.models
    ]
    return Study(ComparisonRequest(models, heads(data), prompts(data)), jobs.finished(parts))


def transplants(data: Data) -> Study[CmapRequest]:
    """A saved CMAP, with its head maps if it has any; raises UserError like `comparison`."""
    result: Cmap = revived(Cmap, data.get("result"))
    maps: list[HeadMap] = []
    if "map" in data:
        whole: HeadMap = revived(HeadMap, data["map"])
        maps = [replace(whole, heads={token: rows}) for token, rows in whole.heads.items()]
    if result.part not in Part.__members__:
        raise UserError(f"“{result.part}” is not a part of a head. Compute it again.")
    request = CmapRequest(
        result.source, result.target, heads(data), Part[result.part], prompts(data)
    )
    return Study(request, jobs.finished([result, *maps]))


def heads(data: Data) -> Heads:
    """The circuit that a result is about; raises UserError naming the field that is wrong."""
    circuit = Circuit.from_data(data.get("circuit"))
    return Heads(circuit.name, frozenset(circuit.members))


def prompts(data: Data) -> Prompts:
    """The prompts that a result was measured on; raises UserError when the file does not say."""
    n, boxes, seed = (revived(int, data.get(name)) for name in ("prompts", "boxes", "seed"))
    return Prompts(n, boxes, seed)


def _open(found: Mapping[str, Data], key: str, study: str, read: Callable[[Data], Study]) -> None:
    name = st.session_state[key]
    st.session_state[key] = None
    try:
        st.session_state[study] = read(found[name])
    except UserError as error:
        st.session_state[f"{key}_complaint"] = f"The saved run “{name}” cannot be shown. {error}"
