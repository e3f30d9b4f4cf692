"""The session's state: read from the address once, written back to it on every run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from backend.core.heads import ModelShape
from backend.tasks.circuit import Circuit
from backend.tasks.registry import DEFAULT_TASK
from backend.tasks.task import Task
from circuitviz.graph import outside_heads
from shell.frame.history import History, Switches
from shell.frame.position import from_query as read_position
from shell.frame.position import to_query as position_query
from shell.frame.view import View, from_query, to_query
from shell.frame.words import unmarked

_SHARED = (
    "task",
    "model",
    "circuit",
    "n",
    "seed",
    "options",
    "reading",
    "mode",
    "metric",
    "source",
    "desideratum",
    "outside",
    "contributions",
    "example",
    "presenting",
)


def restore() -> None:
    """On the first run of a session, take over what the address says."""
    if "history" in st.session_state:
        return
    query = st.query_params.to_dict()
    view, complaints = from_query(query)
    for name in _SHARED:
        st.session_state[name] = getattr(view, name)
    st.session_state["history"] = History(view.switches)
    position, more = read_position(query)
    st.session_state["position"] = position
    st.session_state["complaints"] = complaints + more
    st.session_state["circuit_for"] = {}
    st.session_state["served"] = 0
    st.session_state["epoch"] = 0


def current() -> View:
    """What is to be shown now."""
    now: Switches = st.session_state["history"].now
    values = {name: st.session_state[name] for name in _SHARED}
    return View(**values, off=now.off, switched=now.switched)


def remember(**defaults: Any) -> None:
    """Give widgets their values for the first time; later ones are the user's."""
    for name, value in defaults.items():
        st.session_state.setdefault(name, value)


def choose_task(task: Task) -> None:
    """Another task has other options and other circuits; its own choice of them comes back."""
    now = st.session_state
    now["task"], now["options"], now["desideratum"] = task, (), ""
    now["circuit"] = now["circuit_for"].get(task.family, "")
    overrule(History())


def renew_task(known: Mapping[str, Task]) -> None:
    """The task as its file is now; the default one where the file is gone."""
    chosen: Task = st.session_state["task"]
    if chosen.name not in known:
        choose_task(DEFAULT_TASK)
    elif known[chosen.name] != chosen:
        choose_task(known[chosen.name])


def choose_circuit(known: Sequence[str]) -> None:
    """Where none is chosen yet, the first of those known; remembered for its task."""
    now = st.session_state
    if not now["circuit"] and known:
        now["circuit"] = known[0]
    now["circuit_for"][now["task"].family] = now["circuit"]


def address() -> dict[str, str]:
    """What is shown, and where in a talk that is, as query parameters."""
    return to_query(current()) | position_query(st.session_state["position"])


def take(view: View) -> None:
    """Show another view; how it is presented stays."""
    now = st.session_state
    for name in _SHARED:
        if name != "presenting":
            now[name] = getattr(view, name)
    now["circuit_for"][view.task.family] = view.circuit
    overrule(History(view.switches))


def write_address() -> None:
    """Make the address say what is shown, so that it can be shared."""
    st.query_params.from_dict(address())


def click(switches: Switches) -> None:
    """A click in the picture: one step that can be undone."""
    history: History = st.session_state["history"]
    changed = (switches.off ^ history.now.off) | (switches.switched ^ history.now.switched)
    if len(changed) == 1:
        st.session_state["last_clicked"] = next(iter(changed))
    st.session_state["history"] = history.set(switches)


def overrule(history: History) -> None:
    """Switches that Python decided on; clicks still on their way are void."""
    st.session_state["history"] = history
    st.session_state["epoch"] += 1


def keep_only(circuit: Circuit, shape: ModelShape) -> None:
    """Forget switches of heads that this circuit or this model does not have, and say so."""
    history: History = st.session_state["history"]
    outside = set(outside_heads(circuit, shape))
    off, switched = history.now.off & set(circuit.members), history.now.switched & outside
    lost = (history.now.off - off) | (history.now.switched - switched)
    if lost:
        overrule(History(Switches(frozenset(off), frozenset(switched))))
        names = ", ".join(sorted(f"{head} in {key}" for key, head in lost))
        st.session_state["complaints"].append(f"{names} (not in this circuit or model)")


def show_complaints() -> None:
    """Say once what of the address could not be used."""
    if complaints := st.session_state["complaints"]:
        st.warning(
            f"This part of the address could not be used: {unmarked('; '.join(complaints))}. "
            "Everything else is shown as asked. Choose in the sidebar and click heads instead."
        )
        st.session_state["complaints"] = []
