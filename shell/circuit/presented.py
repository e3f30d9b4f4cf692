"""The Circuit page for a lecture hall: what is shown, the figures that count, and the answers."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from math import isnan
from typing import TYPE_CHECKING

import pandas as pd
import streamlit as st

from backend.models import catalogue
from backend.tasks.setting import Mode
from circuitviz.charts import BEFORE
from circuitviz.figures import Figure
from shell.circuit.example import likeliest, looks_of, show_prompt, show_steps
from shell.circuit.numbers import Measured, not_as_in_the_paper, signed, way_of
from shell.circuit.switches import MODES, READINGS
from shell.frame.view import View
from shell.frame.words import MEASURES

if TYPE_CHECKING:
    from backend.engine.answers import Answers
    from backend.studies.session import Session
    from backend.tasks.desiderata import Pairs


def show_what(view: View) -> None:
    """One line: the model, the circuit, what runs, and what a head that is off gives."""
    circuit = f"circuit “{view.circuit}”"
    words = (circuit, view.task.title, READINGS[view.reading], f"off gives: {_given(view)}")
    rest = "".join(f"<span>{escape(each)}</span>" for each in words)
    model = escape(catalogue.label(view.model))
    st.html(f'<div class="presented-what"><b>{model}</b>{rest}</div>')


def _given(view: View) -> str:
    """What a head that is off gives."""
    if view.mode is Mode.other:
        return f"that of {catalogue.label(view.source)}"
    given = MODES[view.mode].lower()
    return f"{given}, {view.tested.label}" if view.tested else given


def read_out(measured: Measured) -> Figure:
    """A figure as it stands on a stage."""
    estimate, change = measured.estimate, measured.change
    if isnan(estimate.value):
        value, interval = "–", "undefined"
    else:
        value = signed(f"{estimate.value:.3f}")
        interval = signed(f"{estimate.low:.3f} to {estimate.high:.3f}, n = {estimate.n}")
    way = way_of(change)
    return Figure(measured.label, value, signed(f"{change:+.3f}") if way else "", way, interval)


def how(view: View) -> str:
    """What is said of all figures."""
    others = "" if view.tested else not_as_in_the_paper(view.mode, view.metric)
    return f"{MEASURES[view.metric]}, 95 % intervals, change since all on. {others}"


def show_answers(
    session: Session, before: Answers, after: Answers, prompt: int, pairs: Pairs | None
) -> None:
    """A prompt, the likeliest answers to it, and buttons to step through the prompts; two prompts
    leave no room for those."""
    with st.container(key="presented_prompt"):
        show_prompt(session, after, prompt, pairs)
    st.html(answers_html(likeliest(session, before, after, prompt, pairs), looks_of(pairs)))
    if not pairs:
        with st.container(key="presented_steps"):
            show_steps(before, after, prompt)


def answers_html(answers: pd.DataFrame, looks: Mapping[str, str]) -> str:
    """Bars of the answers, before above after, as `answer_bars` takes them; what is not known is
    drawn as nothing."""
    rows = "".join(_answer(looks, *row) for row in answers.itertuples(index=False))
    before, *after = BEFORE, *looks.values()
    keys = "".join(f'<i style="background: {fill}"></i>' for fill in after)
    legend = f'<p><i style="background: {before}"></i>all on<span>{keys}now</span></p>'
    return f'<div class="presented-answers">{rows}{legend}</div>'


def _answer(looks: Mapping[str, str], word: str, before: float, after: float, kind: str) -> str:
    bars = "".join(
        f'<i style="width: {0 if isnan(share) else 100 * share:.1f}%; background: {fill}"></i>'
        for share, fill in ((before, BEFORE), (after, looks[kind]))
    )
    told = "–" if isnan(after) else f"{after:.2f}"
    return f"<div><span>{escape(word)}</span><div>{bars}</div><b>{told}</b></div>"
