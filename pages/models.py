"""Which models there are, which are loaded and where, and which can be compared."""

from __future__ import annotations

import streamlit as st

import shell

shell.enter()

from backend.core.placement import Placement
from backend.core.read_only import is_read_only
from shell.frame import state
from shell.models import long_work, models

left, right = st.columns([2.6, 1], gap="large")
with right:
    placement = Placement() if is_read_only() else models.choose_placement()
    if not is_read_only():
        long_work.choose_where()
    models.show_memory()
    if not is_read_only():
        models.offer_to_add()
with left:
    with st.container():  # a place of its own, as in `waiting.follow`
        models.show_loading()
    models.show_models(placement)
    models.show_pairs()
state.write_address()
