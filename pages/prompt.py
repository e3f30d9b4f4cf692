"""Write a prompt of one's own, switch heads off in it or patch them from a second one."""

from __future__ import annotations

import streamlit as st

import shell

shell.enter()

from backend.core.errors import UserError
from backend.core.priority import urgent
from backend.models import loaded_models
from backend.tasks.setting import Mode
from backend.tasks.written import complaints
from shell.frame import choices, state, waiting
from shell.frame.notes import show_notes
from shell.frame.words import unmarked
from shell.prompt import beside, editor, switched


@st.fragment
@urgent()
def write() -> None:
    try:
        show()
    except UserError as error:
        st.error(unmarked(error))
    state.write_address()


def show() -> None:
    from backend.studies import written

    view = state.current()
    tokenizer = loaded_models.load(view.model).tokenizer
    circuit = choices.sidebar_circuit() if view.circuit else None
    left, right = st.columns([1.8, 1], gap="medium")
    with left:
        mode = switched.choose_mode() if circuit else Mode.mean
    prompts = {
        which: editor.written(
            which, view.task, written.example(view.model, view.prompts, (view.example or 0) + ahead)
        )
        for ahead, which in enumerate((editor.FIRST, editor.SECOND))
    }
    found = {which: complaints(tokenizer, view.task, prompts[which]) for which in prompts}
    needed = [*prompts] if mode is Mode.counterfactual else [editor.FIRST]
    with right:
        editor.choose_example(view)
        which = editor.choose_prompt() if len(needed) > 1 else editor.FIRST
        editor.show_editor(which, view.task, prompts[which], found[which])
    prompt, second = prompts[editor.FIRST], prompts[editor.SECOND]
    if circuit and not any(found[which] for which in needed):
        shown = switched.shown_view(mode)
        with waiting.memory_permitting():
            now = written.run(view.model, view.task, prompt)
        circuit.check(now.loaded.shape, unmarked(view.model))
        with left:
            switched.show_circuit(now, circuit, shown)
            switched.show_attention(now, shown, prompt)
        with right, waiting.memory_permitting():
            off = switched.sites_off(circuit, shown)
            used = second if mode is Mode.counterfactual else None
            after = written.answers(view.model, view.prompts, prompt, off, mode, used)
            other = written.run(view.model, view.task, used) if used else None
            switched.show_numbers(now, after, shown, other)
            switched.show_source(shown, written.is_mean_of_token(now, view.prompts))
            show_notes([view.model], view.task)
    else:
        with left:
            switched.say_what_is_missing(circuit, found, needed)
    if "text" not in found[editor.FIRST]:
        beside.show_beside(prompt)


try:
    waiting.wait_for_model(state.current().model, state.current().prompts)
    write()
except UserError as error:
    st.error(unmarked(error))
