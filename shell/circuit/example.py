"""The worked example: one prompt, and what the model answers before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import streamlit as st

from circuitviz.charts import answer_bars
from circuitviz.prompt import prompt_html

if TYPE_CHECKING:
    from backend.engine.answers import Answers
    from backend.studies.session import Session

_SHOWN = 5


def chosen_prompt(session: Session, before: Answers, example: int | None) -> int:
    """The prompt of that number, going round; without one the first that is answered right by the
    whole model and with every head on."""
    if example is None:
        return int((session.whole.correct & before.correct).argmax())
    return example % len(session.prompts)


def show_example(session: Session, before: Answers, after: Answers, prompt: int) -> None:
    """A prompt, the likeliest answers to it, and buttons to step through the prompts."""
    n = len(session.prompts)
    decode = session.loaded.tokenizer.decode
    answers = _likeliest(before, after, prompt, int(session.prompts.answer_ids[prompt]))
    words = [decode([token]).strip() for token in answers]
    answer = decode([int(after.top_ids[prompt, 0])]).strip()
    prompts = session.prompts
    st.html(prompt_html(prompts.words(prompt), prompts.roles_of(prompt), prompts.task, answer))
    frame = pd.DataFrame(
        {
            "word": words,
            "before": _probabilities(before, prompt, answers),
            "after": _probabilities(after, prompt, answers),
            "is_right": answers == session.prompts.answer_ids[prompt],
        }
    )
    least = {"before": before.top[prompt, -1], "after": after.top[prompt, -1]}
    st.vega_lite_chart(answer_bars(frame, least), width="stretch", key="answers")
    flips = np.flatnonzero(before.top_ids[:, 0] != after.top_ids[:, 0])
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button("◀", on_click=_go, args=((prompt - 1) % n,), help="Previous prompt")
        st.markdown(f"Example {prompt + 1} of {n}")
        st.button("▶", on_click=_go, args=((prompt + 1) % n,), help="Next prompt")
        st.button(
            f"Next flip ({len(flips)})",
            on_click=_go,
            args=(_next(flips, prompt),),
            disabled=not len(flips),
            help="The next prompt to which the first answer is another one than with every head "
            "on. In brackets: how many of the prompts.",
        )


def _likeliest(before: Answers, after: Answers, prompt: int, right: int) -> np.ndarray:
    """The top answers of both runs together, the most probable first; the right one is there."""
    tokens = np.union1d(before.top_ids[prompt, :_SHOWN], after.top_ids[prompt, :_SHOWN])
    highest = np.fmax(*(_probabilities(run, prompt, tokens) for run in (before, after)))
    ranked = tokens[np.argsort(-highest, kind="stable")]
    shown = ranked[:_SHOWN]
    return shown if right in shown else np.append(shown[:-1], right)


def _probabilities(answers: Answers, prompt: int, tokens: np.ndarray) -> np.ndarray:
    return np.array([answers.probability_of(prompt, token) for token in tokens])


def _next(flips: np.ndarray, prompt: int) -> int:
    """The first flip after a prompt, going round."""
    if not len(flips):
        return prompt
    return int(flips[np.searchsorted(flips, prompt, side="right") % len(flips)])


def _go(prompt: int) -> None:
    st.session_state["example"] = prompt
