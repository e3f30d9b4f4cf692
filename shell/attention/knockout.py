"""Where a model needs one token's attention to another: curves by the first layer of the cut."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from backend import published
from backend.core.errors import UserError
from backend.core.heads import Head
from backend.core.metrics import Metric
from backend.methods.attention_knockout import (
    MOST_LAYERS,
    AttentionKnockout,
    AttentionKnockoutRequest,
    check_edge,
    edge_words,
)
from backend.methods.requests import METRICS
from backend.models import catalogue
from backend.tasks.attention_edges import RANDOM, AttentionEdge
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.task import Task
from circuitviz.attention_charts import edge_looks, knockout_curves, legend_html
from circuitviz.tables import Cell
from shell.attention.roles import choose_models
from shell.frame import choices, state, studies, waiting
from shell.frame.chance import show_chance, warn_of_chance
from shell.frame.notes import show_notes
from shell.frame.studies import Study
from shell.frame.take_home import Origin, origin_of, show_chart, show_table
from shell.frame.words import unmarked

STUDY = "attention_knockout"
_PAPERS = {
    AttentionEdge("last", "correct_object"): "from_last_to_correct_obj_pos",
    AttentionEdge("last", "query_label"): "from_last_to_query_box_pos",
    AttentionEdge("query_label", "prev_query_label"): "from_query_box_to_prev_query_box",
    AttentionEdge("last", RANDOM): "from_last_to_random_pos",
    AttentionEdge("query_label", RANDOM): "from_query_box_to_random_pos",
}
"""What the authors' file calls an edge."""
_PAPERS_LAYERS = 32


def show_knockout() -> None:
    """What is asked, how far it is, and its curves; raises UserError for what cannot be asked."""
    view = state.current()
    task = view.task
    _start_anew(task)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        models = choose_models()
        edges = _choose_edges(task)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        _show_another_pair(task)
        heads = _choose_heads()
        window = _choose_window()
        if not edges:
            st.warning("No pair of tokens is chosen. Choose at least one to cut.")
            return
        request = AttentionKnockoutRequest(
            models, view.prompts, edges, heads, window or None, view.metric
        )
        studies.show_run(STUDY, request, not models)
    study = studies.latest(STUDY, request)
    studies.say_cost_of(request, study)
    if not study:
        st.info(
            "Press Run to cut the attention of each first token to the second, before the softmax, "
            f"from every layer on, and see what is still answered right on {request.prompts}. A "
            "random earlier token is the control."
        )
        return
    choices.say_what_changed(study.request, request)
    studies.say_when(study)
    waiting.follow(study.job)
    if study.job.parts:
        asked = study.request
        warn_of_chance(asked.models, study.job.parts)
        choices.say_what_is_not_the_papers(asked)
        _show(study)
        show_chance(asked.models, study.job.parts)
        show_notes(asked.models, asked.prompts.task)


def _start_anew(task: Task) -> None:
    """Another task has other tokens."""
    now = st.session_state
    if now.get("knockout_for") != task:
        now["knockout_for"], now["knockout_offered"] = task, [*task.edges]
        now["knockout_edges"], now["knockout_heads"] = [*task.edges], []
    state.remember(knockout_window=0)


def _choose_edges(task: Task) -> tuple[AttentionEdge, ...]:
    chosen: list[AttentionEdge] = st.multiselect(
        "Cut",
        st.session_state["knockout_offered"],
        format_func=lambda edge: edge_words(task, edge),
        key="knockout_edges",
        persist_state="session",
        help="Pairs of tokens: the first may not attend to the second. The paper’s are there at "
        "first; random tokens are controls.",
    )
    return tuple(chosen)


def _show_another_pair(task: Task) -> None:
    with st.popover("Another pair"):
        st.selectbox(
            "This token", task.edge_tokens, format_func=task.token_words, key="knockout_query"
        )
        st.selectbox(
            "may not attend to",
            (*task.edge_tokens, RANDOM),
            index=1,
            format_func=task.token_words,
            key="knockout_key",
        )
        st.button("Add", key="add_edge", on_click=_add, args=(task,))
        if complaint := st.session_state.get("knockout_complaint"):
            st.error(unmarked(complaint))


def _add(task: Task) -> None:
    now = st.session_state
    edge = AttentionEdge(now["knockout_query"], now["knockout_key"])
    try:
        check_edge(task, edge)
    except UserError as error:
        now["knockout_complaint"] = str(error)
        return
    now["knockout_complaint"] = None
    for edges in ("knockout_offered", "knockout_edges"):
        now[edges] = list(dict.fromkeys((*now[edges], edge)))


def _choose_heads() -> frozenset[Head]:
    """Those that are cut, all if there are none; raises UserError for what is no head."""
    groups: dict[str, list[str]] = {}
    if state.current().circuit:
        for key, head in choices.sidebar_circuit().members:
            groups.setdefault(str(head), []).append(key)
    names: list[str] = st.multiselect(
        "Only in these heads",
        list(dict.fromkeys((*groups, *st.session_state["knockout_heads"]))),
        format_func=lambda name: " ".join([*groups.get(name, ()), name]),
        key="knockout_heads",
        persist_state="session",
        accept_new_options=True,
        placeholder="all heads",
        help="None chosen: every head of the layers that are cut. You can type any head, such as "
        "`L3.0`.",
    )
    return frozenset(map(Head.parse, names))


def _choose_window() -> int:
    window: int = st.number_input(
        "Layers cut",
        min_value=0,
        max_value=MOST_LAYERS,
        key="knockout_window",
        persist_state="session",
        width=130,
        help="0: all layers from the first of the cut on, as in the paper. Otherwise so many, "
        "beginning with the first of the cut.",
    )
    return window


def _show(study: Study[AttentionKnockoutRequest]) -> None:
    request = study.request
    task, measure = request.prompts.task, METRICS[request.metric]
    papers = _choose_papers(request)
    looks = {
        edge_words(task, edge): colour for edge, colour in edge_looks(task, request.edges).items()
    }
    st.html(legend_html(looks, "the paper’s Llama-7B" if papers else ""))
    names = [catalogue.label(name) for name in request.models]
    found = [*zip(names, study.job.parts, strict=False)]
    columns = st.columns(min(2, len(names)), gap="medium")
    for number, (name, part) in enumerate(found):
        with columns[number % len(columns)]:
            st.markdown(f"#### {unmarked(name)}")
            show_chart(
                knockout_curves(_frame(request, part, papers), looks, measure, papers),
                Origin("attention", (request.models[number],), request.prompts),
                f"knockout_{number}",
                f"{measure} by the first layer of the cut, a line for each pair of tokens",
                what="knockout",
            )
    _say_what_is_shown(request, papers)
    _show_table(request, found)


def _choose_papers(request: AttentionKnockoutRequest) -> bool:
    """Whether the paper's curves are laid over."""
    if request.prompts.task != ENTITY_TRACKING or request.metric is not Metric.accuracy:
        return False
    return st.toggle(
        "Lay the paper’s Llama-7B over it",
        key="knockout_papers",
        persist_state="session",
        help="Dashed, for the pairs that the paper has. Its model has 32 layers, so both are drawn "
        "by the share of layers below the cut.",
    )


def _frame(
    request: AttentionKnockoutRequest, part: AttentionKnockout, papers: bool
) -> pd.DataFrame:
    task = request.prompts.task
    rows = [
        {
            "edge": edge_words(task, curve.edge),
            "layer": layer,
            "depth": layer / len(curve.by_layer),
            "value": each.value,
            "low": each.low,
            "high": each.high,
            "n": each.n,
            "clear": clear,
            "of": "measured here",
        }
        for curve, are_clear in zip(part.curves, part.clear, strict=True)
        for layer, (each, clear) in enumerate(zip(curve.by_layer, are_clear, strict=True))
    ]
    known = published.attention_knockout() if papers else {}
    rows += [
        {
            "edge": edge_words(task, edge),
            "layer": layer - 1,
            "depth": (layer - 1) / _PAPERS_LAYERS,
            "value": accuracy,
            "of": "the paper",
            "clear": False,
        }
        for edge in request.edges
        for layer, accuracy in known.get(_PAPERS.get(edge, ""), {}).items()
    ]
    return pd.DataFrame(rows)


def _say_what_is_shown(request: AttentionKnockoutRequest, papers: bool) -> None:
    where = (
        "all layers from there on"
        if request.window is None
        else f"{request.window} layers from there on"
    )
    heads = f", only in {', '.join(map(str, sorted(request.heads)))}" if request.heads else ""
    said = (
        f"The score of the first token to the second is −∞ in {where}{heads}. Bands are 95 % "
        "intervals, each for its own; a full point differs clearly from nothing cut, among all of "
        f"its model’s together (false discovery rate 5 %). {request.prompts}."
    )
    if papers:
        said += (
            " Dashed: the paper’s Llama-7B, as published, without the number of prompts; another "
            "model with 32 layers, so only the order along the depth can be compared."
        )
    st.caption(said)


def _show_table(
    request: AttentionKnockoutRequest, found: list[tuple[str, AttentionKnockout]]
) -> None:
    """What is left with each pair cut from the lowest layer on."""
    task = request.prompts.task
    rows: list[tuple[Cell, ...]] = [("nothing", *(part.whole for _, part in found))]
    rows += [
        (edge_words(task, edge), *(part.curves[number].by_layer[0] for _, part in found))
        for number, edge in enumerate(request.edges)
    ]
    where = "from layer 0 on" if request.window is None else "in the lowest window"
    headings = (f"Cut {where}", *(name for name, _ in found))
    show_table(headings, rows, origin_of("attention", request), "knockout table")
