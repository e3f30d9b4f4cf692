"""The tasks that there are: a new one is a line in this list, a file, or registered elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from backend.core.errors import UserError
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.ioi import IOI
from backend.tasks.own import files
from backend.tasks.own.files import Found
from backend.tasks.sets import files as sets
from backend.tasks.sets.rows import Misfit
from backend.tasks.sets.variant import task_on
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


def own_sets(tasks: Mapping[str, Task]) -> tuple[dict[str, Task], dict[str, str]]:
    """Tasks on the sets of prompts that are kept here, by name; and what is wrong with others."""
    found, complaints = dict[str, Task](), dict[str, str]()
    for name in sets.names():
        try:
            kept = sets.kept(name)
            if kept.task in tasks:
                task = _task_on(tasks[kept.task], name, kept)
                found[task.name] = task
            else:
                complaints[name] = f"It is for the task “{kept.task[:60]}”, which is not here."
        except UserError as error:
            complaints[name] = str(error)
    return found, complaints


_task_on = lru_cache(maxsize=64)(task_on)


def known_tasks() -> dict[str, Task]:
    """All tasks by name: those that are code, those of files, and each on sets of prompts."""
    tasks = {**TASKS, **own_tasks().tasks}
    return {**tasks, **own_sets(tasks)[0]}


def keep_prompts(task: Task, name: str, content: bytes) -> tuple[Task, tuple[Misfit, ...]]:
    """Keep prompts for a task under a name; gives the task on them, and rows that are left out.

    Raises UserError for a name that is not plain, and where no row can be used.
    """
    kept = sets.add(name, content, task_named(task.family))
    return task_named(f"{task.family}/{name}"), kept.misfits


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
