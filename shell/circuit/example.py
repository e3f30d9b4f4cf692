"""The worked example: one prompt, and what the model answers before and after."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import streamlit as st

from circuitviz.charts import EXPECTED, LOOKS, RIGHT, WRONG, answer_bars
from circuitviz.pairs import alternate_html, base_html
from circuitviz.prompt import prompt_html
from shell.frame.take_home import File, Origin, chart_files, frame_files, show_button

if TYPE_CHECKING:
    from backend.engine.answers import Answers
    from backend.studies.session import Session
    from backend.tasks.desiderata import Pairs

_TESTED = {"base’s": RIGHT, "expected": EXPECTED, "another": WRONG}
"""Answers where heads are tested, after a click."""
_SHOWN = 5


def chosen_prompt(session: Session, before: Answers, example: int | None) -> int:
    """The prompt of that number, going round; without one the first that is answered right by the
    whole model and with every head on."""
    if example is None:
        return int((session.whole.correct & before.correct).argmax())
    return example % len(session.prompts)


def show_example(
    session: Session, before: Answers, after: Answers, prompt: int, pairs: Pairs | None = None
) -> None:
    """A prompt, the likeliest answers to it, and buttons to step through the prompts.

    Where heads are tested, each prompt is the base of one of the `pairs`.
    """
    show_prompt(session, after, prompt, pairs)
    looks, frame = looks_of(pairs), likeliest(session, before, after, prompt, pairs)
    least = {"before": before.top[prompt, -1], "after": after.top[prompt, -1]}
    chart = answer_bars(frame, least, looks)
    st.vega_lite_chart(chart, width="stretch", key="answers")
    setting = session.setting
    origin = Origin("circuit", (setting.model,), setting.prompts)
    files = partial(_files, chart, frame, origin, prompt)
    show_steps(before, after, prompt, lambda: show_button("answers", files))


def show_prompt(session: Session, after: Answers, prompt: int, pairs: Pairs | None) -> None:
    """The words of a prompt, or of a base and its alternate, with the answer given now."""
    prompts = session.prompts
    answer = session.loaded.tokenizer.decode([int(after.top_ids[prompt, 0])]).strip()
    if pairs:
        _show_pair(session, pairs, prompt, answer)
    else:
        st.html(prompt_html(prompts.words(prompt), prompts.roles_of(prompt), prompts.task, answer))


def looks_of(pairs: Pairs | None) -> Mapping[str, str]:
    """The colour of an answer after a click, by its kind."""
    return _TESTED if pairs else LOOKS


def likeliest(
    session: Session, before: Answers, after: Answers, prompt: int, pairs: Pairs | None = None
) -> pd.DataFrame:
    """The likeliest answers to a prompt, as `answer_bars` takes them."""
    right, *_, other = looks_of(pairs)
    kinds = {int(session.prompts.answer_ids[prompt]): right}
    if pairs:
        kinds[int(pairs.expected_ids[prompt])] = "expected"
    return answers_frame(before, after, prompt, session.loaded.tokenizer.decode, kinds, other)


def answers_frame(
    before: Answers,
    after: Answers,
    prompt: int,
    decode: Callable[[list[int]], str],
    kinds: Mapping[int, str],
    other: str,
) -> pd.DataFrame:
    """The likeliest answers to a prompt in two runs; those of `kinds` are there in any case."""
    answers = _likeliest(before, after, prompt, [*kinds])
    return pd.DataFrame(
        {
            "word": [decode([int(token)]).strip() for token in answers],
            "before": _probabilities(before, prompt, answers),
            "after": _probabilities(after, prompt, answers),
            "kind": [kinds.get(int(token), other) for token in answers],
        }
    )


def show_steps(
    before: Answers, after: Answers, prompt: int, also: Callable[[], None] = lambda: None
) -> None:
    """Buttons that step through the prompts, and what `also` draws beside them."""
    n = len(after.top_ids)
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
        also()


def _files(chart: dict[str, Any], frame: pd.DataFrame, origin: Origin, prompt: int) -> list[File]:
    what = f"answers to prompt {prompt + 1}"
    return [*chart_files(chart, origin, what), *frame_files(frame, origin, what)]


def _show_pair(session: Session, pairs: Pairs, prompt: int, answer: str) -> None:
    decode = session.loaded.tokenizer.decode
    expected, own = (
        decode([int(ids[prompt])]).strip()
        for ids in (pairs.expected_ids, pairs.alternate.answer_ids)
    )
    base = base_html(pairs, prompt, answer, by_role=True)
    alternate = alternate_html(pairs, prompt, own)
    st.html(
        f'<div class="pair"><small>Base prompt</small>{base}'
        f"<small>Alternate prompt: what heads that are off give</small>{alternate}"
        f"<small>Expected if the heads carry it: "
        f'<b class="expected">{escape(expected)}</b></small></div>'
    )


def _likeliest(before: Answers, after: Answers, prompt: int, wanted: Sequence[int]) -> np.ndarray:
    """The top answers of both runs together, the most probable first; those wanted are there."""
    top = (run.top_ids[prompt, :_SHOWN] for run in (before, after))
    tokens = np.unique(np.concatenate([*top, wanted]))
    highest = np.fmax(*(_probabilities(run, prompt, tokens) for run in (before, after)))
    ranked = tokens[np.argsort(-highest, kind="stable")].tolist()
    others = [token for token in ranked if token not in wanted][: _SHOWN - len(wanted)]
    return np.array([token for token in ranked if token in {*others, *wanted}])


def _probabilities(answers: Answers, prompt: int, tokens: np.ndarray) -> np.ndarray:
    return np.array([answers.probability_of(prompt, token) for token in tokens])


def _next(flips: np.ndarray, prompt: int) -> int:
    """The first flip after a prompt, going round."""
    if not len(flips):
        return prompt
    return int(flips[np.searchsorted(flips, prompt, side="right") % len(flips)])


def _go(prompt: int) -> None:
    st.session_state["example"] = prompt
