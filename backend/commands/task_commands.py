"""The subcommands that say which tasks there are, and change it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from backend.commands.parts import add_command, say
from backend.core.files import read, shown
from backend.tasks import registry
from backend.tasks.own.files import MAX_KB


def add_to(commands: Any) -> None:
    """Add tasks, add-task and remove-task."""
    add_command(commands, "tasks", _tasks, "the known tasks", "tasks")
    add = add_command(
        commands,
        "add-task",
        _add,
        "keep a task of your own, which a TOML file describes (docs/own-tasks.md)",
        "add-task mine.toml",
    )
    add.add_argument("file", metavar="FILE")
    remove = add_command(
        commands,
        "remove-task",
        _remove,
        "delete the file of a task that was added",
        "remove-task mine",
    )
    remove.add_argument("name", metavar="NAME")


def _tasks(_: argparse.Namespace) -> Any:
    own = registry.own_tasks()
    complaints = {shown(path): reason for path, reason in own.complaints.items()}
    for path, reason in complaints.items():
        say(f"{path} is not used: {reason}")
    listed = [
        {
            "name": task.name,
            "title": task.title,
            "source": task.source,
            "groups": {group.key: group.name for group in task.reading_order},
            "tokens": task.position_names,
        }
        | ({"file": shown(own.files[task.name])} if task.name in own.files else {})
        for task in registry.known_tasks().values()
    ]
    return {"tasks": listed} | ({"complaints": complaints} if complaints else {})


def _add(options: argparse.Namespace) -> Any:
    task = registry.add_task(read(Path(options.file).expanduser(), MAX_KB * 1024))
    say(f"“{task.name}” is added: ask for it with --task {task.name}")
    return {"added": task.name}


def _remove(options: argparse.Namespace) -> Any:
    registry.remove_task(options.name)
    return {"removed": options.name}
