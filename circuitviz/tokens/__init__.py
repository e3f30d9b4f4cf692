"""The words of a prompt that can be clicked, as a Streamlit component: no build step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import streamlit as st

from backend.tasks.task import Task
from backend.tasks.written import Written, words_of
from circuitviz.palette import colours

_FOLDER = Path(__file__).parent


def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


_mount = st.components.v2.component(
    "tokens", html=_read("tokens.html"), css=_read("tokens.css"), js=_read("tokens.js")
)


def clickable_words(prompt: Written, task: Task, key: str, on_click: Callable[[], None]) -> None:
    """Show the words of a prompt, marked by their roles; `clicked_word` says which was clicked."""
    _mount(key=key, data={"words": drawn_words(prompt, task)}, on_marked_change=on_click)


def clicked_word(raw: object, prompt: Written) -> tuple[str, int] | None:
    """The word of a prompt that a click was on, and its last character; None for anything else."""
    ends = {end - 1: word for word, _, end in words_of(prompt.text)}
    return (ends[raw], raw) if type(raw) is int and raw in ends else None


def drawn_words(prompt: Written, task: Task) -> list[dict[str, Any]]:
    """Each word of a prompt, what stands before it, and how it looks."""
    looks, drawn, before = colours(task), [], 0
    for word, start, end in words_of(prompt.text):
        roles = [role for role in task.roles if end - 1 in prompt.at(role.name)]
        role = roles[-1] if roles else None
        mark = looks.get(role.group or "") if role else None
        about = [role.words] if role else []
        kinds = ["marked" if mark else "known" if role else "plain"]
        if word == prompt.answer:
            kinds.append("answer")
            about.append("answer")
        elif word in prompt.competitors:
            kinds.append("competitor")
            about.append("competitor")
        drawn.append(
            {
                "gap": prompt.text[before:start],
                "word": word,
                "kind": " ".join(kinds),
                "mark": mark,
                "title": ", ".join(about) or "no role",
                "at": end - 1,
            }
        )
        before = end
    return drawn
