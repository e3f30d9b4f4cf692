"""The Talks page: choose a talk, give it, change it, take it along or in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import streamlit as st

from backend.core.errors import UserError
from shell.frame.words import unmarked
from shell.talk import stepping, talks
from shell.talk.talk import (
    LONGEST_NOTE,
    LONGEST_TITLE,
    MAX_KB,
    Step,
    Talk,
    from_text,
    noted,
    titled,
    to_text,
)

_CHOSEN, _IMPORTED, _SAID = "talk_chosen", "talk_imported", "talk_said"


def choose() -> str | None:
    """The talk that the page is about, if there is one."""
    st.markdown("#### Talks")
    st.caption(
        "A talk is a list of views: *Add to talk*, in the sidebar of every page, keeps what is "
        "shown. While it is given, Page Down and Page Up step through it, as a clicker does; so "
        f"do the arrows, and Home begins anew. {stepping.BACK} brings a step back after clicks in "
        "it, and Escape leaves."
    )
    names = talks.names()
    if st.session_state.get(_CHOSEN) not in names:
        st.session_state[_CHOSEN] = names[0] if names else None
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        chosen: str | None = st.selectbox(
            "Talk", names, format_func=_label, key=_CHOSEN, persist_state="session", width=620
        )
        with st.popover("Import a talk"):
            st.file_uploader(
                "A talk that was exported",
                type="json",
                key=_IMPORTED,
                max_upload_size=1,
                on_change=_import,
            )
    if complaint := st.session_state.pop(_SAID, None):
        st.error(unmarked(complaint))
    return chosen


def show(name: str) -> None:
    """A talk with its steps; those that ship can be given and copied only."""
    try:
        talk = talks.talk(name)
    except UserError as error:
        st.error(unmarked(error))
        return
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        st.button(
            "Give this talk",
            type="primary",
            icon="▶",
            on_click=stepping.present,
            args=(name,),
            disabled=not talk.steps,
        )
        st.link_button("Speaker view", f"speaker?of={name}", help="Opens a second window.")
        st.download_button(
            "Export", to_text(talk), f"{name}.json", "application/json", on_click="ignore"
        )
        st.button("Make a copy", on_click=_copy, args=(name, talk))
        if not talks.is_shipped(name):
            st.button("Delete", on_click=talks.drop, args=(name,))
    absent = dict.fromkeys(each for step in talk.steps for each in stepping.missing(step))
    if absent:
        st.warning(
            unmarked(
                f"Not on this computer: {', '.join(absent)}. "
                f"{talk.needs or 'Add them on the Models page.'}"
            )
        )
    if talks.is_shipped(name):
        _show_shipped(talk)
    else:
        _show_own(name, talk)


def _show_shipped(talk: Talk) -> None:
    st.caption("It comes with this tool. Make a copy to change it.")
    for number, step in enumerate(talk.steps, 1):
        st.markdown(f"**{number}. {unmarked(step.title)}**  \n{unmarked(step.note)}")


def _show_own(name: str, talk: Talk) -> None:
    st.text_input(
        "Title of the talk",
        talk.title,
        max_chars=LONGEST_TITLE,
        key=f"talk_title_{name}",
        on_change=_rename,
        args=(name,),
        width=480,
    )
    if not talk.steps:
        st.info("It has no steps yet. Go to any page and press Add to talk in the sidebar.")
    for place, step in enumerate(talk.steps):
        with st.container(border=True, key=f"step_{name}_{place}"):
            _show_step(name, talk, place, step)


def _show_step(name: str, talk: Talk, place: int, step: Step) -> None:
    title, note = (f"{what}_{name}_{place}_{hash(step.title + step.note)}" for what in ("t", "n"))
    asked = (name, place, title, note)
    words, moves = st.columns([5, 1.6], vertical_alignment="bottom")
    with words:
        st.text_input(
            f"Step {place + 1}, on {step.page.capitalize()}",
            step.title,
            max_chars=LONGEST_TITLE,
            key=title,
            on_change=_describe,
            args=asked,
        )
    with moves, st.container(horizontal=True, gap="xsmall"):
        for label, words_of, then in (
            ("↑", "Earlier", talk.moved(place, -1)),
            ("↓", "Later", talk.moved(place, 1)),
            ("✕", "Take it out", talk.without(place)),
        ):
            st.button(
                label,
                key=f"{label}_{name}_{place}",
                help=words_of,
                on_click=_keep,
                args=(name, then),
                disabled=then == talk,
            )
        st.button(
            "Give",
            key=f"give_{name}_{place}",
            help="Give the talk from here on",
            on_click=stepping.present,
            args=(name, place),
        )
    st.text_area(
        "Note",
        step.note,
        max_chars=LONGEST_NOTE,
        key=note,
        height=68,
        on_change=_describe,
        args=asked,
    )


def _label(name: str) -> str:
    try:
        return f"{talks.talk(name).title} ({name})"
    except UserError:
        return name


def _keep(name: str, talk: Talk) -> None:
    try:
        talks.keep(name, talk)
    except UserError as error:
        st.session_state[_SAID] = str(error)


def _describe(name: str, place: int, title: str, note: str) -> None:
    now = st.session_state
    try:
        talk = talks.talk(name)
        step = replace(talk.steps[place], title=titled(now[title]), note=noted(now[note]))
    except UserError as error:
        now[_SAID] = str(error)
        return
    _keep(name, talk.with_step(place, step))


def _rename(name: str) -> None:
    now = st.session_state
    try:
        talks.rename(name, titled(now[f"talk_title_{name}"]))
    except UserError as error:
        now[_SAID] = str(error)


def _copy(name: str, talk: Talk) -> None:
    _take(f"{name}-copy", replace(talk, title=f"{talk.title}, copy"[:LONGEST_TITLE]))


def _import() -> None:
    file = st.session_state[_IMPORTED]
    if file is None:
        return
    try:
        if file.size > MAX_KB * 1024:
            raise UserError(f"This talk has more than {MAX_KB} KB. Choose a smaller one.")
        _take(talks.name_for(Path(file.name).stem), from_text(file.getvalue()))
    except UserError as error:
        st.session_state[_SAID] = str(error)


def _take(name: str, talk: Talk) -> None:
    try:
        st.session_state[_CHOSEN] = talks.add(name, talk)
    except UserError as error:
        st.session_state[_SAID] = str(error)
