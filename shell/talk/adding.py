"""*Add to talk*, on every page: keep what is shown as a step of a talk."""

from __future__ import annotations

import streamlit as st

from backend.core.errors import UserError
from backend.core.read_only import is_read_only
from backend.models import catalogue
from shell.frame import state
from shell.frame.view import View, to_query
from shell.frame.words import unmarked
from shell.talk import talks
from shell.talk.talk import LONGEST_NOTE, LONGEST_TITLE, Step, Talk, noted, titled

_NOT_KEPT = ("talks", "speaker")
_TALK, _TITLE, _NOTE = "kept_in_talk", "kept_title", "kept_note"


def offer(page: str, page_title: str) -> None:
    """A button that opens the form, on pages that can be a step."""
    if page in _NOT_KEPT or is_read_only():
        return
    with st.popover("Add to talk", width="stretch"), st.form("add_to_talk", border=False):
        own = [name for name in talks.names() if not talks.is_shipped(name)]
        st.selectbox(
            "Talk",
            own,
            key=_TALK,
            persist_state="session",
            accept_new_options=True,
            placeholder="Choose one, or type the title of a new one",
            index=0 if own else None,
        )
        st.text_input(
            "Title",
            value=_suggestion(state.current(), page_title),
            key=_TITLE,
            max_chars=LONGEST_TITLE,
        )
        st.text_area("Note, for you alone", key=_NOTE, max_chars=LONGEST_NOTE)
        st.form_submit_button("Add", on_click=_add, args=(page,), type="primary")
    if said := st.session_state.pop("kept_said", None):
        (st.toast if said[0] else st.error)(unmarked(said[1]))


def step_of(page: str, title: str, note: str) -> Step:
    """What is shown now as a step. Raises UserError for a title that cannot be one."""
    from shell.talk import kept  # only now: the rooms of all pages come with it

    view = state.current()
    query = {name: value for name, value in to_query(view).items() if name != "presenting"}
    return Step(
        titled(title), noted(note), page, query, kept.written(page, view.task, st.session_state)
    )


def _suggestion(view: View, page_title: str) -> str:
    return f"{page_title}: {catalogue.label(view.model)}"[:LONGEST_TITLE]


def _add(page: str) -> None:
    now = st.session_state
    try:
        chosen = now[_TALK]
        if not chosen:
            raise UserError("Choose a talk, or type the title of a new one.")
        step = step_of(page, now[_TITLE], now[_NOTE])
        if chosen in talks.names():
            name, talk = chosen, talks.talk(chosen)
        else:
            name, talk = talks.name_for(chosen), Talk(titled(chosen))
            if name in talks.names():
                talk = talks.talk(name)
        talks.keep(name, talk.with_step(len(talk.steps), step))
    except UserError as error:
        now["kept_said"] = False, str(error)
        return
    now[_TALK] = name
    now["kept_said"] = True, f"Kept as step {len(talk.steps) + 1} of “{talk.title}”."
