"""The sidebar: which model, which circuit, which prompts."""

from __future__ import annotations

from contextlib import suppress

import streamlit as st

from backend.core.errors import UserError
from backend.core.read_only import is_read_only
from backend.models import catalogue
from backend.tasks.prompts import MAX_SEED
from backend.tasks.registry import DEFAULT_TASK, TASKS, own_sets, own_tasks
from backend.tasks.task import Task
from shell.frame import cluster_models, fitting, joblist, state, task_files
from shell.frame.history import History
from shell.frame.view import prompt_counts
from shell.frame.words import MEASURES, unmarked

_READ_ONLY = (
    "Read-only: click heads, write prompts, look at all that was measured. Nothing can be added, "
    "deleted or measured anew."
)


def show() -> None:
    """Draw the sidebar; what is chosen lands in the session's state."""
    with st.sidebar:
        st.markdown("### Circuit explorer")
        if is_read_only():
            st.caption(_READ_ONLY)
        own = own_tasks()
        tasks = {**TASKS, **own.tasks}
        sets, complaints = own_sets(tasks)
        tasks |= sets
        state.renew_task(tasks)
        st.selectbox(
            "Task",
            list(tasks.values()),
            format_func=lambda task: task.title,
            key="task",
            persist_state="session",
            on_change=_choose_task,
            help="What the models are asked: its prompts, and the groups of heads that a circuit "
            "for it has.",
        )
        task: Task = st.session_state["task"]
        task_files.show_misfits(own, complaints)
        if not is_read_only():
            task_files.offer_to_add(task, own)
        st.selectbox(
            "Model",
            _with_current(catalogue.models(), "model"),
            format_func=catalogue.label,
            key="model",
            persist_state="session",
            accept_new_options=not is_read_only(),
            help="Known models are on the Models page. You can also type a Hugging Face model: its "
            "folder on this computer, or a hub name such as `owner/name`.",
        )
        cluster_models.show_asking()
        _describe(st.session_state["model"], task)
        circuits = catalogue.circuits_for(task)
        state.choose_circuit(circuits)
        st.selectbox(
            "Circuit",
            _with_current(circuits, "circuit"),
            format_func=lambda name: name or "none yet",
            key="circuit",
            persist_state="session",
            on_change=_start_over,
            help="The heads to draw and to click, of circuits for the task. “base” was found in "
            "the bundled base model.",
        )
        _say_misfit(st.session_state["circuit"], st.session_state["model"])
        if not is_read_only():
            _offer_to_add_circuit()
        how_many, which = st.columns(2, gap="small")
        how_many.selectbox(
            "Prompts",
            prompt_counts(),
            key="n",
            persist_state="session",
            help="How many prompts every number is measured on. More prompts, narrower intervals.",
        )
        which.number_input(
            "Seed",
            min_value=0,
            max_value=MAX_SEED,
            key="seed",
            persist_state="session",
            help="Another seed draws other prompts of the same kind.",
        )
        _show_options(task)
        st.selectbox(
            "Measure",
            list(MEASURES),
            format_func=MEASURES.__getitem__,
            key="metric",
            persist_state="session",
            help="What the numbers of the Circuit, Compare and CMAP pages are. **Accuracy**, the "
            "paper’s: whether the right answer is the most probable of all tokens. **P(right "
            "answer)**: its probability. **Logit difference**: its logit less the mean logit of "
            "the answers that it competes with (Wang et al., 2023): it also shows what a head does "
            "where the model is sure.",
        )
        joblist.show_jobs()


def _offer_to_add_circuit() -> None:
    with st.popover("Add a circuit", width="stretch"):
        st.file_uploader(
            "A circuit saved as JSON",
            type="json",
            key="uploaded_circuit",
            max_upload_size=catalogue.MAX_CIRCUIT_MB,
            on_change=_add_circuit,
        )
        if complaint := st.session_state.get("upload_complaint"):
            st.error(unmarked(complaint))


def _show_options(task: Task) -> None:
    """A slider for each number that the task's prompts depend on."""
    given = st.session_state["options"] or tuple(option.default for option in task.options)
    for option, value in zip(task.options, given, strict=True):
        st.session_state[option.name] = value
        st.slider(
            option.words,
            option.least,
            option.most,
            key=option.name,
            on_change=_take_options,
            args=(task,),
        )


def _take_options(task: Task) -> None:
    now = st.session_state
    now["options"] = tuple(now[option.name] for option in task.options)


def _choose_task() -> None:
    state.choose_task(st.session_state["task"])


def _with_current(options: tuple[str, ...], key: str) -> tuple[str, ...]:
    """A name from the address stays selectable, so that the page can say what is wrong with it."""
    current = st.session_state[key]
    return options if current in options else (*options, current)


def _describe(model: str, task: Task) -> None:
    known = catalogue.about(model)
    fine_tuned = f"Fine-tuned on: {unmarked(known.finetuned_on)}." if known else ""
    if known and known.paper_counterpart not in ("", known.label):
        st.caption(f"{fine_tuned} In the paper: {unmarked(known.paper_counterpart)}.")
    elif known:
        st.caption(fine_tuned)
    if fitting.knows_other_words(model, task):
        st.caption(
            f":orange-badge[Does not fit] It knows only the words of {DEFAULT_TASK.title.lower()}."
        )


def _say_misfit(circuit: str, model: str) -> None:
    """Whether the circuit has heads that the model does not have."""
    with suppress(UserError):  # a circuit that cannot be read: every page says why
        if fitting.circuit_misfit(catalogue.circuit(circuit), [model]):
            st.caption(
                f":orange-badge[Does not fit] It has heads that {unmarked(catalogue.label(model))} "
                "does not have."
            )


def _start_over() -> None:
    state.overrule(History())


def _add_circuit() -> None:
    file = st.session_state["uploaded_circuit"]
    st.session_state["upload_complaint"] = None
    if file is None:
        return
    try:
        st.session_state["circuit"] = catalogue.add_circuit(file.name, file.getvalue())
        _start_over()
    except UserError as error:
        st.session_state["upload_complaint"] = str(error)
