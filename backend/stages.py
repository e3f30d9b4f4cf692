"""Discovery stage by stage: what is found is there at once, and the rest goes on from it.

Importing this module imports torch: pages reach it from a background job.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from backend.circuit import Circuit, Group, Head
from backend.discovery import Discovery, Stage, find_stage
from backend.jobs import Report
from backend.reports import correctly_answered
from backend.run_pairs import RunPairs
from backend.setting import Setting
from backend.shelf import load, until_unload
from backend.tasks import counterfactual_prompts

_PREPARED = 0.35
_COSTS = {Group.A: 1, Group.B: 1, Group.C: 2, Group.D: 4}
"""Roughly how long the stages take, relative to each other: earlier tokens have more after them."""


def run_stages(
    setting: Setting,
    sizes: Mapping[Group, int],
    centred: bool,
    done: Sequence[Stage],
    until: Group,
    report: Report,
) -> Iterator[Stage]:
    """The stages after those that are `done`, `until` the last one asked for.

    The heads kept in a group are the receivers of the next stage. Raises UserError when the model
    cannot be loaded or answers too few prompts right.
    """
    stages = list(done)
    pairs = run_pairs(Wanted(setting, report))
    todo = list(Group)[len(stages) : list(Group).index(until) + 1]
    total = sum(_COSTS[group] for group in todo)
    for place, group in enumerate(todo):
        before = sum(_COSTS[earlier] for earlier in todo[:place])

        def steps(n_done: int, n: int, group: Group = group, before: int = before) -> None:
            share = (before + _COSTS[group] * n_done / n) / total
            name = f"Stage {group.name}, {group.value}"
            report(name, _PREPARED + (1 - _PREPARED) * share)

        steps(0, 1)
        stages.append(find_stage(pairs, group, receivers(stages, sizes, centred), steps))
        yield stages[-1]


def receivers(
    earlier: Sequence[Stage], sizes: Mapping[Group, int], centred: bool
) -> tuple[Head, ...]:
    """The heads that the stage after these feeds; none of the first, which feeds the logits."""
    if not earlier:
        return ()
    group = list(Group)[len(earlier) - 1]
    return earlier[-1].strongest(sizes[group], centred=centred)


def n_valid(stages: Sequence[Stage], sizes: Mapping[Group, int], centred: bool) -> int:
    """How many stages, from A on, have the receivers that these sizes ask for."""
    for place, stage in enumerate(stages):
        if stage.receivers != receivers(stages[:place], sizes, centred):
            return place
    return len(stages)


def found_circuit(
    setting: Setting,
    stages: Sequence[Stage],
    sizes: Mapping[Group, int],
    centred: bool,
    name: str,
) -> Circuit:
    """The circuit of four stages, with all that it takes to find it again."""
    about = {
        "model": setting.model,
        "method": "path patching on correctly answered prompts",
        "seed": setting.seed,
        "boxes": setting.boxes,
    }
    found = Discovery(dict(zip(Group, stages, strict=True)), setting.n)
    return found.circuit(sizes, name, about, centred)


@dataclass(frozen=True)
class Wanted:
    """A setting whose runs are wanted, and who is told how far they are."""

    setting: Setting
    report: Report = field(compare=False)


@until_unload(maxsize=1)
def run_pairs(wanted: Wanted) -> RunPairs:
    """The runs that path patching compares, on prompts that the model answers right."""
    setting = wanted.setting

    def steps(done: int, total: int) -> None:
        share = 0.04 + (_PREPARED - 0.04) * done / total
        wanted.report("Choosing prompts that the model answers right", share)

    wanted.report("Loading the model", 0.02)
    loaded = load(setting.model)
    steps(0, 1)
    prompts = correctly_answered(loaded, setting.n, setting.boxes, setting.seed, steps)
    return RunPairs(loaded.model, prompts, counterfactual_prompts(loaded.tokenizer, prompts))
