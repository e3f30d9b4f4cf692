"""Discovery stage by stage: what is stored is there at once, and the rest goes on from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from backend import studies
from backend.circuit import Circuit, Group, Head
from backend.jobs import Report
from backend.requests import Prompts, StageRequest
from backend.results import Discovery, Stage
from backend.setting import Setting

DEFAULT_SIZES: Mapping[Group, int] = {Group.A: 8, Group.B: 6, Group.C: 4, Group.D: 4}
"""How many heads the groups keep unless told otherwise."""
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
    todo = list(Group)[len(stages) : list(Group).index(until) + 1]
    total = sum(_COSTS[group] for group in todo)
    for place, group in enumerate(todo):
        before = sum(_COSTS[earlier] for earlier in todo[:place])
        told = partial(_stretched, report, before / total, _COSTS[group] / total)
        (found,) = studies.run(stage_request(setting, stages, sizes, centred), told)
        stages.append(found)
        yield found


def stored_stages(
    setting: Setting, sizes: Mapping[Group, int], centred: bool
) -> list[studies.Stored]:
    """The stages that are in the store, from A on."""
    found: list[studies.Stored] = []
    for _ in Group:
        stages = [stored.parts[0] for stored in found]
        request = stage_request(setting, stages, sizes, centred)
        stored = studies.find(request, patiently=False)
        if not stored:
            break
        found.append(stored)
    return found


def stage_request(
    setting: Setting, earlier: Sequence[Stage], sizes: Mapping[Group, int], centred: bool
) -> StageRequest:
    """The stage that comes after these."""
    prompts = Prompts(setting.n, setting.boxes, setting.seed)
    group = list(Group)[len(earlier)]
    return StageRequest(setting.model, prompts, group, receivers(earlier, sizes, centred))


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


def _stretched(report: Report, start: float, length: float, stage: str, share: float) -> None:
    report(stage, start + length * share)
