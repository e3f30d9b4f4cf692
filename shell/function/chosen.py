"""The test and the group that the Function page is about: chosen by a control or on the map."""

from __future__ import annotations

import streamlit as st

from backend.tasks.desiderata import Desideratum
from backend.tasks.task import Group, Task


def tests_key(task: Task) -> str:
    """Of the tests that are patched."""
    return f"function_tests_{task.name}"


def choose(task: Task, test: str, group: str) -> None:
    """Make a test and a group the page's, by name and key."""
    st.session_state[test_key(task)] = test
    if group in _groups(task):
        st.session_state[group_key(task)] = group


def show_choice(task: Task) -> None:
    """Controls for both."""
    labels = {each.name: each.label for each in task.desiderata}
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        st.selectbox(
            "Test",
            [*labels],
            format_func=labels.__getitem__,
            key=test_key(task),
            persist_state="session",
            width=240,
        )
        st.session_state.setdefault(group_key(task), group(task).key)
        if group(task).key != st.session_state[group_key(task)]:
            st.session_state[group_key(task)] = group(task).key
        st.segmented_control(
            "Group",
            _groups(task),
            key=group_key(task),
            required=True,
            persist_state="session",
        )


def test(task: Task) -> Desideratum:
    """The test that is chosen, at first the task's first."""
    name = st.session_state.setdefault(test_key(task), task.desiderata[0].name)
    return task.desideratum(name)


def group(task: Task) -> Group:
    """The group that is chosen, if the test is about it, or else one that it is about."""
    about = _groups(task)
    key = st.session_state.get(group_key(task), about[-1])
    return task.group(key if key in about else about[-1])


def _groups(task: Task) -> tuple[str, ...]:
    """Keys of the groups that the chosen test is about, in reading order."""
    about = test(task).groups or task.keys
    return tuple(each.key for each in task.reading_order if each.key in about)


def test_key(task: Task) -> str:
    """Of the test that the page is about."""
    return f"function_test_{task.name}"


def group_key(task: Task) -> str:
    """Of the group that the page is about."""
    return f"function_group_{task.name}"
