"""The Circuit page for a lecture hall: what is shown, the figures that count, and the answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from math import isnan
from typing import TYPE_CHECKING

import pandas as pd
import streamlit as st

from backend.models import catalogue
from backend.tasks.setting import Mode
from circuitviz.charts import BEFORE
from circuitviz.picture import MINUS
from shell.circuit.example import likeliest, looks_of, show_prompt, show_steps
from shell.circuit.numbers import Headline, not_as_in_the_paper
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


def show_headlines(found: Iterable[Headline], view: View) -> None:
    """The figures, large, each with its interval, n and change."""
    rows = "".join(map(_row, found))
    st.html(f'<div class="presented-figures">{rows}<small>{escape(_how(view))}</small></div>')


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


def _how(view: View) -> str:
    others = "" if view.tested else not_as_in_the_paper(view.mode, view.metric)
    return f"{MEASURES[view.metric]}, 95 % intervals, change since all on. {others}"


def _row(headline: Headline) -> str:
    estimate, change = headline.estimate, headline.change
    if isnan(estimate.value):
        value, interval = "–", "undefined"
    else:
        value = _signed(f"{estimate.value:.3f}")
        interval = _signed(f"{estimate.low:.3f} to {estimate.high:.3f}, n = {estimate.n}")
    moved = change is not None and not isnan(change) and abs(change) >= 0.0005
    way = "" if not moved or change is None else "up" if change > 0 else "down"
    told = _signed(f"{change:+.3f}") if moved else ""
    return (
        f'<div><span>{escape(headline.words)}</span><em class="{way}">{told}</em>'
        f"<small>{interval}</small><b>{value}</b></div>"
    )


def _answer(looks: Mapping[str, str], word: str, before: float, after: float, kind: str) -> str:
    bars = "".join(
        f'<i style="width: {0 if isnan(share) else 100 * share:.1f}%; background: {fill}"></i>'
        for share, fill in ((before, BEFORE), (after, looks[kind]))
    )
    told = "–" if isnan(after) else f"{after:.2f}"
    return f"<div><span>{escape(word)}</span><div>{bars}</div><b>{told}</b></div>"


def _signed(number: str) -> str:
    return number.replace("-", MINUS)
