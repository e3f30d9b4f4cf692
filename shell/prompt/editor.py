"""A prompt to write: its text, its words to click, the answer and what it competes with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import streamlit as st

from backend.tasks.task import Task
from backend.tasks.written import MAX_CHARACTERS, Written, rewritten
from circuitviz.tokens import clickable_words, clicked_word
from shell.frame import state
from shell.frame.choices import choose_one
from shell.frame.view import View
from shell.frame.words import unmarked

FIRST, SECOND = "written", "written_second"
NAMES = {FIRST: "the prompt", SECOND: "the second prompt"}
_ANSWER, _COMPETITOR = "answer", "competitor"


def written(which: str, task: Task, example: Written) -> Written:
    """The prompt as it is now, of this task: the example until something is written."""
    found: Written = st.session_state.setdefault(written_key(which, task), example)
    return found


def written_key(which: str, task: Task) -> str:
    """Where a session keeps a prompt of this task."""
    return f"{which}_for_{task.name}"


def choose_example(view: View) -> None:
    """Buttons that start over from a prompt of the task."""
    number = (view.example or 0) % view.n
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        _start_from(view, number - 1, "◀", "Start over from the previous prompt of the task")
        st.markdown(f"From example {number + 1} of {view.n}", width="content")
        _start_from(view, number + 1, "▶", "Start over from the next prompt of the task")
        _start_from(view, number, "Start over", "The example as it was, with its marks")


def _start_from(view: View, number: int, label: str, about: str) -> None:
    st.button(
        label,
        key=f"from_{label}",
        on_click=_start_over,
        args=(number % view.n, view.task),
        help=about,
    )


def _start_over(number: int, task: Task) -> None:
    st.session_state["example"] = number
    for which in NAMES:
        st.session_state.pop(written_key(which, task), None)


def choose_prompt() -> str:
    """Which of the two prompts is to be written."""
    return choose_one("Write", {FIRST: "Prompt", SECOND: "Second prompt"}, "written_here")


def show_editor(which: str, task: Task, prompt: Written, complaints: Mapping[str, str]) -> None:
    """The fields of a prompt; each has what is wrong with it below."""
    now = st.session_state
    text, answer, competitors = (f"{which}_{name}" for name in ("text", "answer", "competitors"))
    now[text], now[answer] = prompt.text, prompt.answer
    now[competitors] = ", ".join(prompt.competitors)
    st.text_area(
        "Prompt" if which == FIRST else "Second prompt",
        key=text,
        height=100,
        max_chars=MAX_CHARACTERS,
        on_change=_take_text,
        args=(which, task),
        help="Words of your own in the form of the task, or any other text. What is marked stays "
        "marked where you write another word in the place of one. Ctrl+Enter or a click elsewhere "
        "takes the text.",
    )
    _complain(complaints, "text")
    clickable_words(prompt, task, _words_key(which), lambda: _take_click(which, task))
    left, middle = st.columns([1.4, 1], gap="small")
    with left:
        names = (_ANSWER, _COMPETITOR, *task.position_names)
        state.remember(**{f"{which}_marks": _ANSWER})
        st.selectbox(
            "A click marks",
            names,
            format_func=lambda name: _mark_words(name, task),
            key=f"{which}_marks",
            persist_state="session",
            help="What the word becomes that you click in the prompt above. A competitor is taken "
            "out by a second click.",
        )
    with middle:
        st.text_input("Answer", key=answer, on_change=_take_answer, args=(which, task))
        _complain(complaints, "answer")
    st.text_input(
        "Competitors",
        key=competitors,
        on_change=_take_competitors,
        args=(which, task),
        help="Words that the answer competes with, with commas between them: the logit "
        "difference is against their mean.",
    )
    _complain(complaints, "competitors")
    _complain(complaints, "positions")


def _mark_words(name: str, task: Task) -> str:
    if name in (_ANSWER, _COMPETITOR):
        return f"the {name}" if name == _ANSWER else "a competitor"
    return task.token_words(name)


def _complain(complaints: Mapping[str, str], field: str) -> None:
    if field in complaints:
        st.caption(f":orange-badge[Note] {unmarked(complaints[field])}")


def _words_key(which: str) -> str:
    return f"{which}_words"


def _set(which: str, task: Task, prompt: Written) -> None:
    st.session_state[written_key(which, task)] = prompt


def _now(which: str, task: Task) -> Written:
    found: Written = st.session_state[written_key(which, task)]
    return found


def _take_text(which: str, task: Task) -> None:
    text = st.session_state[f"{which}_text"][:MAX_CHARACTERS]
    _set(which, task, rewritten(task, _now(which, task), text))


def _take_answer(which: str, task: Task) -> None:
    answer = st.session_state[f"{which}_answer"].strip()
    _set(which, task, replace(_now(which, task), answer=answer))


def _take_competitors(which: str, task: Task) -> None:
    words = (word.strip() for word in st.session_state[f"{which}_competitors"].split(","))
    others = tuple(dict.fromkeys(word for word in words if word))
    _set(which, task, replace(_now(which, task), competitors=others))


def _take_click(which: str, task: Task) -> None:
    prompt, message = _now(which, task), st.session_state[_words_key(which)]
    clicked = clicked_word(_marked(message), prompt)
    if clicked:
        _set(which, task, _with_mark(prompt, st.session_state[f"{which}_marks"], *clicked))


def _marked(message: Any) -> object:
    return message.get("marked") if hasattr(message, "get") else None


def _with_mark(prompt: Written, name: str, word: str, character: int) -> Written:
    """The prompt with its clicked word made what a click marks."""
    if name == _ANSWER:
        others = tuple(each for each in prompt.competitors if each != word)
        return replace(prompt, answer=word, competitors=others)
    if name == _COMPETITOR:
        others = tuple(each for each in prompt.competitors if each != word)
        is_out = word in prompt.competitors
        return replace(prompt, competitors=others if is_out else (*others, word))
    return prompt.marked(name, character)
