"""The speaker view, in a second window: the note, what comes next, and the time."""

from __future__ import annotations

import streamlit as st

import shell

shell.enter()

from shell.talk import speaker

speaker.show(st.query_params.get("of", ""))
