"""Where the circuit's heads attend in the mean over prompts: a chart for each group."""

from __future__ import annotations

import streamlit as st

from backend.methods.attention import Attention, AttentionRequest
from backend.models import catalogue
from circuitviz.attention_charts import role_bars
from shell.frame import choices, fitting, studies, waiting
from shell.frame.notes import show_notes
from shell.frame.studies import Study
from shell.frame.take_home import origin_of, show_chart
from shell.frame.words import unmarked

STUDY = "attention_by_role"


def choose_models() -> tuple[str, ...]:
    """The models side by side: at first the sidebar's and, of its family, a fine-tuned one."""
    now = st.session_state
    if choices.is_start("attended"):
        beside = now["source"] if now["source"] in fitting.family_of(now["model"]) else now["model"]
        now["attended"] = list(dict.fromkeys((now["model"], beside)))
    return choices.choose_models("attended")


def show_roles() -> None:
    """What is asked, how far it is, and its charts; raises UserError for a bad circuit."""
    choices.require_circuit()
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        models = choose_models()
        circuit = choices.choose_heads("attended_heads")
        request = AttentionRequest(models, circuit, choices.chosen_prompts())
        reason = fitting.circuit_misfit(circuit, models)
        studies.show_run(STUDY, request, not models or bool(reason))
    if reason:
        st.warning(unmarked(reason))
    study = studies.latest(STUDY, request)
    studies.say_cost_of(request, study)
    if not study:
        st.info(
            "Press Run to read where each head of the circuit "
            f"“{unmarked(circuit.name)}” ({choices.sizes(circuit)}) attends from its group’s "
            f"token, in the mean over {request.prompts}."
        )
        return
    choices.say_what_changed(study.request, request)
    studies.say_when(study)
    waiting.follow(study.job)
    if study.job.parts:
        _show(study)
        show_notes(study.request.models, study.request.prompts.task)


def _show(study: Study[AttentionRequest]) -> None:
    request, task = study.request, study.request.prompts.task
    parts: dict[str, Attention] = {
        catalogue.label(name): part
        for name, part in zip(request.models, study.job.parts, strict=False)
    }
    for group in task.reading_order:
        heads = request.circuit.heads(group.key)
        if not heads:
            continue
        where = task.position(group.position).words
        st.markdown(f"#### Attention of {group.key}, {group.name}, {where}")
        found = {
            str(head): {
                model: next(
                    each.by_target
                    for each in part.heads
                    if (each.group, each.head) == (group.key, head)
                )
                for model, part in parts.items()
            }
            for head in heads
        }
        show_chart(
            role_bars(found, task.targets),
            origin_of("attention", request),
            f"roles_{group.key}",
            f"Mean attention of the heads of group {group.key}, by role of the token",
            is_wide=True,
        )
    st.caption(
        "Share of a head’s attention that goes to tokens of each role; a column is as wide as all "
        f"of it. Mean over {request.prompts}, right or wrong; 95 % intervals: Wilson’s, with the "
        "variance seen, each for its own. Where a head attends is what it can read: whether the "
        "model needs it, Knockout tells."
    )
