"""The sidebar: which model, which circuit, which prompts."""

from __future__ import annotations

from contextlib import suppress

import streamlit as st

from backend.core.errors import UserError
from backend.models import catalogue
from backend.tasks.entity_tracking import MAX_BOXES, MAX_SEED, MIN_BOXES
from shell.frame import fitting, joblist, state
from shell.frame.history import History
from shell.frame.view import N_PROMPTS
from shell.frame.words import unmarked


def show() -> None:
    """Draw the sidebar; what is chosen lands in the session's state."""
    with st.sidebar:
        st.markdown("### Circuit explorer")
        st.selectbox(
            "Model",
            _with_current(catalogue.models(), "model"),
            format_func=catalogue.label,
            key="model",
            persist_state="session",
            accept_new_options=True,
            help="Known models are on the Models page. You can also type a Hugging Face model: its "
            "folder on this computer, or a hub name such as `owner/name`.",
        )
        _describe(st.session_state["model"])
        st.selectbox(
            "Circuit",
            _with_current(tuple(catalogue.circuits()), "circuit"),
            key="circuit",
            persist_state="session",
            on_change=_start_over,
            help="The heads to draw and to click. “base” was found in the bundled base model.",
        )
        _say_misfit(st.session_state["circuit"], st.session_state["model"])
        with st.popover("Add a circuit", width="stretch"):
            st.file_uploader(
                "A circuit saved as JSON",
                type="json",
                key="uploaded_circuit",
                max_upload_size=catalogue.MAX_CIRCUIT_MB,
                on_change=_add_circuit,
            )
            if complaint := st.session_state.get("upload_complaint"):
                st.error(unmarked(complaint))
        st.selectbox(
            "Prompts",
            N_PROMPTS,
            key="n",
            persist_state="session",
            help="How many prompts every number is measured on. More prompts, narrower intervals.",
        )
        st.number_input(
            "Seed",
            min_value=0,
            max_value=MAX_SEED,
            key="seed",
            persist_state="session",
            help="Another seed draws other objects, labels and questions.",
        )
        st.slider(
            "Boxes in each prompt", MIN_BOXES, MAX_BOXES, key="boxes", persist_state="session"
        )
        joblist.show_jobs()


def _with_current(options: tuple[str, ...], key: str) -> tuple[str, ...]:
    """A name from the address stays selectable, so that the page can say what is wrong with it."""
    current = st.session_state[key]
    return options if current in options else (*options, current)


def _describe(model: str) -> None:
    known = catalogue.about(model)
    fine_tuned = f"Fine-tuned on: {unmarked(known.finetuned_on)}." if known else ""
    if known and known.paper_counterpart not in ("", known.label):
        st.caption(f"{fine_tuned} In the paper: {unmarked(known.paper_counterpart)}.")
    elif known:
        st.caption(fine_tuned)


def _say_misfit(circuit: str, model: str) -> None:
    """Whether the circuit has heads that the model does not have."""
    with suppress(UserError):  # a circuit that cannot be read: every page says why
        if fitting.circuit_misfit(catalogue.circuit(circuit), [model]):
            st.caption(
                f":orange-badge[Does not fit] It has heads that {unmarked(catalogue.label(model))} "
                "does not have."
            )


def _start_over() -> None:
    state.overrule(History())


def _add_circuit() -> None:
    file = st.session_state["uploaded_circuit"]
    st.session_state["upload_complaint"] = None
    if file is None:
        return
    try:
        st.session_state["circuit"] = catalogue.add_circuit(file.name, file.getvalue())
        _start_over()
    except UserError as error:
        st.session_state["upload_complaint"] = str(error)
