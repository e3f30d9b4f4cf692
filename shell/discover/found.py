"""The circuit that was found: its name, its file, and the way to the Circuit page."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import streamlit as st

from backend.core.errors import UserError
from backend.core.read_only import is_read_only
from backend.models import catalogue
from backend.tasks.circuit import Circuit
from backend.tasks.setting import Setting
from shell.discover import discovery
from shell.discover.discovery import Progress
from shell.discover.examination import show_examination, smaller, with_edges
from shell.discover.search import STUDY, taken
from shell.frame import fitting, state
from shell.frame.choices import sidebar_circuit
from shell.frame.graph_files import graph_files
from shell.frame.history import History
from shell.frame.take_home import show_button
from shell.frame.words import unmarked

_FOUND, _SELECTED = "found", "selected"
_UNTIL = "What is found stands here when the stages have run with the heads now kept."


def show_found(now: Progress) -> None:
    """The resulting circuit, once all stages fit what is asked for, or the sidebar's."""
    st.markdown("### The circuit")
    setting = now.plan.setting
    if not now.is_complete and not st.session_state["circuit"]:
        st.caption(_UNTIL)
        return
    whole, suggestion = _choose(now)
    show_saving(with_edges(smaller(whole), setting), suggestion, setting)
    if whole.members:
        show_examination(whole, smaller(whole), now)
    else:
        st.info("A circuit without heads: there is nothing in it to examine.")


def _choose(now: Progress) -> tuple[Circuit, str]:
    """A circuit, and what it might be saved as."""
    selected = st.session_state["circuit"]
    if not now.is_complete:
        st.caption(f"{_UNTIL} Until then this is “{unmarked(selected)}”, of the sidebar.")
        return sidebar_circuit(), plain(f"{selected}-copy")
    options = {_FOUND: "The circuit found here"}
    if of_search := taken(now):
        options[STUDY] = f"The circuit of the search ({len(of_search.members)} heads)"
    if selected:
        options[_SELECTED] = f"“{unmarked(selected)}”, of the sidebar"
    if st.session_state.get("which_circuit") not in options:
        st.session_state["which_circuit"] = _FOUND
    chosen = st.segmented_control(
        "Which circuit",
        list(options),
        format_func=options.__getitem__,
        key="which_circuit",
        required=True,
        label_visibility="collapsed",
    )
    if chosen == _SELECTED:
        return sidebar_circuit(), plain(f"{selected}-copy")
    if chosen == STUDY and of_search:
        return of_search, plain(f"{now.plan.setting.model}-searched")
    return discovery.found_circuit(now, "found"), plain(f"{now.plan.setting.model}-found")


def show_saving(
    circuit: Circuit,
    suggestion: str,
    setting: Setting,
    page: str = "discover",
    also: Callable[[], None] = lambda: None,
) -> None:
    """A name for a circuit, and buttons to save it, download it and open it in the Circuit page.

    `also` is called when it is opened; the files of it say the `page`.
    """
    counts = ", ".join(
        f"{len(circuit.heads(group.key))} in {group.key}" for group in circuit.task.reading_order
    )
    edges = "edges measured" if "edges" in circuit.provenance else "edges not measured"
    rate = circuit.provenance.get("false_discovery_rate")
    is_tested = isinstance(rate, float) and "search" not in circuit.provenance
    clear = f"; clear at a false discovery rate of {rate:g}" if is_tested else ""
    st.caption(f"{len(circuit.members)} heads: {counts}{clear}; {edges}.")
    key = f"name_for_{suggestion}"
    st.session_state.setdefault(key, suggestion)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.text_input(
            "Name",
            key=key,
            persist_state="session",
            width=260,
            help="Saving under a name that is taken replaces that circuit.",
        )
        name = st.session_state[key]
        st.button("Save", on_click=_save, args=(circuit, key), disabled=is_read_only())
        st.download_button(
            "Download as JSON",
            _stamped(circuit, name).to_json(),
            f"{name}.json",
            "application/json",
            on_click="ignore",
        )
        show_button(
            f"found_{suggestion}",
            lambda: graph_files(
                _stamped(circuit, name),
                setting.model,
                setting.prompts,
                fitting.shape_of(setting.model),
                page,
            ),
        )
        opening = st.button(
            "Open in the Circuit page",
            type="primary",
            on_click=_open,
            args=(circuit, key, also),
            disabled=is_read_only(),
        )
    if complaint := st.session_state.pop("save_complaint", None):
        st.error(unmarked(complaint))
    elif opening:
        st.switch_page("pages/circuit.py")
    elif saved := st.session_state.pop("saved_as", None):
        st.success(f"Saved as “{unmarked(saved)}”: choose it in the sidebar.")


def _save(circuit: Circuit, key: str) -> None:
    # The name as it is when the button is pressed, be it typed only just before.
    name = st.session_state[key]
    try:
        content = _stamped(circuit, name).to_json().encode()
        st.session_state["saved_as"] = catalogue.add_circuit(catalogue.plain_name(name), content)
    except UserError as error:
        st.session_state["save_complaint"] = str(error)


def _open(circuit: Circuit, key: str, also: Callable[[], None]) -> None:
    """Save the circuit and select it; all switches start over."""
    _save(circuit, key)
    if saved := st.session_state.pop("saved_as", None):
        st.session_state["circuit"] = saved
        also()
        state.overrule(History())


def _stamped(circuit: Circuit, name: str) -> Circuit:
    """The circuit under its name, with today's date in its provenance."""
    date = datetime.now(UTC).date().isoformat()
    return replace(circuit, name=name, provenance={"date": date} | dict(circuit.provenance))


def plain(text: str) -> str:
    """A text as the name of a circuit."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text)[-64:].strip("-")
