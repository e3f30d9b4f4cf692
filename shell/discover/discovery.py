"""What the Discover page is asked to do, and the jobs that do it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import streamlit as st

from backend.core.metrics import Score
from backend.core.progress import Report
from backend.methods.requests import SCORES
from backend.methods.stage import Stage
from backend.methods.stages import DEFAULT_FDR, Criteria, n_valid, next_stage
from backend.models import catalogue
from backend.studies import jobs, studies
from backend.studies.stages import found_circuit as circuit_of
from backend.studies.stages import run_stages, stored_stages
from backend.tasks.circuit import Circuit
from backend.tasks.prompts import N_PATCHED, Prompts
from backend.tasks.setting import Setting
from backend.tasks.task import Task
from shell.frame.visitors import telling_refusals, visitor

MOST_PROMPTS = 1000
Key = tuple[str, Setting, Score]
RAW, CENTRED = "Score", "Median-centred"


@dataclass(frozen=True)
class Plan:
    """The prompts, which heads each group keeps, and how paths are scored."""

    setting: Setting
    criteria: Criteria
    score: Score = Score.probability

    @property
    def title(self) -> str:
        """“Discover: a circuit of Base · 100 prompts, …”."""
        where = f"a circuit of {catalogue.label(self.setting.model)}"
        how = "" if self.score is Score.probability else f", {SCORES[self.score]}"
        return f"Discover{how}: {where} · {self.setting.prompts}"


@dataclass(frozen=True)
class Progress:
    """A plan, its job if there is one, and what is found; `valid` stages fit the plan.

    date: when the last valid stage was found, if it comes out of the store.
    """

    plan: Plan
    job: jobs.Job | None
    stages: tuple[Stage, ...]
    valid: int
    date: str | None = None

    @property
    def is_running(self) -> bool:
        """Whether stages are on their way."""
        return self.job is not None and not self.job.future.done()

    @property
    def task(self) -> Task:
        """What the model is asked."""
        return self.plan.setting.prompts.task

    @property
    def following(self) -> str | None:
        """The key of the group whose stage comes next; None when all fit the plan."""
        found = next_stage(self.task, self.stages[: self.valid], self.plan.criteria)
        return found[0].key if found else None

    @property
    def is_complete(self) -> bool:
        """Whether all stages fit the plan: of every group that has something to feed."""
        return self.following is None

    def stage(self, key: str) -> Stage | None:
        """What is found for a group, be it stale or not."""
        return next((stage for stage in self.stages if stage.group == key), None)

    def is_valid(self, key: str) -> bool:
        """Whether what is found for a group fits the plan."""
        return any(stage.group == key for stage in self.stages[: self.valid])

    def feeds_nothing(self, key: str) -> bool:
        """Whether a group has no stage because those that it writes into keep no head."""
        following, keys = self.following, self.task.keys
        is_passed = following is None or keys.index(key) < keys.index(following)
        return is_passed and not self.is_valid(key)


def set_defaults(task: Task) -> None:
    """The controls of a new session."""
    defaults: dict[str, Any] = {
        "discover_n": N_PATCHED,
        "discover_ranking": RAW,
        "discover_fdr": DEFAULT_FDR,
    }
    defaults["discover_score"] = Score.probability
    kept = {f"discover_keep_{group.key}": group.size for group in task.groups}
    for key, value in (defaults | kept).items():
        st.session_state.setdefault(key, value)


def plan() -> Plan:
    """What the sidebar and the page's controls ask for."""
    at = st.session_state
    task: Task = at["task"]
    prompts = Prompts(task, at["discover_n"], at["seed"], at["options"])
    setting = Setting(at["model"], prompts)
    sizes = {key: at[f"discover_keep_{key}"] for key in task.keys}
    centred = at["discover_ranking"] == CENTRED
    criteria = Criteria(sizes, centred, at["discover_fdr"])
    return Plan(setting, criteria, at["discover_score"])


def progress(plan: Plan) -> Progress:
    """How far the discovery on these prompts is: in this tab, in another, or in the store."""
    job, before = _started().get(_key(plan), (None, ()))
    if job is None:
        job = jobs.known(_key(plan))
    found = tuple(job.parts) if job else ()
    stages = found if len(found) >= len(before) else before
    valid = n_valid(plan.setting.prompts.task, stages, plan.criteria)
    now = Progress(plan, job, stages, valid)
    if now.is_complete or now.is_running:
        return now
    stored = stored_stages(plan.setting, plan.criteria, plan.score)
    if len(stored) <= valid:
        return now
    stages = tuple(each.parts[0] for each in stored) + stages[len(stored) :]
    return Progress(plan, job, stages, len(stored), stored[-1].entry.header.date)


def run(now: Progress, until: str) -> None:
    """Run the stages that are missing or stale, up to this one."""
    key, done = _key(now.plan), now.stages[: now.valid]
    jobs.forget(key)
    with telling_refusals():
        job = jobs.job(
            key,
            lambda report: _work(now.plan, done, until, report),
            now.plan.title,
            now.plan,
            where=lambda: studies.devices_of([now.plan.setting.model]),
            who=visitor(),
        )
        _started()[key] = job, done


def show_again(plan: Plan, job: jobs.Job) -> None:
    """Make this tab show a job, with the stages it went on from if this tab started it."""
    shown = _started().get(_key(plan))
    if not shown or shown[0] is not job:
        _started()[_key(plan)] = job, ()


def found_circuit(now: Progress, name: str) -> Circuit:
    """The circuit of the stages that fit the plan."""
    return circuit_of(now.plan.setting, now.stages[: now.valid], now.plan.criteria, name)


def _work(plan: Plan, done: tuple[Stage, ...], until: str, report: Report) -> Iterator[Stage]:
    yield from done
    yield from run_stages(plan.setting, plan.criteria, done, until, report, plan.score)


def _key(plan: Plan) -> Key:
    return "discover", plan.setting, plan.score


def _started() -> dict[Key, tuple[jobs.Job, tuple[Stage, ...]]]:
    """This tab's discoveries, with the stages that they went on from: a cancel loses none."""
    started: dict[Key, tuple[jobs.Job, tuple[Stage, ...]]]
    started = st.session_state.setdefault("discoveries", {})
    return started
