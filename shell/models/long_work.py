"""Where long work runs, for all who use the dashboard: looked at and chosen on the Models page."""

from __future__ import annotations

import os
from enum import Enum

import streamlit as st

from backend.cluster.where import MOST, NO_RAY, VARIABLE, Cluster, cluster, is_ray_installed
from backend.core.errors import UserError
from backend.studies import studies
from shell.frame.words import unmarked


class Place(Enum):
    """Where it may run, in the words of the page."""

    here = "This process"
    several = "Several processes here"
    cluster = "A Ray cluster"


def choose_where() -> None:
    """What holds now, and other places to choose; each choice holds at once."""
    if not is_ray_installed():
        st.caption(f"With Ray, long work may run in several processes or machines. {NO_RAY}")
        return
    _take_over(studies.chosen_cluster())
    st.selectbox(
        "Where long work runs",
        list(Place),
        format_func=_words,
        key="work_place",
        on_change=_apply,
        help="What is listed under Jobs may be done by several processes, each with the models "
        "that it needs. Clicks are answered by this process, but for models that only the cluster "
        "has.",
    )
    place: Place = st.session_state["work_place"]
    if place is Place.several:
        st.number_input("How many", 1, MOST, key="work_n", on_change=_apply)
    elif place is Place.cluster:
        st.text_input(
            "Its address",
            key="work_address",
            on_change=_apply,
            placeholder="auto, HOST:PORT or ray://HOST:PORT",
            help="With auto or HOST:PORT this computer has to be one of its machines; with "
            "ray://HOST:PORT it is asked from outside, as through a tunnel: see “More than one "
            "machine” in the README.",
        )
        if complaint := st.session_state["work_complaint"]:
            st.error(unmarked(complaint))
    st.caption(f"For all who use this dashboard. {unmarked(_now())}")


def _take_over(chosen: Cluster | None) -> None:
    """Show what was chosen, be it in another tab, unless it is shown."""
    at = st.session_state
    if "work_place" in at and at.get("work_shown") == chosen:
        return
    at["work_shown"] = chosen
    at["work_n"], at["work_address"], at["work_complaint"] = 2, "", ""
    if chosen is None:
        at["work_place"] = Place.here
    elif chosen.n_local:
        at["work_place"], at["work_n"] = Place.several, chosen.n_local
    else:
        at["work_place"], at["work_address"] = Place.cluster, str(chosen)


def _apply() -> None:
    """Let long work run where it was just said; an address that is none changes nothing."""
    at = st.session_state
    at["work_complaint"] = ""
    try:
        match at["work_place"]:
            case Place.here:
                studies.work_on(None)
            case Place.several:
                studies.work_on(cluster(f"local:{at.setdefault('work_n', 2)}"))
            case Place.cluster if text := at.get("work_address", "").strip():
                studies.work_on(cluster(text))
    except UserError as error:
        at["work_complaint"] = str(error)


def _words(place: Place) -> str:
    said = os.environ.get(VARIABLE)
    return f"As {VARIABLE} says" if said and place is Place.here else place.value


def _now() -> str:
    """What holds, unless it is what holds by default."""
    try:
        where = studies.where_work_is()
    except UserError as error:
        return str(error)
    if not where:
        return ""
    if not studies.chosen_cluster():
        return f"The environment of the dashboard says {where}."
    return f"Studies and stages that start now run on {where}."
