"""A written prompt with heads switched off, or patched from a second one: picture and numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING

import streamlit as st

from backend.core.heads import Site
from backend.methods.requests import N_REFERENCE
from backend.models import catalogue
from backend.tasks.circuit import Circuit
from backend.tasks.setting import Mode, Reading, intervention
from backend.tasks.written import Written
from circuitviz.charts import EXPECTED, LOOKS, RIGHT, WRONG, answer_bars
from circuitviz.prompt import attention_html
from shell.circuit import picture
from shell.circuit.example import answers_frame
from shell.circuit.switches import show_undo
from shell.frame import state, waiting
from shell.frame.choices import choose_one
from shell.frame.take_home import Origin, chart_files, frame_files, show_control
from shell.frame.view import View
from shell.frame.words import unmarked
from shell.prompt import editor

if TYPE_CHECKING:
    from backend.engine.answers import Answers
    from backend.studies.written import WrittenRun

MODE = "prompt_mode"
_OWN, _SECOND = "prompt’s", "second’s"
_LOOKS = {_OWN: RIGHT, _SECOND: EXPECTED, "other": WRONG}
"""Answers after a click, where heads give their values on a second prompt."""
_HEAD = "prompt_head"
MODES = {Mode.mean: "Mean", Mode.zero: "Zero", Mode.counterfactual: "Second prompt"}


def choose_mode() -> Mode:
    """What a head that is off gives."""
    return choose_one(
        "A head that is off gives",
        MODES,
        MODE,
        "**Mean** over reference prompts of the task (mean ablation), **Zero**, or what it gives "
        "on a **Second prompt** that you write, at its own tokens of the same names (activation "
        "patching). Everything else runs as usual.",
    )


def shown_view(mode: Mode) -> View:
    """The session's view, as this page has it: the whole model less the heads that are off."""
    return replace(
        state.current(),
        reading=Reading.model,
        mode=mode,
        desideratum="",
        switched=frozenset(),
        outside=False,
        contributions=False,
    )


def show_circuit(now: WrittenRun, circuit: Circuit, view: View) -> None:
    """The picture, headed by the words of the prompt, and its switches."""
    picture.show_picture(now, circuit, view, 0)
    with st.container(horizontal=True, gap="xsmall"):
        show_undo(circuit)


def show_attention(now: WrittenRun, view: View, prompt: Written) -> None:
    """Where the head that was looked at last attends in this prompt, from its group's token."""
    node = st.session_state.pop("head_to_look_at", None) or st.session_state.get(_HEAD)
    if not node or node[0] not in view.task.keys:
        return
    st.session_state[_HEAD] = node
    from backend.studies import written

    key, head = node
    token = int(now.prompts.positions[view.task.group(key).position][0])
    words, roles = now.prompts.words(0), now.prompts.roles_of(0)
    with waiting.memory_permitting():
        weights = written.attention(view.model, view.task, prompt)[head.layer, head.index, token]
    st.markdown(f"#### Where {head} of {key} attends, from “{unmarked(words[token])}”")
    st.html(attention_html(words, roles, weights.tolist(), token, view.task))
    st.caption(
        "Attention weights after the softmax, nothing switched: a token tells its own under the "
        "pointer. A double click on another head, or A on it, shows that."
    )


def sites_off(circuit: Circuit, view: View) -> frozenset[Site]:
    """Where heads are off."""
    return intervention(circuit, view.reading, view.mode, view.off).off


def say_what_is_missing(
    circuit: Circuit | None, complaints: Mapping[str, Mapping[str, str]], needed: Sequence[str]
) -> None:
    """Why there is no picture, and what to do."""
    if not circuit:
        st.info("There is no circuit for this task yet: find one on the Discover page.")
        return
    which = " and ".join(editor.NAMES[each] for each in needed if complaints[each])
    st.info(f"Heads can be clicked when {which} can be asked: see the notes at the fields.")


def show_numbers(now: WrittenRun, after: Answers, view: View, second: WrittenRun | None) -> None:
    """The right answer's probability, rank and logit difference, and the likeliest answers, that of
    the second prompt among them."""
    before, decode = now.whole, now.loaded.tokenizer.decode
    answer = int(now.prompts.answer_ids[0])
    word = decode([answer]).strip()
    figures = [
        (f"P(“{unmarked(word)}”)", before.probability[0], after.probability[0], ".3f"),
        ("Rank", before.rank[0], after.rank[0], "d"),
    ]
    if now.prompts.n_choices > 1:
        ahead = before.logit_difference[0], after.logit_difference[0]
        figures.append(("Logit difference", *ahead, ".2f"))
    columns = st.columns(len(figures), vertical_alignment="bottom")
    for column, (label, then, value, form) in zip(columns, figures, strict=True):
        change = value - then
        told = f"{change:+{form}}" if view.off else "untouched"
        moved = bool(view.off) and f"{abs(change):{form}}" != f"{0:{form}}"
        with column:
            st.metric(
                label,
                f"{value:{form}}",
                told,
                delta_color="off" if not moved else "inverse" if label == "Rank" else "normal",
                delta_arrow="auto" if moved else "off",
            )
    kinds, looks = {answer: next(iter(LOOKS))}, LOOKS
    if second:
        kinds, looks = {int(second.prompts.answer_ids[0]): _SECOND, answer: _OWN}, _LOOKS
    *_, other = looks
    frame = answers_frame(before, after, 0, decode, kinds, other)
    least = {"before": before.top[0, -1], "after": after.top[0, -1]}
    chart = answer_bars(frame, least, looks)
    st.vega_lite_chart(chart, width="stretch", key="answers")
    origin = Origin("prompt", (view.model,))
    show_control(
        "answers",
        lambda: [
            *chart_files(chart, origin, "answers"),
            *frame_files(frame, origin, "answers"),
        ],
    )
    said = f"Probability of {escape(word)} {after.probability[0]:.3f}."
    st.html(f'<div class="spoken" role="status">{said}</div>')


def show_source(view: View, is_mean_of_token: bool) -> None:
    """Which model, circuit and prompt the numbers are of, and what a head that is off gives."""
    where = (
        "at the same token"
        if is_mean_of_token
        else "at their tokens of the same names, as the text is not as long as they are"
    )
    given = {
        Mode.mean: f"means over {N_REFERENCE} reference prompts {where}",
        Mode.zero: "zeros",
        Mode.counterfactual: "values of the second prompt",
    }[view.mode]
    st.caption(
        f"{unmarked(catalogue.label(view.model))} · circuit “{unmarked(view.circuit)}” · one "
        f"prompt, so there are no intervals · heads that are off give {given}"
    )
