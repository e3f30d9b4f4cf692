"""Choices that several pages offer: which heads, which models, which prompts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

import streamlit as st

from backend.core.metrics import Ablation, Tokens
from backend.core.read_only import is_read_only
from backend.methods.requests import Request, not_as_in_the_paper
from backend.models import catalogue
from backend.tasks.circuit import Circuit
from backend.tasks.prompts import Prompts
from backend.tasks.registry import DEFAULT_TASK
from backend.tasks.setting import Reading
from shell.frame import fitting, state
from shell.frame.words import unmarked

Some = TypeVar("Some")


def require_circuit() -> None:
    """While there is no circuit for the task, say how to get one, and draw no more of the page."""
    view = state.current()
    if view.circuit:
        return
    task = view.task.title.lower()
    st.markdown(f"#### There is no circuit for {unmarked(task)} yet")
    model = (
        f"{unmarked(catalogue.label(view.model))} knows only the words of "
        f"{DEFAULT_TASK.title.lower()}: in the sidebar, type the folder or the hub name of a model "
        "that was trained on English text."
        if fitting.knows_other_words(view.model, view.task)
        else "The model in the sidebar must know the words of the task."
    )
    st.markdown(
        f"- **Find one** in a model, by path patching, on the Discover page. {model}\n"
        "- **Add one** that was found before: its file, with “Add a circuit” in the sidebar."
    )
    if st.button("Find a circuit", type="primary"):
        st.switch_page("pages/discover.py")
    state.write_address()
    st.stop()


def sidebar_circuit() -> Circuit:
    """The circuit of the sidebar, under its name there.

    Raises UserError for a circuit that is unknown, malformed or for another task.
    """
    view = state.current()
    circuit = catalogue.circuit(view.circuit)
    circuit.check_task(view.task)
    return replace(circuit, name=view.circuit)


def choose_heads(key: str) -> Circuit:
    """The circuit of the sidebar, or those of its heads that are on in the Circuit page.

    Raises UserError for a circuit that is unknown, malformed or for another task.
    """
    view, whole = state.current(), sidebar_circuit()
    added = view.switched if view.reading is Reading.circuit else frozenset()
    on = (whole.nodes | added) - view.off
    if on == whole.nodes:
        return whole
    offered = {
        f"All of “{unmarked(view.circuit)}” ({len(whole.nodes)})": whole,
        f"Those switched on ({len(on)})": Circuit(
            view.task, on, f"{view.circuit}, heads that are on"
        ),
    }
    chosen = st.segmented_control(
        "Which heads",
        list(offered),
        default=next(iter(offered)),
        key=key,
        required=True,
        help="The circuit as it was found, or the heads that you left on in the Circuit page.",
    )
    return offered[chosen]


_ABLATIONS = {Ablation.mean: "Mean", Ablation.zero: "Zero", Ablation.resample: "Counterfactual"}
_TOKENS = {Tokens.every: "At every token", Tokens.named: "At the named tokens"}


def choose_ablation(key: str) -> Ablation:
    """What heads that are knocked out give."""
    return choose_one(
        "A head that is off gives",
        _ABLATIONS,
        key,
        "**Mean** over reference prompts (mean ablation, the paper’s), **Zero** (zero "
        "ablation), or what it gives on the **Counterfactual** prompt (resample ablation).",
    )


def choose_tokens(key: str) -> Tokens:
    """Where heads outside a circuit are knocked out."""
    return choose_one(
        "Heads outside are off",
        _TOKENS,
        key,
        "**At every token** of the prompt, as in the paper, or only **at the named tokens**, "
        "those at which circuits work: at all others every head then computes freely.",
    )


def choose_one(label: str, words: Mapping[Some, str], key: str, about: str | None = None) -> Some:
    """One of several, called so on screen, the first unless told otherwise; `about` is its help."""
    state.remember(**{key: next(iter(words))})
    st.segmented_control(
        label,
        list(words),
        format_func=words.__getitem__,
        key=key,
        required=True,
        persist_state="session",
        help=about,
    )
    chosen: Some = st.session_state[key]
    return chosen


def chosen_prompts() -> Prompts:
    """The prompts that the sidebar asks for."""
    return state.current().prompts


def model_names(also: Iterable[str] = ()) -> list[str]:
    """The known models, the sidebar's, and others that are chosen already."""
    names = (*catalogue.models(), state.current().model, *also)
    return list(dict.fromkeys(names))


def choose_models(key: str) -> tuple[str, ...]:
    """Any number of models: known ones, folders or hub names; the key has those chosen so far."""
    models: list[str] = st.multiselect(
        "Models",
        model_names(st.session_state[key]),
        format_func=catalogue.label,
        key=key,
        persist_state="session",
        accept_new_options=not is_read_only(),
        help="Known models are on the Models page. You can also type a Hugging Face model: its "
        "folder on this computer, or a hub name such as `owner/name`.",
    )
    return tuple(models)


def is_start(key: str) -> bool:
    """Whether this choice starts from the sidebar's model: when it was never made, and when the
    sidebar has another model than it had at the start."""
    model, of = state.current().model, f"{key}_started_from"
    before = st.session_state.get(of, model)
    st.session_state[of] = model
    return key not in st.session_state or before != model


def sizes(circuit: Circuit) -> str:
    """How many heads a circuit has: “5 D, 8 C, 3 B, 7 A”."""
    return ", ".join(
        f"{len(circuit.heads(group.key))} {group.key}" for group in circuit.task.reading_order
    )


def say_what_is_not_the_papers(request: Request) -> None:
    """How what is shown was measured, as far as that is not as in the paper."""
    if others := ", ".join(not_as_in_the_paper(request)):
        st.caption(f":orange-badge[Note] {others[0].upper()}{others[1:]}: not as in the paper.")


def say_what_changed(shown: object, chosen: object, button: str = "Run") -> None:
    """Say that the figures on screen are not those of what is chosen now, and what gives these."""
    with st.container():  # a place of its own, as in `waiting.follow`
        if shown != chosen:
            st.info(
                "These figures were measured with other choices than those made now. Press "
                f"{button} for new ones."
            )
