"""Back to a result: the page that shows it, with the choices that it was asked for with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from backend import catalogue, jobs
from backend.circuit import Group
from backend.errors import UserError
from shell import discovery, state
from shell.discovery import Plan
from shell.examination import Question
from shell.history import History
from shell.studies import CmapRequest, ComparisonRequest, Heads, Prompts, Study, prompts_of
from shell.view import N_PROMPTS


def choose_again(request: Any, job: jobs.Job) -> None:
    """Make the request this session's choice, and the job the one that its page shows."""
    now = st.session_state
    match request:
        case ComparisonRequest():
            now["compared"] = [*request.models]
            _choose(request.prompts, request.heads)
            now["comparison"] = Study(request, job)
        case CmapRequest():
            _choose(request.prompts, request.heads)
            now["source"], now["target"] = request.source, request.target
            now["part"] = request.part
            now["transplants"] = Study(request, job)
        case Question():
            now["model"], now["discover_n"] = request.setting.model, request.setting.n
            _choose(prompts_of(request.setting), request.heads)
            now["examined"] = request.name.capitalize()
            now[request.name] = Study(request, job)
        case Plan():
            now["model"], now["discover_n"] = request.setting.model, request.setting.n
            _choose(prompts_of(request.setting))
            now["discover_ranking"] = discovery.CENTRED if request.centred else discovery.RAW
            now.update(_sliders(request.kept))
            discovery.show_again(request, job)


def page_of(request: Any) -> str:
    """The file of the page that shows what was asked for."""
    match request:
        case ComparisonRequest():
            return "pages/compare.py"
        case CmapRequest():
            return "pages/cmap.py"
    return "pages/discover.py"


def _choose(prompts: Prompts, heads: Heads | None = None) -> None:
    """The sidebar's choices, as far as it offers them."""
    now = st.session_state
    now["boxes"], now["seed"] = prompts.boxes, prompts.seed
    if prompts.n in N_PROMPTS:
        now["n"] = prompts.n
    if heads and heads.name != now["circuit"] and _is_known(heads):
        now["circuit"] = heads.name
        state.overrule(History())


def _is_known(heads: Heads) -> bool:
    try:
        return frozenset(catalogue.circuit(heads.name).members) == heads.members
    except UserError:
        return False


def _sliders(kept: Mapping[Group, int]) -> dict[str, int]:
    return {f"discover_keep_{group.name}": number for group, number in kept.items()}
