"""The four stages of discovery on the page: controls, and a card with a heat map for each."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from backend.core.circuit import Group, Head
from backend.methods.results import NO_TEST, Stage
from backend.studies.stages import nothing_to_feed, remark
from circuitviz.score_charts import score_frame, score_map
from shell.discover import discovery
from shell.discover.discovery import Plan, Progress

SCORE = (
    "**Score**: (p_patched − p_clean) / p_clean of the right answer, mean over prompts, when only "
    "this head's path to the receivers comes from the counterfactual prompt. Negative: the answer "
    "needs the path (Prakash et al., circuit discovery)."
)
_MOST_KEPT = 40
_NAMED = 8
_CHART_HEIGHT = 214
_TO = {
    Group.A: "the logits, at the last token",
    Group.B: "the queries of A, at the last token:",
    Group.C: "the values of B, at the query’s label:",
    Group.D: "the values of C, at the previous label:",
}


def show_controls() -> None:
    """How many prompts, and what the heads are ranked by."""
    st.number_input(
        "Prompts for patching",
        min_value=5,
        max_value=discovery.MOST_PROMPTS,
        step=50,
        key="discover_n",
        persist_state="session",
        width=165,
        help="Prompts that the model answers right: the first of this seed. The paper used 300.",
    )
    st.segmented_control(
        "Heads ranked by",
        [discovery.RAW, discovery.CENTRED],
        key="discover_ranking",
        required=True,
        persist_state="session",
        help=f"{SCORE} **Median-centred**: the score less the median of the head's layer, which "
        "takes away what any head of the layer would do.",
    )
    st.number_input(
        "False discovery rate",
        min_value=0.001,
        max_value=NO_TEST,
        step=0.01,
        format="%g",
        key="discover_fdr",
        persist_state="session",
        width=165,
        help="Heads are kept only if they are clear among all that were tried: of those that are, "
        "at most this share may be so by luck (Benjamini–Hochberg, on one-sided t tests over "
        "prompts of what heads are ranked by). At 1, every head with a negative score counts.",
    )


def show_run_all(now: Progress) -> None:
    """The button that runs whatever is missing or stale."""
    label = "Run all four stages"
    if now.is_complete:
        label = "Nothing is left to run" if now.dead_end else "All four stages are done"
    elif now.valid:
        label = f"Run the rest, from {list(Group)[now.valid].name}"
    st.button(
        label,
        type="primary",
        disabled=now.is_running or now.is_complete,
        on_click=discovery.run,
        args=(now, Group.D),
    )


def show_stages(now: Progress) -> None:
    """Four cards in two rows, in the order in which the stages run."""
    groups = list(Group)
    for pair in (groups[:2], groups[2:]):
        for column, group in zip(st.columns(2, gap="medium"), pair, strict=True):
            with column, st.container(border=True, gap="xsmall"):
                _show_stage(now, group)


def _show_stage(now: Progress, group: Group) -> None:
    place = list(Group).index(group)
    title, keep, run = st.columns([3, 2.4, 1.1], gap="small", vertical_alignment="center")
    with title:
        st.markdown(f"##### {group.name} · {group.value}")
    with keep:
        st.slider(
            "Keep at most",
            1,
            _most_kept(now),
            key=f"discover_keep_{group.name}",
            persist_state="session",
            help="The strongest of the heads that are clear. They are this group, and the "
            "receivers of the next stage.",
        )
    with run:
        st.button(
            f"Run {group.name}",
            key=f"discover_run_{group.name}",
            disabled=now.is_running or now.is_complete or place != now.valid,
            on_click=discovery.run,
            args=(now, group),
            help=_why_not(now, place),
        )
    if place >= len(now.stages) or (now.dead_end and place >= now.valid):
        st.caption(_receivers_to_be(now, place))
        with st.container(height=_CHART_HEIGHT, border=False, vertical_alignment="center"):
            st.caption(_why_empty(now), text_alignment="center")
        return
    stage = now.stages[place]
    is_stale = place >= now.valid
    stale = (
        f":orange-badge[Stale: run again from {list(Group)[now.valid].name}] " if is_stale else ""
    )
    st.caption(f"{stale}{_into(group, stage.receivers)} {_kept_words(now, group)}")
    if remarked := remark(group, stage, now.plan.criteria):
        st.caption(f":orange-badge[Note] {remarked}")
    st.altair_chart(
        score_map(
            stage_frame(now.plan, stage, group), faded=is_stale or not _kept(now, stage, group)
        ),
        width="stretch",
        key=f"discover_map_{group.name}",
    )


def stage_frame(plan: Plan, stage: Stage, group: Group) -> pd.DataFrame:
    """A row per head of a stage, for the heat map; scores as they are ranked."""
    criteria = plan.criteria
    scores, errors = stage.ranked(criteria.centred)
    frame = score_frame(scores.tolist(), {*criteria.kept(group, stage)})
    clear = stage.clear(criteria.fdr, criteria.centred)
    return frame.assign(standard_error=errors.flatten(), n=stage.n, clear=clear.flatten().tolist())


def _most_kept(now: Progress) -> int:
    n_heads = now.stages[0].mean.size if now.stages else _MOST_KEPT
    return max(_MOST_KEPT, min(n_heads, 100))


def _why_empty(now: Progress) -> str:
    if now.dead_end:
        return nothing_to_feed(now.dead_end)
    return "On its way …" if now.is_running else "Not run yet."


def _why_not(now: Progress, place: int) -> str | None:
    if now.dead_end and place >= now.valid:
        return nothing_to_feed(now.dead_end)
    if place < now.valid:
        return "Up to date."
    if place > now.valid:
        return f"Run {list(Group)[now.valid].name} first: what it keeps feeds the next."
    return None


def _kept_words(now: Progress, group: Group) -> str:
    stages = dict(zip(Group, now.stages, strict=False))
    kept = _kept(now, stages[group], group)
    words = f"**Kept:** {_names(kept)}."
    if group is Group.A and now.valid > 1:
        of_b = _kept(now, stages[Group.B], Group.B)
        if both := tuple(head for head in kept if head in of_b):
            words += f" In B as well, and counted there: {_names(both)}."
    return words


def _receivers_to_be(now: Progress, place: int) -> str:
    group, before = list(Group)[place], list(Group)[place - 1]
    if place == 0:
        return _into(group, ())
    if place > now.valid:
        return f"**Into** {_TO[group]} whatever {before.name} keeps."
    return _into(group, _kept(now, now.stages[place - 1], before))


def _into(group: Group, receivers: tuple[Head, ...]) -> str:
    if group is Group.A:
        return f"**Into** {_TO[group]}."
    return f"**Into** {_TO[group]} {_names(receivers)}."


def _kept(now: Progress, stage: Stage, group: Group) -> tuple[Head, ...]:
    return now.plan.criteria.kept(group, stage)


def _names(heads: tuple[Head, ...]) -> str:
    shown = ", ".join(map(str, heads[:_NAMED])) or "none"
    return f"{shown} and {len(heads) - _NAMED} more" if len(heads) > _NAMED else shown
