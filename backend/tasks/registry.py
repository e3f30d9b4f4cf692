"""The tasks that there are: a new one is a line in this list, or registered from outside."""

from __future__ import annotations

from backend.core.errors import UserError
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.ioi import IOI
from backend.tasks.task import Task

TASKS: dict[str, Task] = {task.name: task for task in (ENTITY_TRACKING, IOI)}
"""By name; the first one is what is asked unless told otherwise."""
DEFAULT_TASK = ENTITY_TRACKING


def register(task: Task) -> None:
    """Make a task of one's own known to pages, files and the command line of this process."""
    TASKS[task.name] = task


def task_named(name: str) -> Task:
    """The task with this name; raises UserError if there is none."""
    if name not in TASKS:
        raise UserError(f"There is no task “{name[:60]}”. Choose one of {', '.join(TASKS)}.")
    return TASKS[name]


def known_groups() -> set[str]:
    """Keys of the groups of all tasks."""
    return {key for task in TASKS.values() for key in task.keys}
