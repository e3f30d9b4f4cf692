"""The stages of discovery on the page: controls, and a card with a heat map for each."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from backend.core.heads import Head
from backend.core.metrics import Score
from backend.methods.stage import NO_TEST, Stage
from backend.methods.stages import nothing_to_feed, receivers_of, remark
from backend.tasks.task import Group, Task
from circuitviz.score_charts import score_frame, score_map
from shell.discover import discovery
from shell.discover.discovery import Plan, Progress
from shell.frame.take_home import Origin, show_chart

SCORE = (
    "**Score**: (p_patched − p_clean) / p_clean of the right answer, mean over prompts, when only "
    "this head's path to the receivers comes from the counterfactual prompt. Negative: the answer "
    "needs the path (Prakash et al., circuit discovery). Or, not the paper’s, the change of the "
    "logit difference, in logits: of the right answer’s logit less the mean of those it competes "
    "with (Wang et al., 2023), which does not saturate where the model is sure."
)
_SCORES = {Score.probability: "Change of P(right)", Score.logit_difference: "Logit difference"}
MOST_KEPT = 1000
_NAMED = 8
_CHART_HEIGHT = 214


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
    st.selectbox(
        "Score",
        list(_SCORES),
        format_func=_SCORES.__getitem__,
        key="discover_score",
        persist_state="session",
        width=175,
        help=SCORE,
    )
    st.segmented_control(
        "Heads ranked by",
        [discovery.RAW, discovery.CENTRED],
        key="discover_ranking",
        required=True,
        persist_state="session",
        help="**Median-centred**: the score less the median of the head's layer, which "
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
    n = len(now.task.groups)
    label = f"Run all {_in_words(n)} stages"
    if now.is_complete:
        label = (
            f"All {_in_words(n)} stages are done" if now.valid == n else "Nothing is left to run"
        )
    elif now.valid:
        label = f"Run the rest, from {now.following}"
    st.button(
        label,
        type="primary",
        disabled=now.is_running or now.is_complete,
        on_click=discovery.run,
        args=(now, now.task.keys[-1]),
    )


def show_stages(now: Progress) -> None:
    """Cards in rows of two, in the order in which the stages run."""
    groups = now.task.groups
    for start in range(0, len(groups), 2):
        for column, group in zip(
            st.columns(2, gap="medium"), groups[start : start + 2], strict=False
        ):
            with column, st.container(border=True, gap="xsmall"):
                _show_stage(now, group)


def _show_stage(now: Progress, group: Group) -> None:
    key = group.key
    title, keep, run = st.columns([3, 2.4, 1.1], gap="small", vertical_alignment="center")
    with title:
        st.markdown(f"##### {key} · {group.name}", help=group.text)
    with keep:
        st.number_input(
            "Keep at most",
            min_value=1,
            max_value=MOST_KEPT,
            key=f"discover_keep_{key}",
            persist_state="session",
            help="The strongest of the heads that are clear. They are this group, and the "
            "receivers of those that write into it.",
        )
    with run:
        st.button(
            f"Run {key}",
            key=f"discover_run_{key}",
            disabled=now.is_running or key != now.following,
            on_click=discovery.run,
            args=(now, key),
            help=_why_not(now, group),
        )
    stage = now.stage(key)
    if stage is None or now.feeds_nothing(key):
        st.caption(_receivers_to_be(now, group))
        with st.container(height=_CHART_HEIGHT, border=False, vertical_alignment="center"):
            st.caption(_why_empty(now, group), text_alignment="center")
        return
    is_stale = not now.is_valid(key)
    stale = f":orange-badge[Stale: run again from {now.following}] " if is_stale else ""
    st.caption(
        f"{stale}{feeding(now.task, group, stage.receivers)} {_kept_words(now, group, stage)}"
        f"{_scored_by(stage)}"
    )
    if remarked := remark(group, stage, now.plan.criteria):
        st.caption(f":orange-badge[Note] {remarked}")
    setting = now.plan.setting
    show_chart(
        score_map(
            stage_frame(now.plan, stage, group), faded=is_stale or not _kept(now, stage, group)
        ),
        Origin("discover", (setting.model,), setting.prompts),
        f"discover_map_{key}",
        f"{_SCORES[stage.score]} of every head, for stage {key}",
        what=f"scores {key}",
    )


def stage_frame(plan: Plan, stage: Stage, group: Group) -> pd.DataFrame:
    """A row per head of a stage, for the heat map; scores as they are ranked."""
    criteria = plan.criteria
    scores, errors = stage.ranked(criteria.centred)
    frame = score_frame(scores.tolist(), {*criteria.kept(group, stage)})
    clear = stage.clear(criteria.fdr, criteria.centred)
    return frame.assign(standard_error=errors.flatten(), n=stage.n, clear=clear.flatten().tolist())


def _in_words(n: int) -> str:
    numbers = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    return numbers[n - 1] if n <= len(numbers) else str(n)


def _why_empty(now: Progress, group: Group) -> str:
    if now.feeds_nothing(group.key):
        return nothing_to_feed(group)
    if now.is_running:
        return "On its way …"
    return f"Not run yet. Press Run {now.following}, or run all stages above."


def _why_not(now: Progress, group: Group) -> str | None:
    if now.is_valid(group.key):
        return "Up to date."
    if now.feeds_nothing(group.key):
        return nothing_to_feed(group)
    if group.key != now.following:
        return f"Run {now.following} first."
    return None


def _kept_words(now: Progress, group: Group, stage: Stage) -> str:
    """What is kept, and which of it counts in a later group at the same token."""
    kept = _kept(now, stage, group)
    words = f"**Kept:** {_names(kept)}."
    place = now.task.groups.index(group)
    for later in now.task.groups[place + 1 :]:
        found = now.stage(later.key)
        if found is None or not now.is_valid(later.key) or later.position != group.position:
            continue
        of_later = _kept(now, found, later)
        if both := tuple(head for head in kept if head in of_later):
            words += f" In {later.key} as well, and counted there: {_names(both)}."
    return words


def _scored_by(stage: Stage) -> str:
    """What the scores are, where they are not the paper's."""
    if stage.score is Score.probability:
        return ""
    return " Scores: change of the logit difference, in logits, not the paper’s."


def _receivers_to_be(now: Progress, group: Group) -> str:
    if group.component == "logits" or group.key == now.following:
        found = {stage.group: stage for stage in now.stages[: now.valid]}
        receivers = receivers_of(now.task, group, found, now.plan.criteria)
        return feeding(now.task, group, receivers)
    return f"**Into** {_to(now.task, group)}: whatever is kept there."


def feeding(task: Task, group: Group, receivers: tuple[Head, ...]) -> str:
    """“Into the queries of A, at the last token: L4.5, L4.4.”"""
    if group.component == "logits":
        return f"**Into** {_to(task, group)}."
    return f"**Into** {_to(task, group)}: {_names(receivers)}."


def _to(task: Task, group: Group) -> str:
    """“the queries of A, at the last token”."""
    at = task.position(group.position).words
    if group.component == "logits":
        return f"the logits, {at}"
    received = {"q": "queries", "k": "keys", "v": "values"}[group.component]
    return f"the {received} of {' and '.join(group.into)}, {at}"


def _kept(now: Progress, stage: Stage, group: Group) -> tuple[Head, ...]:
    return now.plan.criteria.kept(group, stage)


def _names(heads: tuple[Head, ...]) -> str:
    shown = ", ".join(map(str, heads[:_NAMED])) or "none"
    return f"{shown} and {len(heads) - _NAMED} more" if len(heads) > _NAMED else shown
