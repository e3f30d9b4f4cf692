"""How far two circuits are the same heads: shares, and the heads drawn where they stand."""

from __future__ import annotations

from math import isnan

import streamlit as st

from backend.methods.compare import GroupOverlap
from backend.models import catalogue
from backend.tasks.circuit import Circuit
from backend.tasks.task import Group
from circuitviz.overlap import overlap_picture
from shell.frame.take_home import Origin, show_chart, show_table
from shell.frame.words import unmarked


def show_overlap(circuit: Circuit) -> None:
    """Choose a second circuit, and see what the two share."""
    others = [name for name in catalogue.circuits_for(circuit.task) if name != circuit.name]
    st.markdown("#### Are two circuits the same heads?")
    if not others:
        st.caption(
            f"“{unmarked(circuit.name)}” is the only circuit so far. Find another one, add "
            "its file in the sidebar, or switch heads off in the Circuit page, and compare the two "
            "here."
        )
        return
    name = st.selectbox(
        f"“{unmarked(circuit.name)}” against",
        others,
        index=None,
        placeholder="Choose a second circuit",
        key="overlap_with",
        persist_state="session",
        width=400,
    )
    if name is None:
        return
    from backend.methods.compare import overlap

    first, second = unmarked(circuit.name), unmarked(name)
    theirs = catalogue.circuit(name)
    theirs.check_task(circuit.task)
    found = overlap(circuit, theirs)
    origin = Origin("compare", (circuit.name, name))
    left, right = st.columns([1, 1.35], gap="medium")
    with left:
        show_table(
            ("Group", "Shared", f"Only {circuit.name}", f"Only {name}", "Precision", "Recall"),
            [_row(group, found[group.key]) for group in circuit.task.reading_order],
            origin,
            "overlap table",
        )
        st.caption(
            f"Precision: share of the heads of “{first}” that are in “{second}” too. Recall: share "
            f"of the heads of “{second}” that are in “{first}” too."
        )
    with right:
        show_chart(
            overlap_picture(circuit, theirs, (circuit.name, name)),
            origin,
            "overlap",
            f"Heads of {circuit.name} and {name}: shared, only in one, only in the other",
        )


def _row(group: Group, found: GroupOverlap) -> tuple[str, ...]:
    return (
        f"{group.key}\n{group.name}",
        str(len(found.shared)),
        str(len(found.only_found)),
        str(len(found.only_expected)),
        _share(found.precision),
        _share(found.recall),
    )


def _share(value: float) -> str:
    return "undefined" if isnan(value) else f"{value:.2f}"
