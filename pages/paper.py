"""The paper's own results, and beside them what was measured here; works with no weights at all."""

from __future__ import annotations

import streamlit as st

import shell

shell.enter()

from backend.core.errors import UserError
from shell.frame import state
from shell.frame.words import unmarked
from shell.paper import paper
from shell.paper.sections import SECTIONS

model = paper.choose_model()
tabs = st.tabs(list(SECTIONS), key="paper_section", on_change="rerun")
for tab, show in zip(tabs, SECTIONS.values(), strict=True):
    if tab.open:
        with tab:
            try:
                show(model)
            except UserError as error:
                st.error(unmarked(error))
state.write_address()
