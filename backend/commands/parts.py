"""What the subcommands of the command line share."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path
from time import monotonic
from typing import Any

from backend.cluster.where import cluster
from backend.core.arguments import checked_by, whole
from backend.core.errors import UserError
from backend.core.files import Absent, obstacle, read, shown
from backend.core.heads import check_sites
from backend.core.pace import Pace
from backend.core.placement import AUTO, Dtype, Placement
from backend.core.progress import Report
from backend.methods.registry import method_of
from backend.methods.requests import Request, circuit_of, models_of
from backend.methods.rows import choices_of, figures
from backend.models import catalogue, loaded_models, registry
from backend.models.model_config import blueprint
from backend.studies import studies
from backend.tasks.chance import warning
from backend.tasks.circuit import Circuit
from backend.tasks.prompts import MAX_PROMPTS, MAX_SEED, Prompts
from backend.tasks.registry import DEFAULT_TASK, TASKS, keep_prompts, known_tasks, task_named
from backend.tasks.sets.rows import MAX_KB
from backend.tasks.task import Task

_SUMMARY = 16


def add_command(
    commands: Any, name: str, run: Callable[[Any], Any], purpose: str, example: str
) -> argparse.ArgumentParser:
    """A subcommand, with its purpose and an example in its help."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=purpose,
        description=f"{purpose[0].upper()}{purpose[1:]}.",
        epilog=f"example: python -m backend {example}",
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "--out",
        type=writable,
        metavar="FILE",
        help="write the result there, and nothing to standard output",
    )
    return parser


def add_models(parser: argparse.ArgumentParser) -> None:
    """One model or more."""
    parser.add_argument("models", nargs="+", metavar="MODEL")


def add_prompts(parser: argparse.ArgumentParser, n: int) -> None:
    """How many prompts, of which kind; `n` unless the user says otherwise."""
    many, seeds = whole(1, MAX_PROMPTS), whole(0, MAX_SEED)
    parser.add_argument(
        "--task",
        type=checked_by(lambda name: task_named(name).name),
        default=DEFAULT_TASK.name,
        metavar="TASK",
        help=f"what the models are asked: {', '.join(known_tasks())} (default: "
        f"{DEFAULT_TASK.name})",
    )
    parser.add_argument(
        "--prompts-from",
        metavar="FILE",
        help="ask these instead: CSV or JSONL, kept under the file’s name, or a name that is kept "
        "(docs/own-prompts.md)",
    )
    parser.add_argument("--prompts", type=many, default=n, help=f"how many (default: {n})")
    for task in TASKS.values():
        for option in task.options:
            parser.add_argument(
                f"--{option.name}",
                type=whole(option.least, option.most),
                help=f"{option.words.lower()}, {option.least} to {option.most} (default: "
                f"{option.default}; {task.title.lower()})",
            )
    parser.add_argument("--seed", type=seeds, default=0, help="of the prompts (default: 0)")


def add_placement(parser: argparse.ArgumentParser) -> None:
    """Where the models run, and in which numbers."""
    parser.add_argument(
        "--device",
        default=AUTO,
        help="auto, cpu, cuda:N, or spread over all GPUs (default: auto, a GPU if there is one)",
    )
    parser.add_argument(
        "--dtype",
        choices=Dtype.__members__,
        default="float32",
        help="numbers of weights and activations (default: float32)",
    )
    parser.add_argument(
        "--tf32", action="store_true", help="let a GPU multiply float32 faster and less exactly"
    )
    parser.add_argument(
        "--ray",
        type=checked_by(cluster),
        metavar="CLUSTER",
        help="let several processes work: local:N here, auto or HOST:PORT on a Ray cluster "
        "(auto/2: two share each GPU)",
    )


def placement_of(options: argparse.Namespace) -> Placement:
    """Where and in which numbers a command runs its models."""
    if "device" not in options:
        return Placement()
    return Placement(options.device, Dtype[options.dtype], options.tf32)


def say_what_is_to_be_known(names: Iterable[str], task: Task) -> None:
    """Say on standard error what a model leaves out of its prompts, and whether it is run whole."""
    for name in names:
        for note in loaded_models.notes_of(name, task):
            say(f"{name}: {note}")


def add_circuit(parser: argparse.ArgumentParser) -> None:
    """Which circuit."""
    parser.add_argument(
        "--circuit", default="base", help="a circuit's name or JSON file (default: base)"
    )


def read_circuit(options: argparse.Namespace) -> Circuit:
    """The circuit that is asked for, by its name or file.

    Raises UserError when there is none, and when it is for another task.
    """
    circuit = catalogue.named_circuit(options.circuit)
    circuit.check_task(task_named(options.task))
    return circuit


def take_prompts(options: argparse.Namespace) -> None:
    """Let the task be the one on the prompts that are asked for, if some are.

    A file is kept first, and what is wrong with its rows is told. Raises UserError for prompts that
    there are not, or that cannot be read.
    """
    given = getattr(options, "prompts_from", None)
    if not given:
        return
    task = task_named(options.task)
    if f"{task.family}/{given}" not in known_tasks():
        file = Path(given).expanduser()
        try:
            content = read(file, MAX_KB * 1024)
        except Absent as error:
            known = [name for name in known_tasks() if name.startswith(f"{task.family}/")]
            names = ", ".join(name.partition("/")[2] for name in known) or "none yet"
            raise UserError(
                f"There are no prompts “{shown(given)[:60]}” for {task.title.lower()}. Give a "
                f"file, or one of those that are kept: {names}."
            ) from error
        given = file.stem
        _, misfits = keep_prompts(task, given, content)
        for misfit in misfits:
            say(f"row {misfit.number} is left out: {misfit.reason}")
        say(f"kept as “{given}”")
    options.task = f"{task.family}/{given}"


def prompts_of(options: argparse.Namespace) -> Prompts:
    """The prompts that are asked for."""
    task = task_named(options.task)
    given = {
        option.name: getattr(options, option.name)
        for each in TASKS.values()
        for option in each.options
    }
    own = {option.name for option in task.options}
    for name in (name for name, value in given.items() if value is not None and name not in own):
        raise UserError(f"{task.title} has no option --{name}. Leave it out.")
    numbers = (
        option.default if given[option.name] is None else given[option.name]
        for option in task.options
    )
    return Prompts(task, options.prompts, options.seed, tuple(numbers))


def measure(request: Request, n_parts: int | None = None) -> tuple[Any, ...]:
    """The parts of a study, or the first few, with progress and a summary on standard error.

    What is stored is not computed again. Raises UserError for what cannot be measured.
    """
    for name in models_of(request):
        loaded_models.fingerprint_of(name)  # an odd name is told before anything is computed
    check_heads(request)
    say_what_is_stored(request, n_parts)
    parts = tuple(islice(studies.run(request, progress()), n_parts))
    say_what_is_to_be_known(models_of(request), request.prompts.task)
    summarise(request, parts)
    say_what_is_at_chance(models_of(request), parts)
    if command := method_of(request).command:
        for line in command.remarks(request, parts):
            say(line)
    return parts


def say_what_is_at_chance(models: Sequence[str], parts: Sequence[Any]) -> None:
    """Say on standard error which models do no better than guessing."""
    for name, choice in choices_of(models, parts).items():
        if text := warning(catalogue.label(name), choice):
            say(f"warning: {text}")


def check_heads(request: Request) -> None:
    """Raise UserError for heads that a model does not have, as far as its files tell."""
    for name in models_of(request):
        found = blueprint(registry.entry(name))
        if not found:
            continue
        if circuit := circuit_of(request):
            circuit.check(found.shape, catalogue.label(name))
        check_sites(method_of(request).sites(request), found.shape, catalogue.label(name))


def say_what_is_stored(request: Request, n_parts: int | None = None) -> None:
    """Say on standard error what need not be computed."""
    stored = studies.find(request)
    if not stored:
        say_what_is_begun(request)
        return
    wanted, there = n_parts or stored.entry.header.n_parts, len(stored.parts)
    date = datetime.fromisoformat(stored.entry.header.date).astimezone()
    if there < wanted:
        say(f"resuming: {there} of {wanted} parts are there, from {date:%Y-%m-%d, %H:%M}")
        say_what_is_begun(request)
    else:
        say(f"stored: measured on {date:%Y-%m-%d, %H:%M}, {stored.entry.path}")


def say_what_is_begun(request: Request) -> None:
    """Say on standard error if not all of the next part need be computed."""
    if studies.is_begun(request):
        say("resuming: an unfinished part is there")


def summarise(request: Request, parts: tuple[Any, ...]) -> None:
    """The main figures on standard error."""
    found = figures(request, parts)
    for item, what, estimate in found[:_SUMMARY]:
        interval = f"[{estimate.low:.3f}, {estimate.high:.3f}]"
        say(f"{item}, {what}: {estimate.value:.3f} {interval}, n = {estimate.n}")
    if len(found) > _SUMMARY:
        say(f"and {len(found) - _SUMMARY} more figures in the result")


def say(text: str) -> None:
    """A line on standard error."""
    print(text, file=sys.stderr, flush=True)


def progress() -> Report:
    """A report on standard error: one line that changes on a screen, few lines in a file."""
    started, pace, told = monotonic(), Pace(), ("", -1.0)

    def report(stage: str, share: float) -> None:
        nonlocal pace, told
        now = monotonic()
        pace = pace.told(share, now)
        share, left = pace.share, pace.seconds_left(now)
        estimate = "" if left is None else f", about {left:.0f} s to go"
        line = f"{stage}: {share:.0%}, {now - started:.0f} s so far{estimate}"
        if sys.stderr.isatty():
            end = "\n" if share >= 1 else ""
            print(f"\r{line:<78}", end=end, file=sys.stderr, flush=True)
        elif stage != told[0] or share >= min(told[1] + 0.1, 1):
            told = stage, share
            say(line)

    return report


def writable(text: str) -> Path:
    """A file that can be written, or one more in a folder that is there; only ordinary ones."""
    try:
        path = Path(text).expanduser()
        reason = obstacle(path)
        is_there = path.absolute().parent.is_dir()
    except (OSError, ValueError, RuntimeError) as error:
        reason, is_there = getattr(error, "strerror", None) or str(error), True
    if not is_there:
        reason = "its folder is not there"
    elif not reason and not os.access(path.absolute().parent, os.W_OK):
        reason = "nothing can be written in its folder"
    if reason:
        raise argparse.ArgumentTypeError(
            f"“{shown(text)[:80]}” cannot be written: {reason}. Choose another file"
        )
    return path
