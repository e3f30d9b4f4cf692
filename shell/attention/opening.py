"""The way from a head on the Circuit page to its attention, and back."""

from __future__ import annotations

import streamlit as st

from backend.tasks.task import Task
from shell.frame import state
from shell.frame.history import NodeKey

ONE_HEAD, BY_ROLE, KNOCKOUT = "One head", "By role", "Knockout"
SECTIONS = (ONE_HEAD, BY_ROLE, KNOCKOUT)
_PAGE = "pages/attention.py"


def look_at(node: NodeKey, task: Task, prompt: int) -> None:
    """Leave the Circuit page for a head's attention, from its group's token on this prompt."""
    now = st.session_state
    key, head = node
    now["attention_head"], now["attention_from"] = head, task.group(key).position
    now["attention_token"], now["example"] = None, prompt
    now["attention_shown"] = ONE_HEAD
    # With the whole address at once: written later, it would be a step for the browser's back.
    st.switch_page(_PAGE, query_params=state.address())


def show_way_back() -> None:
    """A button to the Circuit page, which is as it was left."""
    if st.button("← Back to the circuit", key="back_to_circuit"):
        st.switch_page("pages/circuit.py")
