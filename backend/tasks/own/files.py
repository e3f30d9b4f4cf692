"""The files of own tasks: those that come with this tool, and those added here.

Files added here may also be written by hand, into `cache/local/tasks`. One that is wrong is told,
and every other one still works.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from backend.core.errors import UserError
from backend.core.files import LOCAL, Unreadable, read, shown, write_atomically
from backend.core.read_only import check_allowed
from backend.tasks.own.form_reading import form_of
from backend.tasks.own.task import check_fills, task_of
from backend.tasks.task import Task

SHIPPED = Path(__file__).parent / "examples"
ADDED = LOCAL / "tasks"
MAX_KB = 256
_MOST_FILES = 100


@dataclass(frozen=True)
class Found:
    """Tasks by name, the file of each, and what is wrong with the files that hold none."""

    tasks: Mapping[str, Task]
    files: Mapping[str, Path]
    complaints: Mapping[Path, str]


def found(others: Mapping[str, Task]) -> Found:
    """The tasks of all files, read again when they have changed; none is called as another one."""
    tasks, files, complaints = dict[str, Task](), dict[str, Path](), dict[Path, str]()
    for path in (*sorted(SHIPPED.glob("*.toml")), *sorted(ADDED.glob("*.toml"))[:_MOST_FILES]):
        try:
            about = path.stat()
            read_one = _read(path, about.st_mtime_ns, about.st_size)
        except OSError:
            continue  # it went meanwhile
        if isinstance(read_one, str):
            complaints[path] = read_one
        elif taken := _taken(read_one, {**others, **tasks}):
            complaints[path] = str(taken)
        else:
            tasks[read_one.name], files[read_one.name] = read_one, path
    return Found(tasks, files, complaints)


def task_in(content: bytes) -> Task:
    """The task that a file describes; raises UserError naming the field that is wrong."""
    if len(content) > MAX_KB * 1024:
        raise UserError(f"This file has more than {MAX_KB} kB. Write fewer words.")
    try:
        data = tomllib.loads(content.decode())
    except UnicodeDecodeError as error:
        raise UserError("This file is not text in UTF-8. Save it so.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"This is not TOML: {error}. Mend it there.") from error
    form = form_of(data)
    check_fills(form)
    return task_of(form)


def add(content: bytes, others: Mapping[str, Task]) -> Task:
    """Keep a file among those added here, in place of an earlier one of the same name.

    Raises UserError naming the field that is wrong, and for a name that another task has.
    """
    check_allowed("To add a task")
    task = task_in(content)
    here = found(others)
    path = ADDED / f"{task.name}.toml"
    if here.files.get(task.name, path).parent == ADDED:
        path = here.files.get(task.name, path)
    own = {name: each for name, each in here.tasks.items() if here.files[name] != path}
    if taken := _taken(task, {**others, **own}):
        raise taken
    try:
        write_atomically(path, content)
    except OSError as error:
        raise UserError(
            f"The task cannot be written to {shown(path)} ({error.strerror}). Make room or rights "
            "there."
        ) from error
    return task


def remove(name: str, others: Mapping[str, Task]) -> None:
    """Delete the file of a task that was added here; raises UserError when there is none."""
    check_allowed("To remove a task")
    path = found(others).files.get(name)
    if not path or path.parent != ADDED:
        raise UserError(f"“{name[:60]}” was not added here. Choose a task that was.")
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(
            f"{shown(path)} cannot be deleted ({error.strerror}). Mend the rights of its folder."
        ) from error


@lru_cache(maxsize=256)
def _read(path: Path, _: int, __: int) -> Task | str:
    """The task of a file, or what is wrong with it."""
    try:
        return task_in(read(path, MAX_KB * 1024))
    except Unreadable as error:
        return error.reason
    except UserError as error:
        return str(error)


def _taken(task: Task, others: Mapping[str, Task]) -> UserError | None:
    """What is wrong if the task is called as another one."""
    if task.name in others:
        return UserError(
            f"The field “name” holds “{task.name}”, which is the name of another task. Choose "
            "another name."
        )
    if task.title in [each.title for each in others.values()]:
        return UserError(
            f"The field “title” holds “{task.title}”, which is the title of another task. Choose "
            "another title."
        )
    return None
