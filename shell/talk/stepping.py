"""Giving a talk: one step after another, by keys; each is shown as it was kept."""

from __future__ import annotations

from html import escape
from pathlib import Path

import streamlit as st

from backend.core.errors import UserError
from backend.core.files import is_file
from backend.models import catalogue
from shell.frame import state
from shell.frame.position import Position
from shell.frame.view import from_query
from shell.frame.words import unmarked
from shell.talk import following, talks
from shell.talk.talk import Step, Talk

BACK = "B"
"""The key that shows a step again as it was kept; R, which one would expect, is Streamlit's."""


def present(talk: str, step: int = 0) -> None:
    """Give a talk, from a step on."""
    following.begin(talk)
    st.session_state["presenting"] = True
    go(Position(talk, step))


def close() -> None:
    """Leave the talk; what is shown stays."""
    st.session_state["position"] = None


def go(to: Position) -> None:
    """Show a step of a talk as it was kept; the next run of the script opens its page."""
    now = st.session_state
    try:
        steps = talks.talk(to.talk).steps
        if not steps:
            raise UserError("This talk has no steps yet. Add some, on any page, with Add to talk.")
        to = Position(to.talk, min(to.step, len(steps) - 1))
        _show(steps[to.step])
    except UserError as error:
        now["position"], now["presenting"] = None, False
        now["talk_complaint"] = str(error)
        return
    now["position"] = to
    now["step_to_prepare"] = to
    following.tell(to.talk, to.step)


def arrive() -> None:
    """On the first run of a session whose address says so, show that step."""
    now = st.session_state
    if not now.get("has_arrived"):
        now["has_arrived"] = True
        if now["position"]:
            go(now["position"])


def page_to_open(current: str) -> str | None:
    """The file of the page of the step that was just chosen, if it is another one than this."""
    page = st.session_state.pop("page_of_step", None)
    return None if page in (None, current) else f"pages/{page}.py"


def prepare_next() -> None:
    """Once for each step that is shown, begin to prepare the one after it."""
    position = st.session_state.pop("step_to_prepare", None)
    talk = _talk(position)
    if position and talk and position.step + 1 < len(talk.steps):
        from shell.talk import ahead  # only now: the page is painted first

        ahead.prepare(talk.steps[position.step + 1])
        _show_unseen_chart()


def show_keys() -> None:
    """Buttons for the steps, with the keys that clickers send."""
    position: Position | None = st.session_state["position"]
    talk = _talk(position)
    if not position or not talk:
        return
    first, last = position.step == 0, position.step + 1 >= len(talk.steps)
    before, after = (Position(position.talk, position.step + by) for by in (-1, 1))
    for label, key, shortcut, to, blocked in (
        ("◀", "step_back", "PageUp", before, first),
        ("▶", "step_on", "PageDown", after, last),
        ("Back to the step", "step_again", BACK, position, False),
        ("◀ ", "unseen_back", "Left", before, first),
        ("▶ ", "unseen_on", "Right", after, last),
        ("First", "unseen_first", "Home", Position(position.talk), False),
    ):
        st.button(label, key=key, shortcut=shortcut, on_click=go, args=(to,), disabled=blocked)


def show_title() -> None:
    """The title of the step, how many there are, and what it lacks here."""
    position: Position | None = st.session_state["position"]
    talk = _talk(position)
    if position and talk and position.step < len(talk.steps):
        step = talk.steps[position.step]
        st.html(
            f'<div class="presented-title">{escape(step.title)}'
            f"<small>{position.step + 1} of {len(talk.steps)}</small></div>"
        )
        say_what_is_missing(talk, step)


def show_in_sidebar() -> None:
    """Outside of presentation mode: which talk this is a step of, and ways on and out."""
    if complaint := st.session_state.pop("talk_complaint", None):
        st.error(unmarked(complaint))
    position: Position | None = st.session_state["position"]
    talk = _talk(position)
    if not position or not talk or st.session_state["presenting"]:
        return
    st.caption(f"Step {position.step + 1} of {len(talk.steps)} of “{unmarked(talk.title)}”")
    with st.container(horizontal=True, gap="xsmall"):
        for label, step in (("◀", position.step - 1), ("▶", position.step + 1)):
            st.button(
                label,
                key=f"sidebar_{label}",
                on_click=go,
                args=(Position(position.talk, step),),
                disabled=not 0 <= step < len(talk.steps),
                help="A step back" if label == "◀" else "A step on",
            )
        st.button("Close the talk", on_click=close)


def say_what_is_missing(talk: Talk, step: Step) -> None:
    """That a model of the step is not here, and what to do."""
    if absent := missing(step):
        names = ", ".join(f"“{name}”" for name in absent)
        st.warning(
            unmarked(
                f"This step needs {names}, which this computer does not have. "
                f"{talk.needs or 'Add it on the Models page.'}"
            )
        )


def missing(step: Step) -> list[str]:
    """Models of a step that are neither known here nor a folder."""
    from shell.talk import kept

    view, _ = from_query(step.view)
    named = [view.model]
    for choice in kept.starting(step.page, view.task):
        chosen = step.choices.get(choice, [])
        named += [chosen] if isinstance(chosen, str) else chosen
    unknown = [name for name in dict.fromkeys(named) if not catalogue.about(name)]
    return [name for name in unknown if not is_file(Path(name) / "config.json")]


def _show(step: Step) -> None:
    from shell.frame import places  # only now: charts come with it
    from shell.talk import kept

    view, _ = from_query(step.view)
    now = st.session_state
    state.take(view)
    for name in places.studies_of(step.page):
        now.pop(name, None)
    for name, value in kept.read(step.page, view.task, step.choices).items():
        now[name] = value
    for name in kept.starting(step.page, view.task):
        now[f"{name}_started_from"] = view.model
    now["page_of_step"] = step.page


def _show_unseen_chart() -> None:
    """With it the browser and the server load what draws charts: both take tenths of a second over
    that, which a step that shows the first chart of a talk would be late by."""
    with st.container(key="unseen_chart"):
        st.vega_lite_chart({"mark": "point", "data": {"values": [{"x": 0}]}}, key="unseen")


def _talk(position: Position | None) -> Talk | None:
    """The talk of a position; None without one, or where it cannot be read any more."""
    if position is None:
        return None
    try:
        return talks.talk(position.talk)
    except UserError:
        return None
