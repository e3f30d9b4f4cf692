"""Under the sidebar's choice of a task: files that are wrong, and adding tasks and prompts."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

from backend.core.errors import UserError
from backend.tasks import registry
from backend.tasks.own.files import MAX_KB, SHIPPED, Found
from backend.tasks.task import Task
from shell.frame import prompt_files, state
from shell.frame.words import unmarked

_EXAMPLE = SHIPPED / "capitals.toml"
_ABOUT = """
A task is a text file, with sentences and word lists, the tokens that have names, and the groups of
heads that a circuit for it has. Begin with the example: every field in it is one that you can
change, and a wrong one is named. The file `docs/own-tasks.md` explains each.
"""


def show_misfits(own: Found, sets: Mapping[str, str]) -> None:
    """Name the files that hold no task, and the prompts that cannot be read, and why."""
    for path, reason in own.complaints.items():
        st.warning(f"{unmarked(path.name)} is not used. {unmarked(reason)}")
    for name, reason in sets.items():
        st.warning(f"The prompts “{unmarked(name)}” are not used. {unmarked(reason)}")


def offer_to_add(task: Task, own: Found) -> None:
    """A task of the user's own, or prompts for the one that is chosen."""
    with st.popover("Add a task or prompts", width="stretch"):
        of_prompts, of_task = st.tabs(["Prompts", "A task"])
        with of_prompts:
            prompt_files.offer_to_add(task)
        with of_task:
            _offer_a_task(own)


def _offer_a_task(own: Found) -> None:
    """A task from its file; and those added before, to be forgotten."""
    st.markdown(_ABOUT)
    st.download_button(
        "An example",
        _EXAMPLE.read_bytes(),
        file_name=_EXAMPLE.name,
        mime="application/toml",
        on_click="ignore",
    )
    st.file_uploader(
        "A task as TOML",
        type="toml",
        key="uploaded_task",
        max_upload_size=1,
        help=f"At most {MAX_KB} kB. One of the same name as a task that you added replaces it.",
        on_change=_add,
    )
    if complaint := st.session_state.get("task_complaint"):
        st.error(unmarked(complaint))
    for name, task in own.tasks.items():
        if own.files[name].parent != SHIPPED:
            st.button(
                f"Forget “{unmarked(task.title)}”",
                key=f"forget_task_{name}",
                help="Deletes its file here; results and circuits stay.",
                on_click=_forget,
                args=(name,),
            )


def _add() -> None:
    file = st.session_state["uploaded_task"]
    st.session_state["task_complaint"] = None
    if file is None:
        return
    try:
        state.choose_task(registry.add_task(file.getvalue()))
    except UserError as error:
        st.session_state["task_complaint"] = str(error)


def _forget(name: str) -> None:
    try:
        registry.remove_task(name)
    except UserError as error:
        st.session_state["task_complaint"] = str(error)
