"""What is written into the logits: by which head and MLP, from which layer on, what is copied."""

from __future__ import annotations

import streamlit as st

import shell

shell.enter()

from backend.core.errors import UserError
from shell.frame import choices, state, studies, waiting
from shell.frame.chance import warn_of_chance
from shell.frame.notes import show_notes
from shell.frame.words import unmarked
from shell.logits import logits

try:
    circuit = choices.sidebar_circuit() if state.current().circuit else None
    request = logits.choose()
    name = logits.STUDIES[type(request)]
    study = studies.latest(name, request)
    studies.say_cost_of(request, study)
    if study:
        choices.say_what_changed(study.request, request)
        studies.say_when(study)
        waiting.follow(study.job)
        if study.job.parts:
            warn_of_chance(study.request.models, study.job.parts)
            logits.show(study.request, tuple(study.job.parts), circuit)
            show_notes(study.request.models, study.request.prompts.task)
    else:
        st.info(unmarked(logits.invitation(request)))
except UserError as error:
    st.error(unmarked(error))
state.write_address()
