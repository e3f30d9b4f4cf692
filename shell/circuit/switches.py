"""The controls around the picture: what is read, and buttons that switch many heads at once."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from backend.models import catalogue
from backend.tasks.circuit import Circuit
from backend.tasks.setting import Mode, Reading
from backend.tasks.task import Task
from shell.circuit.edges import show_threshold
from shell.circuit.picture import take_in
from shell.frame import presenting, state
from shell.frame.choices import model_names
from shell.frame.help import show_help
from shell.frame.history import History, NodeKey, Switches

READINGS = {Reading.circuit: "Circuit only", Reading.model: "Whole model minus heads"}
MODES = {
    Mode.mean: "Mean",
    Mode.zero: "Zero",
    Mode.counterfactual: "Counterfactual",
    Mode.other: "Other model",
}


def show_readings(task: Task) -> None:
    """Which reading, which replacement, whether heads outside the circuit are shown, and help."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        st.segmented_control(
            "What runs",
            list(Reading),
            format_func=READINGS.__getitem__,
            key="reading",
            required=True,
            persist_state="session",
            on_change=_as_the_reading_has_them,
            help="**Circuit only:** every head outside the circuit is knocked out, at every token, "
            "in the way chosen beside; do the heads that are on still find the answer? **Whole "
            "model minus heads:** everything runs as usual, except for the heads that you switch "
            "off.",
        )
        st.segmented_control(
            "A head that is off gives",
            list(Mode),
            format_func=MODES.__getitem__,
            key="mode",
            required=True,
            persist_state="session",
            help="**Mean** over reference prompts (mean ablation, the paper’s): it says nothing "
            "about this prompt. **Zero** (zero ablation): nothing, which other heads never see in "
            "training, so effects may be too large. **Counterfactual** (resample ablation): what "
            "it says on another prompt, of which the answer is another. **Other model**: what that "
            "says on the same prompt, cross-model activation patching head by head. Heads outside "
            "the circuit, when only the circuit runs, give the same: their means, zeros, or what "
            "they say on the counterfactual prompt; beside another model’s heads, their means.",
        )
        if st.session_state["mode"] is Mode.other:
            st.selectbox(
                "Source",
                model_names([st.session_state["source"]]),
                format_func=catalogue.label,
                key="source",
                persist_state="session",
                accept_new_options=True,
                width=190,
                help="The model whose head outputs go into the sidebar's model.",
            )
        if st.session_state["mode"] is Mode.counterfactual and task.desiderata:
            _choose_desideratum(task)
        with st.container(width="content", gap="xxsmall"):
            st.toggle(
                "All heads",
                key="outside",
                persist_state="session",
                help="Show the heads outside the circuit too, at each token. Click one to add it "
                "to the circuit, or, when the whole model runs, to switch it off.",
            )
            st.toggle(
                "Contributions",
                key="contributions",
                persist_state="session",
                help="Colour heads by what they add at the last token to the logit of the right "
                "answer less the mean logit of its competitors, directly, in the untouched model: "
                "red for the answer, blue against it (direct logit attribution). Heads at other "
                "tokens add nothing there themselves, and keep their group’s outline only. The "
                "Logits page has all parts.",
            )
        with st.container(key="aside", width="content", gap="xxsmall"):
            presenting.offer()
            show_help(task)


def _choose_desideratum(task: Task) -> None:
    labels = {each.name: each.label for each in task.desiderata}
    st.selectbox(
        "Counterfactual of",
        ["", *labels],
        format_func=lambda name: labels.get(name, "path patching"),
        key="desideratum",
        persist_state="session",
        width=190,
        help="What is different on the other prompt. **Path patching**: everything, and there is "
        "no answer in it. Any other is a test of what heads carry (a desideratum; Prakash et al., "
        "circuit functionality): a head that is off gives what it gives on the alternate prompt, "
        "and the numbers say how often the answer is then the one that follows if the heads carry "
        "this and nothing else. **Whole model minus heads** is the paper’s activation patching. "
        "When only the circuit runs, heads outside it stay at their means, so that nothing but the "
        "heads that you switch off knows of the alternate prompt.",
    )


def _as_the_reading_has_them() -> None:
    """Heads outside the circuit start over: what was added to one reading is off in the other."""
    _go(lambda history: history.set(Switches(history.now.off)))


def show_switches(circuit: Circuit, also: Callable[[], None]) -> None:
    """Undo, redo and switches for many heads at once, and what `also` draws beside them."""
    last = st.session_state.get("last_clicked")
    with st.container(horizontal=True, vertical_alignment="bottom", gap="xsmall"):
        show_undo(circuit)
        if last:
            st.button(
                "Attention",
                on_click=_look_at,
                args=(last,),
                help=f"Where {last[1]} of {last[0]}, the head clicked last, attends. A double "
                "click on a head, or A on it, does the same.",
            )
        _button(
            "Reset", lambda _: History(), help="Every switch as it was at first, and no history."
        )
        show_threshold(circuit)
        also()


def show_undo(circuit: Circuit) -> None:
    """Undo, redo and switches for many heads at once."""
    members = frozenset(circuit.members)
    last = st.session_state.get("last_clicked")
    _button("Undo", History.undo, shortcut="Ctrl+Z")
    _button("Redo", History.redo, shortcut="Ctrl+Y")
    _button("All on", lambda history: history.set(Switches(switched=history.now.switched)))
    _button("All off", lambda history: history.set(Switches(members)))
    _button(
        "Invert",
        lambda history: history.set(Switches(members - history.now.off, history.now.switched)),
    )
    if last in members:
        _button(
            f"Only {last[1]}",
            lambda history: history.set(Switches(members - {last})),
            help="The head clicked last, on its own.",
        )


def _look_at(node: NodeKey) -> None:
    st.session_state["head_to_look_at"] = node


def _button(
    label: str,
    leads: Callable[[History], History],
    shortcut: str | None = None,
    help: str | None = None,
) -> None:
    history: History = st.session_state["history"]
    # On a stage it is not seen, and its key may follow a click that the page has not drawn yet.
    is_useless = leads(history) == history and not st.session_state["presenting"]
    st.button(
        label,
        on_click=_go,
        args=(leads,),
        disabled=is_useless,
        shortcut=shortcut,
        help=help,
    )


def _go(leads: Callable[[History], History]) -> None:
    """From where the clicks have led that came before, also those of the same moment."""
    take_in()
    state.overrule(leads(st.session_state["history"]))
