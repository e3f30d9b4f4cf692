"""Where heads attend: one head on one prompt, circuits by role, and attention that is cut."""

from __future__ import annotations

import streamlit as st

import shell

shell.enter()

from backend.core.errors import UserError
from shell.attention.heads import show_head
from shell.attention.knockout import show_knockout
from shell.attention.opening import BY_ROLE, KNOCKOUT, ONE_HEAD, SECTIONS, show_way_back
from shell.attention.roles import show_roles
from shell.frame import state
from shell.frame.words import unmarked

state.remember(attention_shown=ONE_HEAD)
with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
    shown = st.segmented_control(
        "What is shown",
        SECTIONS,
        key="attention_shown",
        required=True,
        persist_state="session",
        label_visibility="collapsed",
    )
    show_way_back()
try:
    if shown == BY_ROLE:
        show_roles()
    elif shown == KNOCKOUT:
        show_knockout()
    else:
        show_head()
except UserError as error:
    st.error(unmarked(error))
state.write_address()
