"""The engine from the command line: results as JSON on standard output, progress on the other.

Everything that is measured is also kept in `cache/local/results`, where the pages find it, and is
not computed again.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

from backend.cluster import keeping
from backend.commands import discover_command, method_commands, model_commands, task_commands
from backend.commands.parts import placement_of, say, take_prompts
from backend.core.errors import UserError, is_out_of_memory
from backend.core.files import write_atomically
from backend.core.progress import Cancelled
from backend.core.serialize import to_json
from backend.models import catalogue, loaded_models
from backend.studies import remote, studies
from backend.tasks.circuit import Circuit

_EXAMPLES = """examples:
  python -m backend models
  python -m backend accuracy base arithmetic-lora --prompts 1000
  python -m backend faithfulness base chat --circuit base
  python -m backend discover base --prompts 100 --keep A=8 B=6 C=4 D=4 --save found
  python -m backend compare base arithmetic-lora chat --out family.json
  python -m backend cmap arithmetic-full base --part v
  python -m backend accuracy ~/models/my-llama --task ioi --seed 3
  python -m backend add mine owner/name && python -m backend discover mine --device cuda:0
"""

_log = logging.getLogger(__name__)
_KEPT = "What was finished is kept: the same command goes on from there."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; returns 0, or 1 after a message about what to put right."""
    options = _parser().parse_args(arguments)
    try:
        loaded_models.place_by_default(placement_of(options))
        studies.work_on(getattr(options, "ray", None))
        _ask_cluster(options)
        take_prompts(options)
        result = _result(options)
    except Cancelled:
        say(f"stopped from the dashboard. {_KEPT}")
        return 130
    except KeyboardInterrupt:
        say(f"\nstopped. {_KEPT}")
        return 130
    except Exception as error:
        say(f"error: {_failure(error)}")
        _log.debug("where it failed", exc_info=True)
        return 1
    # What was computed is told first, whatever else then fails.
    failures = [_deliver(json.dumps(result, indent=2) + "\n", options.out), _save(result, options)]
    for failure in filter(None, failures):
        say(f"error: {failure}")
    return 1 if any(failures) else 0


def _result(options: argparse.Namespace) -> Any:
    """What libraries say is no part of it; Ray speaks to its end."""
    with redirect_stdout(sys.stderr):
        try:
            return to_json(options.run(options))
        finally:
            keeping.let_go()
            remote.leave()


def _ask_cluster(options: argparse.Namespace) -> None:
    """Where work is on a cluster, a model that is not here may be there."""
    where, given = studies.where_work_is(), vars(options)
    named = [given.get(role) for role in ("model", "source", "target")]
    names = {*given.get("models", ()), *filter(None, named)}
    if "ray" in given and where and where.address and not all(map(remote.is_here, names)):
        say(f"asking {where} for its models")
        remote.ask_for_models(where, lambda stage, share: None)


def _failure(error: Exception) -> str:
    if isinstance(error, UserError):
        return str(error)
    what = f"{type(error).__name__}: {error}."
    if is_out_of_memory(error):
        return f"{what} {_KEPT} Fewer prompts need less memory."
    return f"{what} {_KEPT} If it fails again, choose another model or other options."


def _deliver(text: str, out: Path | None) -> str | None:
    """Write the result where it was asked for; else why it is not there."""
    if out:
        try:
            write_atomically(out, text)
        except OSError as error:
            failure = f"{out} cannot be written ({error.strerror})."
            return _deliver(text, None) or f"{failure} The result stands on standard output."
        say(f"written to {out}")
        return None
    try:
        print(text, end="", flush=True)
    except OSError as error:
        # Or else Python tries once more at its end, and complains.
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return f"The result cannot be printed ({error.strerror}). Use --out FILE on another disk."
    return None


def _save(result: Any, options: argparse.Namespace) -> str | None:
    """Keep a circuit that was found, if asked to; else why it is not kept."""
    if not getattr(options, "save", None):
        return None
    try:
        catalogue.add_circuit(options.save, Circuit.from_data(result).to_json().encode())
    except UserError as error:
        return str(error)
    return None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m backend",
        description="Find and measure the circuit of a language model for a task. A MODEL is "
        "a name that the command models lists, the folder of a Hugging Face model, or a hub "
        "name such as owner/name.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    model_commands.add_to(commands)
    task_commands.add_to(commands)
    discover_command.add_to(commands)
    method_commands.add_to(commands)
    return parser
