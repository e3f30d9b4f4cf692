"""Questions to a circuit, each a job: is it minimal, is it complete, how strong are its edges?

And whether another one, searched among the same heads, is more faithful.
"""

from __future__ import annotations

from dataclasses import replace
from math import isnan
from typing import Any

import pandas as pd
import streamlit as st

from backend.core.metrics import Score
from backend.core.serialize import to_json
from backend.methods.completeness import N_RANDOM_SETS, Completeness, CompletenessRequest, Removal
from backend.methods.edges import Edges, EdgesRequest
from backend.methods.minimality import LEAST_GAIN, REMOVED_SHARE, Minimality, MinimalityRequest
from backend.tasks.circuit import Circuit
from backend.tasks.prompts import Prompts
from backend.tasks.setting import Setting
from backend.tasks.task import Task
from circuitviz.score_charts import OUTSIDE, completeness_scatter, contribution_bars
from shell.discover.discovery import Progress
from shell.discover.search import show_search
from shell.frame import studies, waiting
from shell.frame.choices import choose_ablation, say_what_is_not_the_papers
from shell.frame.take_home import Origin, frame_files, origin_of, show_chart, show_control
from shell.frame.words import unmarked

Asked = MinimalityRequest | CompletenessRequest | EdgesRequest
_MINIMALITY = (
    f"For each head v, K is up to {100 * REMOVED_SHARE:.0f} % of its group: the heads most "
    "redundant with it. v adds "
    "F(circuit − K) / F(circuit − K − v) − 1, where F is accuracy with all else knocked out "
    "(Prakash et al., circuit minimality)."
)
_COMPLETENESS = (
    "The circuit and the whole model, each without the same heads K: whole groups, and "
    f"{N_RANDOM_SETS} random "
    "sets with every head in or out at even odds. On the diagonal they lose alike; the bars are "
    "95 % Wilson intervals, each for its own (Prakash et al., circuit completeness)."
)
_EDGES = (
    "Path patching from each single head to each single head that its group writes into, or to the "
    "logits: the {} of the right answer, by the score chosen at the top of the page."
)
_WEIGHT = {
    Score.probability: "(p_patched − p_clean) / p_clean",
    Score.logit_difference: "change of the logit difference (not as in the paper)",
}


def smaller(circuit: Circuit) -> Circuit:
    """The circuit, or what was kept of it as minimal."""
    kept: Circuit = _smaller().get(frozenset(circuit.members), circuit)
    return kept


def with_edges(circuit: Circuit, setting: Setting) -> Circuit:
    """The circuit, with the weights of its edges in the provenance if they were measured."""
    study = _asked("edges", _edges_of(circuit, setting))
    if not study or not study.job.parts:
        return circuit
    (found,) = study.job.parts
    return replace(
        circuit,
        provenance={
            **circuit.provenance,
            "edges": {"n_prompts": setting.prompts.n} | to_json(found),
        },
    )


def show_examination(whole: Circuit, circuit: Circuit, now: Progress) -> None:
    """Four tabs; `whole` is the circuit before heads were dropped."""
    setting = now.plan.setting
    searched, minimal, complete, edges = st.tabs(
        ["Circuit search", "Minimality", "Completeness", "Edges"],
        default=st.session_state.get("examined"),
    )
    with searched:
        show_search(now)
    with minimal:
        _show_minimality(whole, circuit, setting)
    with complete:
        request = CompletenessRequest(
            *_asked_of(circuit, setting), ablation=choose_ablation("completeness_ablation")
        )
        found = _ask("completeness", request, _COMPLETENESS)
        if found:
            _show_completeness(found, circuit.task, origin_of("discover", request))
    with edges:
        asked = _edges_of(circuit, setting)
        measured = _ask("edges", asked, _EDGES.format(_WEIGHT[asked.score]))
        if measured:
            _show_edges(measured)


def _show_minimality(whole: Circuit, circuit: Circuit, setting: Setting) -> None:
    if circuit != whole:
        with st.container(horizontal=True, vertical_alignment="center"):
            dropped = len(whole.members) - len(circuit.members)
            st.markdown(f"{dropped} of {len(whole.members)} heads were dropped as not minimal.")
            st.button("Take them back", on_click=_take_back, args=(whole,))
    request = MinimalityRequest(
        *_asked_of(circuit, setting), ablation=choose_ablation("minimality_ablation")
    )
    found = _ask("minimality", request, _MINIMALITY)
    if not found:
        return
    st.session_state.setdefault("least_gain", 100 * LEAST_GAIN)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.number_input(
            "A minimal head adds at least (%)",
            min_value=-5.0,
            max_value=50.0,
            step=0.5,
            key="least_gain",
            persist_state="session",
            width=260,
        )
        least = st.session_state["least_gain"] / 100
        kept = sum(each.adds(least) for each in found.heads)
        st.button(
            f"Keep only the {kept} minimal heads",
            disabled=kept in (0, len(found.heads)),
            on_click=_keep_minimal,
            args=(whole, circuit, found, least),
        )
    frame = contribution_frame(found, least, circuit.task)
    origin = origin_of("discover", request)
    show_chart(contribution_bars(frame, least), origin, "contributions", is_wide=True)
    st.caption(_what_is_clear(found))
    with st.expander("As a table"):
        table = frame[
            ["name", "removed", "before", "after", "gain", "low", "high", "minimal", "clear"]
        ]
        st.dataframe(
            table,
            hide_index=True,
            column_config={
                "name": "head v",
                "removed": "K",
                "before": st.column_config.NumberColumn("accuracy without K", format="%.3f"),
                "after": st.column_config.NumberColumn("without K and v", format="%.3f"),
                "gain": st.column_config.NumberColumn("v adds", format="percent"),
                "low": st.column_config.NumberColumn("95 % from", format="percent"),
                "high": st.column_config.NumberColumn("to", format="percent"),
            },
        )
        show_control("minimality", lambda: frame_files(table, origin, "minimality"))


def _what_is_clear(found: Minimality) -> str:
    """How sure the bars are, tested together, and which heads have none."""
    clear = f"{len(found.clear)} of {len(found.heads)} heads"
    said = (
        "The dashed line looks at values, as the paper does. Tested together (McNemar’s exact "
        f"test, false discovery rate 5 %), {clear} change the accuracy clearly on "
        f"{found.accuracy.n} prompts."
    )
    undefined = [f"{e.group} {e.head}" for e in found.heads if isnan(e.gain.value)]
    if undefined:
        said += (
            f" No bar for {', '.join(undefined)}: with v gone, fewer than 6 prompts are right, too "
            "few to divide by."
        )
    return said


def _show_completeness(found: Completeness, task: Task, origin: Origin) -> None:
    left, right = st.columns([1.5, 1], gap="medium", vertical_alignment="center")
    with left:
        show_chart(completeness_scatter(removal_frame(found, task)), origin, "completeness")
    with right:
        mean = found.mean_incompleteness
        if not isnan(mean.value):
            st.metric(
                "Mean incompleteness",
                f"{mean.value:.3f}",
                help="|accuracy of the circuit − accuracy of the model|, averaged over the random "
                "sets; the interval is over these sets, on these prompts. 0 is complete; "
                "differences by chance count, so few prompts keep it above 0.",
            )
            st.caption(f"95 %: {mean.low:.3f} to {mean.high:.3f}, n = {mean.n} random sets")
        for removal in found.groups:
            gap = removal.difference
            words = f"{gap.value:+.3f}, 95 %: {gap.low:+.3f} to {gap.high:+.3f}"
            signed = words.replace("-", "\N{MINUS SIGN}")
            st.markdown(f"Without all of **{unmarked(removal.name)}**: {signed}.")
        st.caption(
            f"Circuit − model, on {found.groups[0].difference.n} prompts, with Tango’s intervals; "
            f"with {len(found.groups)} of them, one misses the true value more often than 5 %."
        )


def _show_edges(found: Edges) -> None:
    clear = found.clear
    strongest = sorted(clear, key=lambda edge: edge.weight.value)[:8]
    st.markdown(
        f"{len(found.edges)} edges are measured, and are saved with the circuit; {len(clear)} of "
        "them are clear (Student’s t, false discovery rate 5 %)."
    )
    if not strongest:
        return
    st.caption(
        "Strongest: "
        + "; ".join(
            f"{edge.sender} → {edge.receiver or 'logits'} {edge.weight.value:+.3f}".replace(
                "-", "\N{MINUS SIGN}"
            )
            for edge in strongest
        )
        + ". The Circuit page draws those that are clear."
    )


def contribution_frame(found: Minimality, least: float, task: Task) -> pd.DataFrame:
    """A row per head, in the circuit's order."""
    return pd.DataFrame(
        {
            "name": [f"{each.group} {each.head}" for each in found.heads],
            "removed": [", ".join(map(str, each.removed)) or "none" for each in found.heads],
            "before": [each.before.value for each in found.heads],
            "after": [each.after.value for each in found.heads],
            "gain": [each.gain.value for each in found.heads],
            "low": [each.gain.low for each in found.heads],
            "high": [each.gain.high for each in found.heads],
            "minimal": [each.adds(least) for each in found.heads],
            "clear": [each in found.clear for each in found.heads],
            "colour": [task.group(each.group).colour for each in found.heads],
        }
    )


def removal_frame(found: Completeness, task: Task) -> pd.DataFrame:
    """A row per set of removed heads; random ones come first, so that groups lie above them."""

    def row(removal: Removal, kind: str, colour: str) -> dict[str, Any]:
        shown = {"name": removal.name, "n_removed": removal.n_removed}
        for what, figure in (("circuit", removal.circuit), ("model", removal.model)):
            shown |= {what: figure.value, f"{what}_low": figure.low, f"{what}_high": figure.high}
        return shown | {"kind": kind, "colour": colour}

    rows = [row(removal, "random", OUTSIDE) for removal in found.random]
    rows += [row(each, each.name, task.group(each.name).colour) for each in found.groups]
    return pd.DataFrame(rows)


def _ask(name: str, request: Asked, explanation: str) -> Any:
    """A button that asks, how far the answer is, and the answer once it is there."""
    study = _asked(name, request)
    if not study or (study.job.future.done() and not study.job.parts):
        st.button(
            f"Measure {name} of {len(request.circuit.nodes)} heads",
            key=f"ask_{name}",
            on_click=studies.start,
            args=(name, request),
            help=explanation,
        )
        studies.say_cost_of(request, None)
    else:
        st.caption(explanation)
    if not study:
        return None
    studies.say_when(study)
    say_what_is_not_the_papers(request)
    waiting.follow(study.job)
    return study.job.parts[0] if study.job.parts else None


def _asked(name: str, request: Asked) -> studies.Study | None:
    study = studies.latest(name, request)
    return study if study and study.request == request else None


def _edges_of(circuit: Circuit, setting: Setting) -> EdgesRequest:
    return EdgesRequest(*_asked_of(circuit, setting), st.session_state["discover_score"])


def _asked_of(circuit: Circuit, setting: Setting) -> tuple[str, Circuit, Prompts]:
    return setting.model, circuit, setting.prompts


def _keep_minimal(whole: Circuit, circuit: Circuit, found: Minimality, least: float) -> None:
    from backend.methods.minimality import minimal_circuit

    _smaller()[_key(whole)] = minimal_circuit(circuit, found, least)


def _take_back(whole: Circuit) -> None:
    _smaller().pop(_key(whole), None)


def _key(circuit: Circuit) -> frozenset:
    return frozenset(circuit.members)


def _smaller() -> dict[frozenset, Circuit]:
    kept: dict[frozenset, Circuit] = st.session_state.setdefault("smaller_circuits", {})
    return kept
