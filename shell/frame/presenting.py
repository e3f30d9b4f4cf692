"""Presentation mode: the same page without what an audience need not see, and large."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from shell.talk import stepping

_FOLDER = Path(__file__).parent
STYLE = (_FOLDER / "presenting.css").read_text(encoding="utf-8")
KEY = "P"

_watch_mouse = st.components.v2.component(
    "presenting", js=(_FOLDER / "presenting.js").read_text(encoding="utf-8")
)


def offer() -> None:
    """A button that begins it; so does its key."""
    if st.session_state["presenting"]:
        return
    if st.button(
        "Present",
        key="present",
        shortcut=KEY,
        help="For a lecture hall: graph, numbers and prompt, large, and nothing else. P again, or "
        "Escape, leads back.",
    ):
        _switch()
        st.rerun()  # all of it: on the Circuit page, the button is in a fragment


def show_way_out() -> None:
    """While presenting, a button that is seen when the mouse moves, and the keys that end it."""
    with st.container(key="presenting", horizontal=True, gap="xsmall"):
        if st.session_state["presenting"]:
            stepping.show_keys()
            st.button("Leave", key="leave_presenting", on_click=_switch, shortcut=KEY)
            st.button("Leave too", key="unseen_leave", on_click=_switch, shortcut="Escape")
            _watch_mouse(key="mouse")
    with st.container(key="step_title"):
        if st.session_state["presenting"]:
            stepping.show_title()


def _switch() -> None:
    st.session_state["presenting"] = not st.session_state["presenting"]
