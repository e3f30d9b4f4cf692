"""The subcommand that finds a circuit, stage by stage."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import Any

from backend.cluster import keeping
from backend.commands.discover_preview import (
    add_preview,
    check_preview,
    is_preview,
    look_of,
    preview,
)
from backend.commands.discover_search import add_search, check_search, searched
from backend.commands.method_commands import add_choice, choice_of
from backend.commands.parts import (
    add_command,
    add_placement,
    add_prompts,
    progress,
    prompts_of,
    say,
    say_what_is_at_chance,
    say_what_is_begun,
    say_what_is_to_be_known,
)
from backend.core.arguments import checked_by
from backend.core.errors import UserError
from backend.core.files import shown
from backend.methods.requests import SCORES
from backend.methods.stage import Stage
from backend.methods.stages import DEFAULT_FDR, Criteria, next_stage, nothing_to_feed, remark
from backend.models import catalogue, loaded_models
from backend.studies import studies
from backend.studies.stages import found_circuit, run_stages, stage_request, stored_stages
from backend.tasks.prompts import N_PATCHED
from backend.tasks.registry import known_groups
from backend.tasks.setting import Setting
from backend.tasks.task import Task

_KEPT_HEADS = re.compile(r"([A-Z]{1,3})=0*([1-9]\d{0,5})", re.ASCII)


def add_to(commands: Any) -> None:
    """Add discover."""
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
    add_search(discover)
    add_preview(discover)
    add_choice(discover, "score", SCORES)
    add_prompts(discover, N_PATCHED)
    add_placement(discover)


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


def _discover(options: argparse.Namespace) -> Any:
    check_preview(options)
    check_search(options)
    setting = Setting(options.model, prompts_of(options))
    task = setting.prompts.task
    criteria = Criteria(dict(options.keep), options.centred, options.fdr)
    score = choice_of(options, "score", SCORES)
    for key in criteria.sizes.keys() - {*task.keys}:
        raise UserError(f"{task.title} has no group “{key}”. Choose of {', '.join(task.keys)}.")
    loaded_models.fingerprint_of(options.model)  # an odd name is told before anything is computed
    if is_preview(options):
        return preview(look_of(options, setting, criteria, score), options)
    stored = [found.parts[0] for found in stored_stages(setting, criteria, score)]
    if stored:
        say(f"resuming: {len(stored)} of {len(task.groups)} stages are there")
    if following := next_stage(task, stored, criteria):
        say_what_is_begun(stage_request(setting, *following, score))
    stages = [*run_stages(setting, criteria, (), task.keys[-1], progress(), score)]
    say_what_is_to_be_known([options.model], task)
    _say_how_noisy(options.model, task)
    circuit = found_circuit(setting, stages, criteria, options.save or options.model)
    _say_what_was_found(task, stages, criteria)
    say_what_is_at_chance([options.model], stages)
    results = [
        studies.as_data(
            stage_request(setting, task.group(each.group), each.receivers, score), (each,)
        )
        for each in stages
    ]
    if options.until is not None:
        circuit, result = searched(options, setting, stages, criteria, score, circuit)
        results.append(result)
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
    """In the words of the process that has the model."""
    if loaded := loaded_models.loaded().get(name):
        from backend.methods.noise import told

        text = told(loaded, task)
    else:
        text = keeping.ask("rounding", name, task.name)
    if text:
        say(text)
