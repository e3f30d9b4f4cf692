"""What a preview on the Discover page is asked for, and the jobs that do it."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import streamlit as st

from backend.models import catalogue
from backend.studies import jobs, studies
from backend.studies.previews import (
    DEFAULT_CHECKED,
    FewTokens,
    Gradients,
    Look,
    Previewed,
    run_previews,
    stored_previews,
)
from shell.discover.discovery import Plan
from shell.frame.visitors import telling_refusals, visitor

GRADIENTS, FEW_TOKENS = "gradients", "runs of few tokens"
"""How scores may be estimated, in words."""


@dataclass(frozen=True)
class PreviewPlan:
    """A first look at all stages; n_checked: how many heads of each, and random ones, exactly."""

    look: Look
    n_checked: int

    @property
    def title(self) -> str:
        """“Preview, attribution patching, first order: Base · 100 prompts, …”."""
        setting = self.look.setting
        exactly = f", {self.n_checked} heads checked" if self.n_checked else ""
        label = catalogue.label(setting.model)
        return f"Preview, {self.look.by}{exactly}: {label} · {setting.prompts}"


def set_defaults() -> None:
    """The controls of a new session."""
    defaults = {"preview_by": GRADIENTS, "preview_steps": 0, "preview_checked": DEFAULT_CHECKED}
    for key, value in defaults.items():
        st.session_state.setdefault(key, value)


def estimated_again(by: Gradients | FewTokens) -> None:
    """Show the first look, and choose how its scores are estimated."""
    now = st.session_state
    now["preview_shown"], now["preview_by"] = True, FEW_TOKENS
    if isinstance(by, Gradients):
        now["preview_by"], now["preview_steps"] = GRADIENTS, by.steps


def plan(of: Plan, is_checked: bool) -> PreviewPlan:
    """What the page's controls ask for, of the discovery that it would be."""
    now = st.session_state
    is_quick = now["preview_by"] == FEW_TOKENS
    by = FewTokens() if is_quick else Gradients(now["preview_steps"])
    look = Look(of.setting, of.criteria, of.score, by)
    return PreviewPlan(look, now["preview_checked"] if is_checked else 0)


def run(asked: PreviewPlan) -> None:
    """Preview all stages, and check them if asked."""
    jobs.forget(_key(asked))
    with telling_refusals():
        jobs.job(
            _key(asked),
            lambda report: run_previews(asked.look, asked.n_checked, report),
            asked.title,
            asked,
            where=lambda: studies.devices_of([asked.look.setting.model]),
            who=visitor(),
        )


def job_of(asked: PreviewPlan) -> jobs.Job | None:
    """The job that does it, or did."""
    return jobs.known(_key(asked))


def found(asked: PreviewPlan) -> Sequence[Previewed]:
    """What there is of it: in the store, or of a job whose parts could not be stored."""
    stored, job = stored_previews(asked.look, asked.n_checked), job_of(asked)
    return job.parts if job and len(job.parts) > len(stored) else stored


def _key(asked: PreviewPlan) -> Hashable:
    look, criteria = asked.look, asked.look.criteria
    kept = *sorted(criteria.sizes.items()), criteria.centred, criteria.fdr, criteria.least_effect
    return "preview", look.setting, look.score, look.by, asked.n_checked, kept
