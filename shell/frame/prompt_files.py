"""Adding prompts of one's own for a task: pasted or from a file, and rows that are left out."""

from __future__ import annotations

import streamlit as st

from backend.core.errors import UserError
from backend.tasks import registry
from backend.tasks.sets import files
from backend.tasks.sets.rows import MAX_KB, MOST_ROWS, needed_tokens
from backend.tasks.task import Task
from shell.frame import state
from shell.frame.words import unmarked

_FIELDS = ("set_name", "set_text")
_SHOWN = 4
"""Rows that are told without scrolling."""


def offer_to_add(task: Task) -> None:
    """A form for prompts of the chosen task, below what is wrong with those given last."""
    base = registry.task_named(task.family)
    state.remember(**dict.fromkeys(_FIELDS, ""))
    _show_what_was_added()
    with st.form("add_prompts", border=False):
        st.markdown(_about(base))
        st.text_input("Name of the prompts", key="set_name", placeholder="mine")
        st.text_area(
            "Prompts as CSV or JSONL", key="set_text", height=100, placeholder=_example(base)
        )
        st.file_uploader(
            "Or a file of them",
            type=["csv", "jsonl", "json", "txt"],
            key="uploaded_set",
            max_upload_size=MAX_KB // 1024,
            help=f"At most {MOST_ROWS} rows. Prompts of the same name are replaced.",
        )
        st.form_submit_button("Add prompts", on_click=_add, args=(base,))
    if name := task.name.partition("/")[2]:
        st.button(f"Forget “{unmarked(name)}”", key="forget_set", on_click=_forget, args=(name,))


def _show_what_was_added() -> None:
    """That prompts were added, rows that are left out, or why none were."""
    at = st.session_state
    if complaint := at.get("set_complaint"):
        st.error(unmarked(complaint))
    if name := at.get("set_added"):
        st.success(f"“{unmarked(name)}” is added, and chosen as the task.")
    if misfits := at.get("set_misfits"):
        st.warning(f"{len(misfits)} of its rows are left out:")
        with st.container(height=140 if len(misfits) > _SHOWN else "content"):
            st.markdown(
                "\n".join(f"- Row {each.number}: {unmarked(each.reason)}" for each in misfits)
            )


def _about(task: Task) -> str:
    tokens = needed_tokens(task)
    marked = (
        f"Mark {' and '.join(f'**{name}**' for name in tokens)} as `[word|{tokens[0]}]`, or give "
        "the word in a column of that name. "
        if tokens
        else ""
    )
    return (
        f"Prompts for **{unmarked(task.title)}**. A row has `clean`, the text before its answer, "
        f"`answer`, `competitors` (apart by `|`), and, if you like, a `counterfactual` of as many "
        f"tokens. {marked}A `sentence` that ends in its answer does for `clean` and `answer`. The "
        "file `docs/own-prompts.md` says more."
    )


def _example(task: Task) -> str:
    return ",".join(("clean", "answer", "competitors", "counterfactual", *needed_tokens(task)))


def _add(task: Task) -> None:
    at = st.session_state
    at["set_complaint"], at["set_added"], at["set_misfits"] = None, None, ()
    file = at["uploaded_set"]
    content = file.getvalue() if file else at["set_text"].encode()
    try:
        added, at["set_misfits"] = registry.keep_prompts(task, at["set_name"].strip(), content)
    except UserError as error:
        at["set_complaint"] = str(error)
    else:
        state.choose_task(added)
        at["set_added"] = added.name.partition("/")[2]
        at.update(dict.fromkeys(_FIELDS, ""))


def _forget(name: str) -> None:
    st.session_state["set_added"], st.session_state["set_misfits"] = None, ()
    try:
        files.remove(name)
    except UserError as error:
        st.session_state["set_complaint"] = str(error)
