"""The Paper page's pieces: which model, its published circuit, and its published scores."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from backend import published
from backend.published import Flaw
from backend.tasks.circuit import Circuit
from backend.tasks.entity_tracking import ENTITY_TRACKING
from circuitviz.component import circuit_component
from circuitviz.graph import circuit_graph
from circuitviz.layout import circuit_layout
from circuitviz.picture import circuit_picture
from circuitviz.provenance import scores_of
from circuitviz.score_charts import score_frame, score_map
from shell.frame import state
from shell.frame.choices import sizes
from shell.frame.take_home import Origin, picture_files, show_chart, show_control

_HEIGHT = "clamp(560px, calc(100vh - 272px), 1100px)"
_ASPECT = 1.7
_WORDS = {
    "D": "previous label",
    "C": "query’s label",
    "B": "last token",
    "A": "last token",
}
_CITATION = "Prakash et al., ICLR 2024, [arXiv:2402.14811](https://arxiv.org/abs/2402.14811)"
_SOURCES = (
    f"{published.CITATION}. Nothing that is called the paper’s was measured by this tool; "
    "`cache/published/README.md` has the settings and the known flaws."
)


def choose_model() -> str:
    """One of the models whose circuit is published."""
    state.remember(paper_model=next(iter(published.MODELS)))
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        st.markdown("#### The paper’s results", width="content")
        st.segmented_control(
            "Published model",
            list(published.MODELS),
            format_func=lambda name: published.MODELS[name],
            key="paper_model",
            required=True,
            persist_state="session",
            label_visibility="collapsed",
        )
        st.caption(_CITATION, help=_SOURCES, width="content")
    model: str = st.session_state["paper_model"]
    return model


def show_circuit(model: str) -> None:
    """The published circuit as the graph of the Circuit page, to be looked at only."""
    circuit = published.circuit(model)
    graph = circuit_graph(circuit, published.SHAPE, scores_of(circuit, circuit.members))
    layout = circuit_layout(graph, published.SHAPE, aspect=_ASPECT)
    picture = circuit_picture(graph, layout, _WORDS, switchable=False)
    circuit_component(picture, key="published_circuit", height=_HEIGHT)
    origin = Origin("paper", (model,))
    show_control("published_circuit", lambda: picture_files(picture, origin, "circuit"))
    show_flaws(Flaw.cuts, *_of_goat(model, Flaw.shifted))
    st.caption(
        f"{circuit.name}’s circuit: {len(circuit.members)} heads, {sizes(circuit)}, sized by "
        f"published score (mean over {published.N_PATCHING} prompts). Lines lead to all higher "
        "heads of the next group. To look at only."
    )


def show_scores(model: str) -> None:
    """A heat map for each group, with frames around the heads of the circuit."""
    circuit = published.circuit(model)
    st.caption(
        "Published path-patching scores of all 32 × 32 heads: (p_patched − p_clean) / p_clean of "
        f"the right answer, mean over {published.N_PATCHING} prompts. Red: the answer needs the "
        f"head. Frames: the heads of {circuit.name}’s circuit."
    )
    show_flaws(*_of_goat(model, Flaw.shifted))
    groups = ENTITY_TRACKING.groups
    for pair in (groups[:2], groups[2:]):
        for column, group in zip(st.columns(2, gap="medium"), pair, strict=True):
            with column:
                st.markdown(f"**{group.key} · {group.name}**, at the {_WORDS[group.key]}")
                show_chart(
                    score_map(published_scores(circuit, group.key), named=False),
                    Origin("paper", (model,)),
                    f"published_map_{group.key}",
                    what=f"scores {group.key}",
                )


def published_scores(circuit: Circuit, key: str) -> pd.DataFrame:
    """A row per head of the model with its published score, for the heat map."""
    return score_frame(circuit.provenance["scores"][key], set(circuit.heads(key)))


def show_flaws(*flaws: Flaw) -> None:
    """What is known to be wrong with the figures shown."""
    with st.container(gap="xxsmall"):
        for flaw in flaws:
            st.markdown(f":orange-badge[Known flaw] :small[{flaw.value}]")


def _of_goat(model: str, *flaws: Flaw) -> tuple[Flaw, ...]:
    return flaws if model == "goat-7b" else ()
