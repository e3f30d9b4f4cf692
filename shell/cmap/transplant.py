"""The CMAP page's pieces: which pair, what is transplanted, and what came of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import wait
from dataclasses import asdict
from functools import partial
from math import isnan

import streamlit as st

from backend.core.components import Component
from backend.core.heads import Head, Site
from backend.core.metrics import Metric
from backend.core.priority import unhurried
from backend.core.serialize import to_json
from backend.core.statistics import clear_among
from backend.methods.cmap import Cmap, CmapRequest, HeadMap, SetRequest, Transplanted
from backend.methods.requests import METRICS
from backend.models import catalogue
from backend.tasks.task import Task
from circuitviz.model_charts import effect, head_chart, transplant_chart
from circuitviz.palette import colours
from circuitviz.tables import figures_table, signed
from shell.frame import fitting, state, studies, waiting
from shell.frame.choices import sizes
from shell.frame.studies import Study
from shell.frame.take_home import File, figures_files, origin_of, show_chart, show_control
from shell.frame.words import MEASURES, unmarked

HELD_FIXED = {
    Component.output: "What each chosen head gives at its token is the source’s, on the same "
    "prompt; everything else, and all that follows, is computed by the target.",
    Component.q: "Each chosen head asks with the source’s query at its token. Its keys and "
    "values, its outputs at other tokens, and all other heads stay the target’s own.",
    Component.k: "Each chosen head is asked with the source’s keys of all tokens that it sees. Its "
    "query and values, its outputs at other tokens, and all other heads stay the target’s own.",
    Component.v: "Each chosen head reads the source’s values of all tokens that it sees. Its query "
    "and keys, its outputs at other tokens, and all other heads stay the target’s own.",
}
YOUR_SET = "your set"
_OF_MEANS = "Student’s for change and gap, Fieller’s for recovery"
_INTERVALS = {
    Metric.accuracy: "Wilson’s for accuracies, Tango’s for change and gap, the score interval of a "
    "ratio for recovery",
    Metric.probability: f"Wilson’s with the variance seen for probabilities, {_OF_MEANS}",
    Metric.logit_difference: f"Student’s for logit differences, {_OF_MEANS}",
}
_STUDENT = "Student’s t test"
_TEST = {
    Metric.accuracy: "McNemar’s exact test",
    Metric.probability: _STUDENT,
    Metric.logit_difference: _STUDENT,
}
_A_MOMENT_S = 0.5


def choose_model(label: str, key: str, names: list[str], explanation: str) -> None:
    """A bundled model, a folder or a hub name."""
    st.selectbox(
        label,
        names,
        format_func=catalogue.label,
        key=key,
        persist_state="session",
        accept_new_options=True,
        width=210,
        help=f"{explanation} You can also type a folder or a hub name such as `owner/name`.",
    )


def swap() -> None:
    """Source and target change places."""
    now = st.session_state
    now["source"], now["target"] = now["target"], now["source"]


def choose_part() -> None:
    """What of a head goes from source to target."""
    st.segmented_control(
        "What is transplanted",
        list(Component),
        format_func=lambda part: part.value.capitalize(),
        key="part",
        required=True,
        persist_state="session",
        help="The head output is the paper’s main result; queries, keys and values say through "
        "which of its inputs a head got better. Keys and values are those of all tokens that a "
        "head sees, its own included, which the authors’ code leaves as it is.",
    )


def misfit(request: CmapRequest) -> str | None:
    """Why this cannot be run, as far as the files of the models tell; None if it can."""
    return fitting.pair_misfit(request.source, request.target, request.part) or (
        fitting.circuit_misfit(request.circuit, [request.target])
    )


def invite(request: CmapRequest) -> None:
    """What Run would do."""
    st.info(
        f"Press Run to put heads of {unmarked(catalogue.label(request.source))} into "
        f"{unmarked(catalogue.label(request.target))}: each group of the circuit "
        f"“{unmarked(request.circuit.name)}” "
        f"({sizes(request.circuit)}), all of them, and then every head of the model on its "
        f"own, on {request.prompts}. Recovery = (patched − target) / (source − target), in "
        f"{METRICS[request.metric]}."
    )


def show(study: Study[CmapRequest]) -> None:
    """Bars and a table of whole groups and of the ticked set, and maps of single heads."""
    groups, *maps = study.job.parts
    request = study.request
    left, right = st.columns([1.15, 1], gap="medium")
    with right:
        ticked = _tick(request)
        _show_maps(study, maps)
    with left:
        sets = dict(groups.sets)
        with st.container():  # a place of its own, as in `waiting.follow`
            if ticked:
                sets |= _ticked(request, ticked)
        _show_sets(request, groups, sets, lambda: _everything(request, groups, sets, maps))


def _plain(name: str) -> str:
    return unmarked(catalogue.label(name))


def _show_sets(
    request: CmapRequest,
    groups: Cmap,
    sets: dict[str, Transplanted],
    everything: Callable[[], File],
) -> None:
    source, target = map(_plain, (request.source, request.target))
    measure = METRICS[request.metric]
    st.markdown(f"#### {source} → {target}: {request.part.value}")
    with st.container(key="transplanted_sets"):
        show_chart(
            transplant_chart(
                sets,
                {"source": groups.source_accuracy, "target": groups.target_accuracy},
                colours(request.prompts.task),
                measure,
            ),
            origin_of("cmap", request),
            "sets",
            f"The {measure} of the target with each set of heads out of the source",
        )
    headings = ("Transplanted", MEASURES[request.metric], "Change", "Recovery")
    rows = [
        (
            f"{name}\n{outcome.n_sites} heads",
            outcome.accuracy,
            outcome.change,
            outcome.recovery,
        )
        for name, outcome in sets.items()
    ]
    st.html(figures_table(headings, rows))
    origin = origin_of("cmap", request)
    show_control(
        "transplanted",
        lambda: [*figures_files(headings, rows, origin, "transplanted"), everything()],
    )
    gap = groups.gap
    clear = (
        ""
        if gap.is_clear
        else f" The two models do not differ clearly ({_TEST[request.metric]}): recovery is "
        "undefined."
    )
    st.caption(
        f"Source {source} {groups.source_accuracy.value:.3f}, target {target} "
        f"{groups.target_accuracy.value:.3f}, gap {signed(gap.value)} ({signed(gap.low)} to "
        f"{signed(gap.high)}).{clear} {request.prompts}; circuit "
        f"“{unmarked(request.circuit.name)}”. 95 % intervals: {_INTERVALS[request.metric]}. Each "
        f"holds for its own; {len(sets)} sets are shown at once."
    )


def pinned_key(task: Task) -> str:
    """What the session calls the single heads that are chosen for a task."""
    return f"pinned_{task.name}"


def _tick(request: CmapRequest) -> frozenset[Site]:
    """The set of heads that the user has ticked and pinned."""
    circuit, task = request.circuit, request.prompts.task
    st.markdown("#### Your set")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        groups = st.pills(
            "Whole groups",
            [group.key for group in circuit.task.reading_order],
            selection_mode="multi",
            key="ticked_groups",
            persist_state="session",
        )
        key = pinned_key(task)
        state.remember(**{key: []})
        pinned: list[Site] = st.session_state[key]
        options = sorted({*circuit.sites, *pinned}, key=partial(_in_reading_order, task))
        st.multiselect(
            "Single heads",
            options,
            format_func=lambda site: f"{site.head} {task.position(site.position).words}",
            key=key,
            persist_state="session",
            placeholder="Choose heads, or click cells below",
        )
    return circuit.sites_of(groups) | frozenset(st.session_state[key])


def _in_reading_order(task: Task, site: Site) -> tuple[int, Head]:
    return task.position_names.index(site.position), site.head


def _ticked(request: CmapRequest, sites: frozenset[Site]) -> dict[str, Transplanted]:
    asked = SetRequest(
        request.source, request.target, sites, request.part, request.prompts, request.metric
    )
    running = studies.job_of(asked)
    with unhurried():
        wait([running.future], timeout=_A_MOMENT_S)
    waiting.follow(running)
    return {YOUR_SET: running.parts[0]} if running.parts else {}


def _show_maps(study: Study[CmapRequest], maps: list[HeadMap]) -> None:
    st.markdown("#### Head by head")
    if not maps:
        st.caption(
            "Not part of this run: press Run to have it."
            if study.job.future.done()
            else "Every head on its own comes next."
        )
        return
    request = study.request
    measure = METRICS[request.metric]
    outcomes = [outcome for found in maps for row in _rows(found) for outcome in row]
    largest = max(abs(effect(outcome).value) for outcome in outcomes) or 1.0
    undefined = isnan(outcomes[0].recovery.value)
    clear = iter(clear_among([outcome.change for outcome in outcomes]))
    of_map = [[[next(clear) for _ in row] for row in _rows(found)] for found in maps]
    n_clear = sum(sum(map(sum, rows)) for rows in of_map)
    st.caption(
        (f"Change of the target’s {measure}" if undefined else "Recovery")
        + " when a single head is transplanted: blue is more, red is less, and the strongest "
        f"colour is {largest:.2f}. Click a cell to put the head into your set or to take it out. "
        f"Of {len(outcomes)} heads tried, {n_clear} change it clearly ({_TEST[request.metric]} "
        "of all together, false discovery rate 5 %); the others are pale, without a number. "
        f"{request.prompts}."
    )
    for found, are_clear in zip(maps, of_map, strict=True):
        ((token, rows),) = found.heads.items()
        key = f"map_{token}_{st.session_state.get('map_epoch', 0)}"
        task = request.prompts.task
        pinned = {s.head for s in st.session_state[pinned_key(task)] if s.position == token}
        words = task.position(token).words
        st.markdown(f"**{words[0].upper()}{words[1:]}**")
        show_chart(
            head_chart(rows, are_clear, pinned, largest, measure),
            origin_of("cmap", request),
            key,
            f"Effect of every single head {words}",
            partial(_pin, key, token),
            what=f"map {token}",
        )


def _rows(found: HeadMap) -> tuple[tuple[Transplanted, ...], ...]:
    (rows,) = found.heads.values()
    return rows


def _pin(key: str, position: str) -> None:
    """Put the clicked heads into the set, or take them out; the next click finds a clean chart."""
    cells = st.session_state[key].selection.get("cell", [])
    clicked = {Site(Head(int(cell["layer"]), int(cell["head"])), position) for cell in cells}
    task = st.session_state["task"]
    pinned = set(st.session_state[pinned_key(task)]) ^ clicked
    st.session_state[pinned_key(task)] = sorted(pinned, key=partial(_in_reading_order, task))
    st.session_state["map_epoch"] = st.session_state.get("map_epoch", 0) + 1


def _everything(
    request: CmapRequest, groups: Cmap, sets: dict[str, Transplanted], maps: list[HeadMap]
) -> File:
    found = {
        "measured_on": to_json(request.prompts)
        | {"circuit": request.circuit.name, "metric": request.metric.name},
        "groups": asdict(groups) | {"sets": {name: asdict(each) for name, each in sets.items()}},
        "heads": [asdict(one) for one in maps],
    }
    return File(
        "Everything as JSON",
        origin_of("cmap", request).name("everything", "json"),
        "application/json",
        lambda: json.dumps(to_json(found), indent=2),
    )
