"""The tests as concrete pairs of prompts: what differs, and which answer is expected."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import wait
from dataclasses import dataclass, replace
from html import escape
from typing import Any

import streamlit as st

from backend.core.errors import UserError
from backend.core.priority import unhurried
from backend.core.progress import Report
from backend.models import catalogue
from backend.studies import jobs, remote
from backend.tasks.desiderata import Desideratum, Pairs
from backend.tasks.prompts import Ints, Prompts
from circuitviz.pairs import alternate_html, base_html
from shell.frame import waiting
from shell.frame.words import unmarked

_N_SHOWN = 50
_A_MOMENT_S = 1.0


@dataclass(frozen=True, eq=False)
class Shown:
    """Pairs, and the words of their answers: the base's own, the alternate's own, the expected."""

    pairs: Pairs
    own: tuple[str, ...]
    alternate: tuple[str, ...]
    expected: tuple[str, ...]


Drawn = Mapping[str, Shown | str]
"""By desideratum: its pairs, or why they cannot be written."""


def drawing(model: str, prompts: Prompts) -> jobs.Job:
    """The job that draws them: the one that runs or has ended, or a new one."""
    some = _shown(prompts)
    return jobs.job(
        ("pairs", model, some),
        lambda report: _draw(model, some, report),
        kind=jobs.PREPARATION,
    )


def drawn_pairs(model: str, prompts: Prompts) -> Drawn | None:
    """The first pairs of every test of the task; None while they, or their model, are on their way.

    Meanwhile, it shows how far they are, or why there are none.
    """
    asked = drawing(model, prompts)
    with unhurried():
        wait([asked.future], timeout=_A_MOMENT_S)
    waiting.follow(asked)
    if asked.parts:
        found: Drawn = asked.parts[0]
        return found
    if asked.future.done():
        st.button(
            "Try again",
            on_click=jobs.forget,
            args=(("pairs", model, _shown(prompts)),),
            key="draw_again",
        )
    return None


def _shown(prompts: Prompts) -> Prompts:
    return replace(prompts, n=min(prompts.n, _N_SHOWN))


def show_pair(tested: Desideratum, drawn: Drawn) -> None:
    """What the test asks, and one of its pairs; buttons step through them."""
    about = f" A test of group {' and '.join(tested.groups)}." if tested.groups else ""
    control = " A control: it should not come true." if tested.control else ""
    st.caption(unmarked(f"{tested.text}{about}{control}"))
    shown = drawn[tested.name]
    if isinstance(shown, str):
        st.warning(unmarked(shown))
        return
    n = len(shown.own)
    place = st.session_state.setdefault("pair", 0) % n
    st.html(
        f'<div class="pair"><small>Base prompt, with its own answer</small>'
        f"{base_html(shown.pairs, place, shown.own[place])}"
        f"<small>Alternate prompt, from which the heads’ values come</small>"
        f"{alternate_html(shown.pairs, place, shown.alternate[place])}"
        f"<p>If the heads carry the {escape(tested.variable)}, the base prompt is answered with "
        f'<b class="expected">{escape(shown.expected[place])}</b>.</p></div>'
    )
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button("◀", on_click=_go, args=((place - 1) % n,), help="Previous pair")
        st.markdown(f"Pair {place + 1} of {n}")
        st.button("▶", on_click=_go, args=((place + 1) % n,), help="Next pair")


def show_obstacles(model: str, desiderata: tuple[Desideratum, ...], drawn: Drawn) -> None:
    """Which tests this model's tokenizer cannot write, and why."""
    lines = [
        f"- **{unmarked(each.label)}**: {unmarked(reason)}"
        for each in desiderata
        if isinstance(reason := drawn[each.name], str)
    ]
    if lines:
        count = "1 test" if len(lines) == 1 else f"{len(lines)} tests"
        with st.expander(f"{count} cannot be written for {unmarked(catalogue.label(model))}"):
            st.markdown("\n".join(lines))


def _go(place: int) -> None:
    st.session_state["pair"] = place


def _draw(model: str, prompts: Prompts, report: Report) -> Iterator[Drawn]:
    report("Loading the model", 0.1)
    tokenizer = remote.tokenizer_of(model, report)
    report("Writing the prompts", 0.6)
    base = prompts.sample(tokenizer)

    def shown(each: Desideratum) -> Shown | str:
        try:
            pairs = each.draw(tokenizer, base, prompts.seed)
        except UserError as error:
            return str(error)
        ids = base.answer_ids, pairs.alternate.answer_ids, pairs.expected_ids
        return Shown(pairs, *(_words(tokenizer, some) for some in ids))

    yield {each.name: shown(each) for each in prompts.task.desiderata}


def _words(tokenizer: Any, ids: Ints) -> tuple[str, ...]:
    return tuple(tokenizer.decode([token]).strip() for token in ids.tolist())
