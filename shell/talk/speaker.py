"""What the speaker sees while the audience sees a step: note, next step, clock."""

from __future__ import annotations

from datetime import datetime
from html import escape
from time import time

import streamlit as st

from backend.core.errors import UserError
from shell.frame.words import unmarked
from shell.talk import following, talks
from shell.talk.talk import Talk


def show(name: str) -> None:
    """Follow the window in which the talk of this name is given."""
    if not name:
        st.info(
            "This view follows a talk. Choose one on the Talks page and press Speaker view there."
        )
        return
    try:
        talk = talks.talk(name)
    except UserError as error:
        st.error(unmarked(error))
        return
    with st.container(key="speaker"):
        _follow(name, talk)
        st.button("Start the clock anew", on_click=following.begin, args=(name,))


@st.fragment(run_every=1.0)
def _follow(name: str, talk: Talk) -> None:
    presented = following.presented(name)
    place = min(presented.step, len(talk.steps) - 1) if presented else 0
    elapsed = int(time() - presented.began) if presented else 0
    st.html(speaker_html(talk, place, elapsed, f"{datetime.now():%H:%M}"))
    if not presented:
        st.info("Nobody gives this talk yet. Press Give this talk on the Talks page.")


def speaker_html(talk: Talk, place: int, elapsed: int, clock: str) -> str:
    """The step in this place (from 0), seconds since the talk began, and the time of day."""
    minutes, seconds = divmod(elapsed, 60)
    step = talk.steps[place] if talk.steps else None
    after = talk.steps[place + 1].title if place + 1 < len(talk.steps) else "the end"
    note = "".join(
        f"<p>{escape(line)}</p>" for line in (step.note if step else "").splitlines() if line
    )
    return (
        f'<div class="speaker"><header><b>{clock}</b><b>{minutes}:{seconds:02d}</b>'
        f"<span>{place + 1} of {len(talk.steps)} · {escape(talk.title)}</span></header>"
        f"<h2>{escape(step.title if step else '')}</h2>{note}"
        f"<footer>Next: <b>{escape(after)}</b></footer></div>"
    )
