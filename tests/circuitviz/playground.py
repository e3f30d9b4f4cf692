"""A page with nothing but the circuit picture, for the browser tests and for looking at it."""

from __future__ import annotations

import sys
from pathlib import Path

import streamlit as st

sys.path.insert(0, str(Path(__file__).parents[2]))

from circuitviz.component import circuit_component
from circuitviz.graph import circuit_graph, outside_heads
from circuitviz.layout import circuit_layout
from circuitviz.picture import circuit_picture
from tests.circuitviz.samples import WORDS, sample

st.set_page_config(layout="wide")
state = st.session_state
for name, start in {"off": frozenset(), "switched": frozenset(), "served": 0, "epoch": 0}.items():
    state.setdefault(name, start)

query = st.query_params
circuit, shape, scores, targets = sample(query.get("circuit", "tiny"))
extra = outside_heads(circuit, shape) if "all" in query else ()
if st.button("reset"):
    state.off, state.switched, state.epoch = frozenset(), frozenset(), state.epoch + 1


@st.fragment
def picture() -> None:
    graph = circuit_graph(
        circuit, shape, scores, attention_targets=targets, extra=extra, added=state.switched
    )
    message = circuit_component(
        circuit_picture(graph, circuit_layout(graph, shape, grid="all" in query), WORDS),
        off=state.off,
        switched=state.switched,
        served_sequence=state.served,
        epoch=state.epoch,
        key="circuit",
        height=query.get("height", "640px"),
    )
    if message and (news := message.news(state.served, state.epoch)):
        state.off, state.switched, state.served = news[-1].off, news[-1].switched, news[-1].sequence
        st.rerun(scope="fragment")
    off = " ".join(f"{group}:{head}" for group, head in sorted(state.off, key=str))
    st.markdown(f"off: {off or 'none'}; switched: {len(state.switched)}; served: {state.served}")


picture()
