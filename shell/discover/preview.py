"""A first look on the Discover page: scores estimated, and how far that can be trusted."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from backend.core.metrics import Score
from backend.methods.agreement import Agreement, in_words
from backend.methods.attribution_patching import MOST_STEPS
from backend.methods.preview import Preview
from backend.methods.quick import N_TOKENS
from backend.methods.requests import SCORES
from backend.studies.previews import MOST_CHECKED, Previewed
from backend.tasks.task import Task
from circuitviz.preview_charts import MISSED, OTHER, RANKED, agreement_scatter
from circuitviz.score_charts import score_frame, score_map
from shell.discover import previewing
from shell.discover.discovery import Plan
from shell.discover.previewing import PreviewPlan
from shell.discover.stages import feeding
from shell.frame import waiting
from shell.frame.chance import warn_of_chance
from shell.frame.take_home import origin_of, show_chart

_HELP = (
    "Every head’s score in every stage is estimated, and the estimate is checked: path patching of "
    "the heads that it ranks highest and of as many random ones."
)
_BY = (
    "**Gradients**: attribution patching (Nanda, 2023; Syed et al., 2023; not the paper’s): what "
    "path patching measures head by head is taken to be linear in each head’s output, so one "
    "backward pass has all heads of a stage. The paths, the frozen heads and the MLPs that respond "
    "are those of path patching. It misses attention and probabilities that saturate.\n\n"
    "**Runs of few tokens**: path patching, head by head, in which at most "
    f"{N_TOKENS} tokens of each prompt run again: the group’s, the last, and those between that "
    "attend most to the group’s token and get most attention from the last. What goes through "
    "others is added by gradients, and only that is taken to be linear. Stages at the last tokens "
    "come out exactly. It takes longer than gradients: 0.4 of the time of a stage at an early "
    "token, measured in SmolLM2."
)
_STEPS = (
    "0: the gradient at the clean run, first order. More: the mean of gradients at so many points "
    "between the clean and the counterfactual outputs of all heads together (integrated gradients, "
    "as EAP-IG; Hanna et al., 2024). Each step takes as long as a preview."
)
_CHECKED = (
    "So many of the heads that the preview ranks highest, and as many random others, are measured "
    "exactly, by path patching. Of a stage that has been run, all heads are known, and are used."
)


def show_preview(of: Plan) -> None:
    """The switch of the preview, and below it, while it is on, the preview."""
    previewing.set_defaults()
    st.toggle("First look: preview all stages", key="preview_shown", help=_HELP)
    if st.session_state["preview_shown"]:
        with st.container(border=True):
            _show(of)


def _show(of: Plan) -> None:
    plain, checked = (previewing.plan(of, is_checked) for is_checked in (False, True))
    jobs = [job for job in map(previewing.job_of, (plain, checked)) if job]
    is_running = any(not job.future.done() for job in jobs)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        st.segmented_control(
            "Estimated by",
            [previewing.GRADIENTS, previewing.FEW_TOKENS],
            key="preview_by",
            required=True,
            persist_state="session",
            help=_BY,
        )
        if st.session_state["preview_by"] == previewing.GRADIENTS:
            st.number_input(
                "Steps of integration",
                min_value=0,
                max_value=MOST_STEPS,
                key="preview_steps",
                persist_state="session",
                width=165,
                help=_STEPS,
            )
        st.number_input(
            "Heads to check",
            min_value=1,
            max_value=MOST_CHECKED,
            key="preview_checked",
            persist_state="session",
            width=165,
            help=_CHECKED,
        )
        _show_buttons(plain, checked, is_running)
    for job in jobs:
        waiting.follow(job)
    found = previewing.found(checked)
    if not found:
        st.caption(
            "Preview scores are estimates. They show where to look first; no circuit is made of "
            "them."
        )
        return
    warn_of_chance([plain.look.setting.model], [each.preview for each in found])
    task, shown = of.setting.prompts.task, {each.request.group for each in found}
    for each in found:
        _show_stage(each, task)
    missing = ", ".join(key for key in task.keys if key not in shown)
    if missing and not is_running:
        st.caption(
            f"Not previewed: {missing}. Press Preview after a change; a group is passed over while "
            "those that it writes into keep no head."
        )


def _show_buttons(plain: PreviewPlan, checked: PreviewPlan, is_running: bool) -> None:
    n = len(plain.look.setting.prompts.task.groups)
    st.button(
        f"Preview {n} stages",
        type="primary",
        disabled=is_running,
        on_click=previewing.run,
        args=(plain,),
    )
    st.button(
        f"Check {checked.n_checked} heads and as many random ones exactly",
        disabled=is_running,
        on_click=previewing.run,
        args=(checked,),
    )


def _show_stage(each: Previewed, task: Task) -> None:
    group, stage = task.group(each.request.group), each.preview.estimated
    st.markdown(f"##### {group.key} · {group.name} :orange-badge[Preview, not exact]")
    st.caption(
        f"{feeding(task, group, stage.receivers)}{_found_by(each)} n = {stage.n} prompts."
        f"{_unit(stage.score)}"
    )
    left, right = st.columns(2, gap="medium")
    with left:
        show_chart(
            score_map(preview_frame(each.preview)),
            origin_of("discover", each.request),
            f"preview_map_{group.key}",
            f"Preview of every head’s score, not exact, for stage {group.key}",
        )
    with right:
        if each.checked is None:
            st.caption("Not checked yet: how far it can be trusted is not known.")
            return
        show_chart(
            agreement_scatter(agreement_frame(each.preview, each.checked)),
            origin_of("discover", each.request),
            f"preview_check_{group.key}",
            f"Preview beside exact scores, for stage {group.key}",
        )
    st.caption(in_words(each.checked))


def preview_frame(preview: Preview) -> pd.DataFrame:
    """A row per head of a stage, for the heat map."""
    stage = preview.estimated
    frame = score_frame(stage.mean.tolist(), ())
    return frame.assign(standard_error=stage.standard_error.flatten(), n=stage.n)


def agreement_frame(preview: Preview, found: Agreement) -> pd.DataFrame:
    """A row per head that was measured exactly, for the scatter."""
    top = {*preview.top(found.k)}
    return pd.DataFrame(
        {
            "name": [*map(str, found.exact)],
            "preview": [float(preview.estimated.mean[head]) for head in found.exact],
            "exact": [*found.exact.values()],
            "kind": [
                RANKED if head in top else MISSED if head in found.missed else OTHER
                for head in found.exact
            ],
        }
    )


def _found_by(each: Previewed) -> str:
    if not each.preview.estimated.receivers:
        return ""
    if each.into_exact:
        return " These are kept by exact scores."
    return " These rank highest in previews, which may be wrong."


def _unit(score: Score) -> str:
    return "" if score is Score.probability else f" Scores: {SCORES[score]}, in logits."
