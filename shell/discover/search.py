"""From scores to a faithful circuit: a curve against the number of heads, and one to take."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from backend.core.metrics import Score
from backend.methods.pruning import MOST_CANDIDATES, Growth, candidates
from backend.methods.requests import METRICS, TOKENS
from backend.methods.search import (
    DISTANCE,
    Point,
    Search,
    SearchRequest,
    Way,
    caution,
    in_words,
    members_of,
    searched_circuit,
    why_no_circuit,
)
from backend.tasks.circuit import Circuit
from backend.tasks.setting import Setting
from circuitviz.search_charts import GROWN, PRUNED, RANDOM, search_curve
from shell.discover import discovery
from shell.discover.discovery import Progress
from shell.frame import state, studies, waiting
from shell.frame.choices import (
    choose_ablation,
    choose_one,
    choose_tokens,
    say_what_changed,
    say_what_is_not_the_papers,
    sizes,
)
from shell.frame.take_home import frame_files, origin_of, show_chart, show_control

STUDY = "search"
_TAKEN = "circuits_of_searches"
MOST = 500
"""Heads to search among."""
_WHAT = (
    "Sizes that are only guessed may give a circuit that does a part of what the model does. Here "
    "one is **grown** of the heads with the strongest scores, clear or not, then **pruned**: the "
    "head whose loss costs least goes, one after the other. Faithfulness is what the circuit does "
    "alone over what the model does (Prakash et al., circuit evaluation; the search is not the "
    "paper’s)."
)
_GROWTHS = {
    Growth.relative: "Relative score",
    Growth.score: "Score",
    Growth.in_turn: "Groups in turn",
}
_GROWTH_HELP = (
    "The order in which heads are added. **Relative score**: all groups together, by the score "
    "over that of the group’s strongest head. A stage measures what goes through the heads found "
    "before it, so its scores are compared with each other only. **Score**: as it is. **Groups in "
    "turn**: the strongest head of each group, then the second of each, and so on."
)


def show_search(now: Progress) -> None:
    """The controls of a search, and what the latest one found."""
    st.caption(_WHAT)
    if not now.is_complete:
        st.caption("The search goes on from the scores of all stages: run them first.")
        return
    request = _chosen(now)
    if not request.candidates:
        st.info("No head has a negative score: there is nothing to grow a circuit of.")
        return
    study = studies.latest(STUDY, request)
    if study and study.request.model != request.model:
        study = None
    is_there = study is not None and study.request == request and not _has_failed(study)
    st.button(
        f"Search among {len(request.candidates)} heads",
        key="ask_search",
        disabled=is_there,
        on_click=studies.start,
        args=(STUDY, request),
    )
    studies.say_cost_of(request, study)
    if study is None:
        return
    studies.say_when(study)
    say_what_is_not_the_papers(study.request)
    say_what_changed(study.request, request, "Search")
    waiting.follow(study.job)
    if len(study.job.parts) > 1:
        _show_found(now, study.request, study.job.parts[1])


def taken(now: Progress) -> Circuit | None:
    """The circuit that was taken from a search among the heads of this discovery, if one was."""
    return _all_taken().get(_key(now))


def _chosen(now: Progress) -> SearchRequest:
    """What the controls ask for."""
    state.remember(search_most=MOST_CANDIDATES)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        growth = choose_one("Grow by", _GROWTHS, "search_growth", _GROWTH_HELP)
        st.number_input(
            "Heads at most",
            min_value=1,
            max_value=MOST,
            step=10,
            key="search_most",
            persist_state="session",
            width=130,
            help="The first so many in that order are tried. Pruning takes about ten times as many "
            "circuits as there are heads.",
        )
        ablation = choose_ablation("search_ablation")
        tokens = choose_tokens("search_tokens")
    at, plan, stages = st.session_state, now.plan, now.stages[: now.valid]
    heads = candidates(now.task, stages, growth, at["search_most"], plan.criteria.centred)
    return SearchRequest(
        plan.setting.model,
        heads,
        plan.setting.prompts,
        growth,
        plan.score,
        at["metric"],
        ablation,
        tokens,
    )


def _has_failed(study: studies.Study) -> bool:
    """Whether it ended before all of it was there, so that it can be asked for again."""
    return study.job.future.done() and len(study.job.parts) < 2


def _show_found(now: Progress, request: SearchRequest, found: Search) -> None:
    if not found.points:
        st.warning(why_no_circuit(found, None) or "")
        return
    state.remember(search_distance=DISTANCE)
    left, right = st.columns([1, 2.2], gap="medium")
    with left:
        st.number_input(
            "At most so far below the best",
            min_value=0.0,
            max_value=1.0,
            step=0.01,
            format="%.2f",
            key="search_distance",
            persist_state="session",
            help="In faithfulness, where it was searched. Above 1 the whole model is the best: "
            "heads that work against the right answer are in no circuit.",
        )
        point = found.within(st.session_state["search_distance"])
        if point:
            _say(now, request, found, point)
    frame = search_frame(found)
    with right:
        show_chart(
            search_curve(frame, found.points.index(point) if point else None),
            origin_of("discover", request),
            "search_curve",
            "Faithfulness against the number of heads: grown, pruned, and random circuits",
        )
    st.caption(
        f"{METRICS[request.metric].capitalize()} over the model’s, {in_words(found.model)}. Three "
        f"draws of {request.prompts.n} prompts: heads were scored on seed {request.prompts.seed}, "
        f"grown and pruned on seed {request.selection.seed}; what is drawn was measured on seed "
        f"{request.reported.seed}. Bands: 95 % intervals, each for its own; of random circuits, "
        "with as many heads at each token, the lowest and the highest of "
        f"{len(found.random[0].draws)}."
    )
    with st.expander("As a table"):
        table = frame[["way", "heads", "faithfulness", "low", "high", "searched"]]
        st.dataframe(
            table,
            hide_index=True,
            column_config={
                "way": "circuit",
                "faithfulness": st.column_config.NumberColumn(format="%.3f"),
                "low": st.column_config.NumberColumn("from", format="%.3f"),
                "high": st.column_config.NumberColumn("to", format="%.3f"),
                "searched": "where it was searched",
            },
        )
        show_control("search", lambda: frame_files(table, origin_of("discover", request), "search"))


def _say(now: Progress, request: SearchRequest, found: Search, point: Point) -> None:
    """The marked circuit in words, and the button that takes it."""
    st.metric("Heads of the smallest such circuit", point.n_heads)
    circuit = request.circuit_of(members_of(request, found, point))
    said = f"{sizes(circuit)}. Faithfulness **{in_words(point.faithfulness)}** on other prompts, "
    said += f"every other head {TOKENS[request.tokens]}; "
    said += f"{point.selected:.2f} where it was searched; the best there is {found.best:.2f}."
    if beside := found.random_beside(point):
        said += f" Random circuits of {beside.n_heads} heads: {in_words(beside.faithfulness)}."
    st.markdown(said.replace("-", "\N{MINUS SIGN}"))
    if reason := caution(found, point):
        st.warning(reason)
    st.button(
        "Take this circuit",
        key="take_searched",
        type="primary",
        disabled=not point.n_heads,
        on_click=_take,
        args=(now, request, found, point),
        help="It becomes “the circuit of the search” above: save it, open it on the Circuit page, "
        "ask whether it is minimal.",
    )


def _take(now: Progress, request: SearchRequest, found: Search, point: Point) -> None:
    base = discovery.found_circuit(now, "found")
    _all_taken()[_key(now)] = searched_circuit(request, found, point, base)
    st.session_state["which_circuit"] = STUDY


def _key(now: Progress) -> tuple[Setting, Score]:
    """A discovery, whatever of it is kept."""
    return now.plan.setting, now.plan.score


def _all_taken() -> dict[tuple[Setting, Score], Circuit]:
    kept: dict[tuple[Setting, Score], Circuit] = st.session_state.setdefault(_TAKEN, {})
    return kept


def search_frame(found: Search) -> pd.DataFrame:
    """A row per circuit, in the order of the points, then those of random circuits."""
    ways = {Way.grown: GROWN, Way.pruned: PRUNED}
    rows = [
        {
            "way": ways[point.way],
            "heads": point.n_heads,
            "faithfulness": point.faithfulness.value,
            "low": point.faithfulness.low,
            "high": point.faithfulness.high,
            "interval": f"{in_words(point.faithfulness)}, n = {point.faithfulness.n}",
            "searched": f"{point.selected:.3f}",
        }
        for point in found.points
    ]
    rows += [
        {
            "way": RANDOM,
            "heads": each.n_heads,
            "faithfulness": each.faithfulness.value,
            "low": min(each.draws),
            "high": max(each.draws),
            "interval": f"{len(each.draws)} draws, {min(each.draws):.2f} to {max(each.draws):.2f}",
            "searched": "–",
        }
        for each in found.random
    ]
    return pd.DataFrame(rows)
