"""The whole pattern of one head on one prompt: as text, and as a matrix."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import streamlit as st

from backend.core.errors import UserError
from backend.core.heads import Head
from backend.core.priority import urgent
from backend.models import catalogue
from backend.tasks.circuit import Circuit
from backend.tasks.setting import Intervention, intervention
from backend.tasks.task import Task
from circuitviz.attention_charts import pattern_matrix
from circuitviz.prompt import attention_html
from shell.frame import choices, state, waiting
from shell.frame.take_home import Origin, show_chart
from shell.frame.view import View
from shell.frame.words import unmarked

if TYPE_CHECKING:
    from backend.studies.patterns import Patterns

_NOBODY = ""
_N_STRONGEST = 3


def show_head() -> None:
    """Controls, and the head's attention in one or two models, before and after switches.

    Raises UserError for a circuit that cannot be read, and for a name that cannot be a model's.
    """
    view = state.current()
    if view.circuit:
        choices.sidebar_circuit()
    waiting.wait_for_patterns(view.model, view.prompts, _number(view), None)
    _explore()


def _number(view: View) -> int:
    return (view.example or 0) % view.n


@st.fragment
@urgent()
def _explore() -> None:
    view, now = state.current(), st.session_state
    state.remember(attention_beside=_NOBODY, attention_token=None, attention_switched=True)
    state.remember(attention_from=view.task.reading_order[-1].position)
    number = _number(view)
    try:
        circuit = choices.sidebar_circuit() if view.circuit else None
        controls = st.container(horizontal=True, vertical_alignment="bottom", gap="small")
        first = _patterns(view.model, view, number, None)
        with controls:
            head = _choose_head(first, view.task, circuit)
            token = _choose_token(first, view.task)
            _choose_beside(view.model)
            _choose_prompt(number, view.n)
            switched = _choose_switched(view, circuit)
        st.caption(
            "Attention weights after the softmax, of each token (row) over those before it and "
            "itself; each row sums to 1. Choose a token, or click a row, to colour the text by "
            "where it looks. What a head attends to is what it can read, not what the model uses."
        )
        models = [view.model]
        if now["attention_beside"] not in (_NOBODY, view.model):
            models.append(now["attention_beside"])
        _show_models(models, view, number, head, token, switched)
    except UserError as error:
        st.error(unmarked(error))
    state.write_address()


def _show_models(
    models: Sequence[str],
    view: View,
    number: int,
    head: Head,
    token: int,
    switched: Intervention | None,
) -> None:
    """Two side by side: two models, or in a row for each, before and after switching."""
    states = {"as it is": None} | ({"as on the Circuit page": switched} if switched else {})
    panels = [(model, words, state) for model in models for words, state in states.items()]
    for place, (model, words, state_of_heads) in enumerate(panels):
        if place % 2 == 0:
            columns = st.columns(2, gap="medium")
        with columns[place % 2]:
            st.markdown(f"#### {unmarked(catalogue.label(model))}, {words}")
            found = _patterns(model, view, number, state_of_heads)
            _show_pattern(model, found, head, token, view, words)


def _patterns(model: str, view: View, number: int, switched: Intervention | None) -> Patterns:
    waiting.wait_for_patterns(model, view.prompts, number, switched)
    from backend.studies.patterns import patterns

    with waiting.memory_permitting():
        return patterns(model, view.prompts, number, switched)


def _show_pattern(
    model: str, found: Patterns, head: Head, token: int, view: View, words: str
) -> None:
    n_layers, n_heads, n, _ = found.weights.shape
    if head.layer >= n_layers or head.index >= n_heads:
        st.info(
            f"{unmarked(catalogue.label(model))} has no head {head}: it has {n_layers} layers of "
            f"{n_heads} heads. Choose another head."
        )
        return
    token = min(token, n - 1)
    weights = found.weights[head.layer, head.index]
    row = weights[token]
    st.html(attention_html(found.words, found.roles, row.tolist(), token, view.task))
    strongest = sorted(range(token + 1), key=lambda key: -row[key])[:_N_STRONGEST]
    told = ", ".join(f"“{unmarked(found.words[key])}” ({key}) {row[key]:.2f}" for key in strongest)
    st.caption(f"{head} from “{unmarked(found.words[token])}” ({token}), most to: {told}.")
    key = f"pattern_{model}, {words}_{st.session_state.get('pattern_epoch', 0)}"
    show_chart(
        pattern_matrix(weights, found.words, token),
        Origin("attention", (model,), view.prompts),
        key,
        f"Attention of {head} from every token to every earlier one",
        partial(_take_row, key),
        what=f"pattern {head} {words}",
        is_wide=True,
    )


def _take_row(key: str) -> None:
    """The clicked row is the token that looks; the next click finds a clean chart."""
    now = st.session_state
    rows = now[key].selection.get("row", [])
    if rows:
        now["attention_token"] = int(rows[0]["query"])
        now["pattern_epoch"] = now.get("pattern_epoch", 0) + 1


def _choose_head(found: Patterns, task: Task, circuit: Circuit | None) -> Head:
    n_layers, n_heads = found.weights.shape[:2]
    groups: dict[Head, list[str]] = {}
    for key, member in circuit.members if circuit else ():
        groups.setdefault(member, []).append(key)
    everyone = [Head(layer, index) for layer in range(n_layers) for index in range(n_heads)]
    options = [head for head in groups if head in everyone]
    options += [head for head in everyone if head not in groups]
    now = st.session_state
    if now.get("attention_head") not in options:
        now["attention_head"] = options[0]
        _look_from_its_group(task, groups)
    chosen: Head = st.selectbox(
        "Head",
        options,
        format_func=lambda head: " · ".join([str(head), *groups.get(head, ())]),
        key="attention_head",
        persist_state="session",
        on_change=_look_from_its_group,
        args=(task, groups),
        width=150,
        help="Those of the circuit come first, with their groups.",
    )
    return chosen


def _look_from_its_group(task: Task, groups: dict[Head, list[str]]) -> None:
    now = st.session_state
    of = groups.get(now["attention_head"])
    now["attention_from"] = task.group(of[0]).position if of else task.reading_order[-1].position
    now["attention_token"] = None


def _choose_token(found: Patterns, task: Task) -> int:
    now, n = st.session_state, len(found.words)
    if now["attention_token"] is None or now["attention_token"] >= n:
        now["attention_token"] = found.positions.get(now["attention_from"], n - 1)

    def label(token: int) -> str:
        role = found.roles[token]
        about = f" · {task.token_words(role)}" if role else ""
        return f"{token} {found.words[token]}{about}"

    token: int = st.selectbox(
        "Token that looks",
        range(n),
        format_func=label,
        key="attention_token",
        persist_state="session",
        width=270,
    )
    return token


def _choose_beside(model: str) -> None:
    names = [name for name in choices.model_names([st.session_state["attention_beside"]]) if name]
    st.selectbox(
        "Beside it",
        [_NOBODY, *(name for name in names if name != model)],
        format_func=lambda name: catalogue.label(name) if name else "no other model",
        key="attention_beside",
        persist_state="session",
        accept_new_options=True,
        width=210,
        help="Another model on the same prompt. You can also type a folder or a hub name.",
    )


def _choose_prompt(number: int, n: int) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small", width="content"):
        st.button(
            "◀", key="attention_back", on_click=_go, args=((number - 1) % n,), help="Previous"
        )
        st.markdown(f"Example {number + 1} of {n}", width="content")
        st.button("▶", key="attention_on", on_click=_go, args=((number + 1) % n,), help="Next")


def _go(number: int) -> None:
    st.session_state["example"] = number


def _choose_switched(view: View, circuit: Circuit | None) -> Intervention | None:
    """What the Circuit page does, if something is switched there and it is to be seen."""
    if not circuit or not (view.off or view.switched):
        return None
    if not st.toggle(
        "After switching",
        key="attention_switched",
        persist_state="session",
        help="Beside the untouched model, the same head with the switches of the Circuit page: "
        "what runs and what heads that are off give are as chosen there.",
    ):
        return None
    return intervention(
        circuit,
        view.reading,
        view.mode,
        view.off,
        view.switched,
        view.source,
        view.desideratum,
    )
