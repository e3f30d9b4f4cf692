"""The engine from the command line: results as JSON on standard output, progress on the other.

Everything that is measured is also kept in `cache/local/results`, where the pages find it, and is
not computed again.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from backend.commands import circuit_commands, model_commands
from backend.commands.parts import (
    add_circuit,
    add_command,
    add_models,
    add_placement,
    add_prompts,
    checked_by,
    known_groups,
    measure,
    placement_of,
    progress,
    prompts_of,
    read_circuit,
    say,
    say_what_is_at_chance,
    say_what_is_begun,
    say_what_is_to_be_known,
)
from backend.core.errors import UserError, is_out_of_memory
from backend.core.files import shown, write_atomically
from backend.core.placement import Dtype
from backend.core.progress import Cancelled
from backend.core.serialize import to_json
from backend.methods.accuracy import AccuracyRequest
from backend.methods.faithfulness import FaithfulnessRequest
from backend.methods.stage import Stage
from backend.methods.stages import DEFAULT_FDR, Criteria, next_stage, nothing_to_feed, remark
from backend.models import catalogue, loaded_models
from backend.studies import studies
from backend.studies.stages import found_circuit, run_stages, stage_request, stored_stages
from backend.tasks.circuit import Circuit
from backend.tasks.prompts import Prompts
from backend.tasks.setting import Setting
from backend.tasks.task import Task

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
_KEPT_HEADS = re.compile(r"([A-Z]{1,3})=0*([1-9]\d{0,5})", re.ASCII)
_KEPT = "What was finished is kept: the same command goes on from there."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; returns 0, or 1 after a message about what to put right."""
    options = _parser().parse_args(arguments)
    try:
        loaded_models.place_by_default(placement_of(options))
        result = to_json(options.run(options))
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
    accuracy = add_command(
        commands, "accuracy", _accuracy, "how well models do the task", "accuracy base chat"
    )
    add_models(accuracy)
    add_prompts(accuracy, 1000)
    add_placement(accuracy)
    faithfulness = add_command(
        commands,
        "faithfulness",
        _faithfulness,
        "how much of the models a circuit does alone, with everything else knocked out",
        "faithfulness base arithmetic-full --circuit base",
    )
    add_models(faithfulness)
    add_circuit(faithfulness)
    add_prompts(faithfulness, 1000)
    add_placement(faithfulness)
    discover = add_command(
        commands,
        "discover",
        _discover,
        "find a circuit by path patching, group by group",
        "discover base --prompts 100 --keep A=8 B=6 C=4 D=4 --save found",
    )
    discover.add_argument("model", metavar="MODEL")
    discover.add_argument(
        "--keep",
        nargs="+",
        type=_kept,
        default=[],
        metavar="GROUP=HEADS",
        help="how many heads to keep in a group at most (default: the task’s, such as A=8 B=6 C=4 "
        "D=4)",
    )
    discover.add_argument(
        "--centred",
        action="store_true",
        help="rank heads by their score less the median of their layer",
    )
    discover.add_argument(
        "--fdr",
        type=_rate,
        default=DEFAULT_FDR,
        metavar="Q",
        help="keep heads that are clear at this false discovery rate among all that were tried "
        f"(Benjamini-Hochberg; default: {DEFAULT_FDR}; 1: every head with a negative score)",
    )
    discover.add_argument(
        "--save",
        type=checked_by(catalogue.circuit_name),
        metavar="NAME",
        help="keep the circuit under this name, for the dashboard and for --circuit",
    )
    add_prompts(discover, 100)
    add_placement(discover)
    circuit_commands.add_to(commands)
    return parser


def _kept(text: str) -> tuple[str, int]:
    match = _KEPT_HEADS.fullmatch(text)
    if not match or match[1] not in known_groups():
        raise argparse.ArgumentTypeError(
            f"“{shown(text)[:40]}” is not like B=6: a group, then heads"
        )
    return match[1], int(match[2])


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate <= 1:
        raise argparse.ArgumentTypeError(f"“{text}” is not a rate above 0 and up to 1, like 0.05")
    return rate


def _accuracy(options: argparse.Namespace) -> Any:
    request = AccuracyRequest(tuple(options.models), prompts_of(options))
    return studies.as_data(request, measure(request))


def _faithfulness(options: argparse.Namespace) -> Any:
    circuit = read_circuit(options)
    request = FaithfulnessRequest(tuple(options.models), circuit, prompts_of(options))
    return studies.as_data(request, measure(request))


def _discover(options: argparse.Namespace) -> Any:
    setting = Setting(options.model, prompts_of(options))
    task = setting.prompts.task
    criteria = Criteria(dict(options.keep), options.centred, options.fdr)
    for key in criteria.sizes.keys() - {*task.keys}:
        raise UserError(f"{task.title} has no group “{key}”. Choose of {', '.join(task.keys)}.")
    loaded_models.fingerprint_of(options.model)  # an odd name is told before anything is computed
    stored = [found.parts[0] for found in stored_stages(setting, criteria)]
    if stored:
        say(f"resuming: {len(stored)} of {len(task.groups)} stages are there")
    if following := next_stage(task, stored, criteria):
        say_what_is_begun(stage_request(setting, *following))
    stages = [*run_stages(setting, criteria, (), task.keys[-1], progress())]
    say_what_is_to_be_known([options.model], task)
    _say_how_noisy(options.model, task)
    circuit = found_circuit(setting, stages, criteria, options.save or options.model)
    _say_what_was_found(task, stages, criteria)
    say_what_is_at_chance([options.model], stages)
    results = [
        studies.as_data(stage_request(setting, task.group(each.group), each.receivers), (each,))
        for each in stages
    ]
    return circuit.as_data() | {"results": results}


def _say_what_was_found(task: Task, stages: Sequence[Stage], criteria: Criteria) -> None:
    found = {stage.group: stage for stage in stages}
    for group in task.groups:
        if group.key not in found:
            say(f"{group.key}: {nothing_to_feed(group)}")
            continue
        stage = found[group.key]
        heads = [
            f"{head} {stage.mean[head]:+.4f} (z {stage.z(head):+.1f})"
            for head in criteria.kept(group, stage)
        ]
        say(f"{group.key}: {', '.join(heads) or 'none'}; n = {stage.n}")
        if remarked := remark(group, stage, criteria):
            say(f"{group.key}: {remarked}")


def _say_how_noisy(name: str, task: Task) -> None:
    loaded = loaded_models.loaded().get(name)
    if loaded and loaded.placement.dtype is not Dtype.float32:
        from backend.methods.noise import N_PROMPTS, probe, verdict

        try:
            say(verdict(probe(loaded, Prompts(task, N_PROMPTS, 0)), loaded.placement.dtype))
        except UserError as error:  # it says nothing of what was found
            say(f"What rounding does cannot be told: {error}")
