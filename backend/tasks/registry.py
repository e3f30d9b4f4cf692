"""The tasks that there are: a new one is a line in this list, a file, or registered elsewhere."""

from __future__ import annotations

from backend.core.errors import UserError
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.ioi import IOI
from backend.tasks.own import files
from backend.tasks.own.files import Found
from backend.tasks.task import Task

TASKS: dict[str, Task] = {task.name: task for task in (ENTITY_TRACKING, IOI)}
"""Those that are code, by name; the first one is what is asked unless told otherwise."""
DEFAULT_TASK = ENTITY_TRACKING


def register(task: Task) -> None:
    """Make a task of one's own known to pages, files and the command line of this process."""
    TASKS[task.name] = task


def own_tasks() -> Found:
    """The tasks that files describe, as the files are now, and what is wrong with others."""
    return files.found(TASKS)


def known_tasks() -> dict[str, Task]:
    """All tasks by name: those that are code, then those of files."""
    return {**TASKS, **own_tasks().tasks}


def task_named(name: str) -> Task:
    """The task with this name; raises UserError if there is none."""
    known = known_tasks()
    if name not in known:
        raise UserError(f"There is no task “{name[:60]}”. Choose one of {', '.join(known)}.")
    return known[name]


def add_task(content: bytes) -> Task:
    """Keep the file of an own task; raises UserError naming the field that is wrong."""
    return files.add(content, TASKS)


def remove_task(name: str) -> None:
    """Delete the file of an own task that was added here; raises UserError if there is none."""
    files.remove(name, TASKS)


def known_groups() -> set[str]:
    """Keys of the groups of all tasks."""
    return {key for task in known_tasks().values() for key in task.keys}
