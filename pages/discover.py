"""Find a circuit by path patching, then ask whether it is minimal and complete."""

from __future__ import annotations

import streamlit as st

import shell

shell.enter()


from backend.core.errors import UserError
from backend.studies.stages import expected_costs
from shell.discover import discovery
from shell.discover.found import show_found
from shell.discover.preview import show_preview
from shell.discover.stages import SCORE, show_controls, show_run_all, show_stages
from shell.frame import (
    state,
    studies,
    waiting,
)
from shell.frame.chance import warn_of_chance
from shell.frame.notes import show_noise, show_notes
from shell.frame.words import unmarked

discovery.set_defaults(st.session_state["task"])
st.markdown("#### Find a circuit by path patching", help=SCORE)
with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
    show_controls()
    now = discovery.progress(discovery.plan())
    show_run_all(now)
if not now.is_complete and not now.is_running:
    setting = now.plan.setting
    groups = now.task.groups
    left = expected_costs(setting, groups[now.task.keys.index(now.following or "") :])
    studies.say_cost(sum(left), "stage", {setting.model})
if now.job:
    waiting.follow(now.job)
if now.date:
    last = now.stages[now.valid - 1].group
    st.caption(f"Stages up to {last}: from {studies.local_time(now.date)}.")
warn_of_chance([now.plan.setting.model], now.stages[: now.valid])
show_preview(now.plan)
show_stages(now)
show_notes([now.plan.setting.model], now.task)
show_noise(now.plan.setting.model, now.task)
try:
    show_found(now)
except UserError as error:
    st.error(unmarked(error))
state.write_address()
