"""Discovery stage by stage: what is stored is there at once, and the rest goes on from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from backend.core.heads import Head
from backend.core.metrics import Score
from backend.core.progress import Report
from backend.methods.plans import chosen_step, scale_of
from backend.methods.stage import Stage, StageRequest, stage_step
from backend.methods.stages import Criteria, Discovery, next_stage, stages_in_order
from backend.studies import studies
from backend.tasks.circuit import Circuit
from backend.tasks.setting import Setting
from backend.tasks.task import Group

_HIGHEST, _LOWEST = 1.0, 0.5
"""How high in a model receivers are taken to be before they are found: of the first group, of the
last."""


def run_stages(
    setting: Setting,
    criteria: Criteria,
    done: Sequence[Stage],
    until: str,
    report: Report,
    score: Score = Score.probability,
) -> Iterator[Stage]:
    """The stages after those that are `done`, `until` the key of the last group asked for.

    Raises UserError when the model cannot be loaded or answers too few prompts right.
    """
    task = setting.prompts.task
    first = max((task.keys.index(stage.group) for stage in done), default=-1) + 1
    last = task.keys.index(until)
    costs = expected_costs(setting, task.groups)

    def ask(group: Group, receivers: tuple[Head, ...]) -> Stage:
        place = task.keys.index(group.key)
        start, end = (
            sum(costs[first:stop]) / sum(costs[first : last + 1]) for stop in (place, place + 1)
        )

        def told(stage: str, share: float) -> None:
            report(stage, start + (end - start) * share)

        (found,) = studies.run(stage_request(setting, group, receivers, score), told)
        return found

    yield from stages_in_order(task, criteria, ask, done, until)


def stage_request(
    setting: Setting,
    group: Group,
    receivers: tuple[Head, ...],
    score: Score = Score.probability,
) -> StageRequest:
    """One stage, as it is asked for."""
    return StageRequest(setting.model, setting.prompts, group.key, receivers, score)


def expected_costs(setting: Setting, groups: Sequence[Group]) -> list[float]:
    """What each of these stages is expected to cost, in tokens that pass a layer."""
    prompts = setting.prompts
    scale = scale_of(setting.model, prompts)
    chosen, keys = chosen_step(scale, prompts.n).cost, prompts.task.keys

    def cost(group: Group) -> float:
        depth = keys.index(group.key) / max(1, len(keys) - 1)
        receiving = {int((_HIGHEST + depth * (_LOWEST - _HIGHEST)) * scale.n_layers)}
        return chosen + stage_step(scale, prompts.n, group, receiving).cost

    return [cost(group) for group in groups]


def stored_stages(
    setting: Setting, criteria: Criteria, score: Score = Score.probability
) -> list[studies.Stored]:
    """The stages that are in the store, from the first group on."""
    found: list[studies.Stored] = []
    task = setting.prompts.task
    while following := next_stage(task, [stored.parts[0] for stored in found], criteria):
        stored = studies.find(stage_request(setting, *following, score), patiently=False)
        if not stored:
            break
        found.append(stored)
    return found


def found_circuit(
    setting: Setting, stages: Sequence[Stage], criteria: Criteria, name: str
) -> Circuit:
    """The circuit of all stages that there are, with all that it takes to find it again."""
    prompts = setting.prompts
    options = dict(zip((o.name for o in prompts.task.options), prompts.options, strict=True))
    about = {
        "model": setting.model,
        "method": "path patching on correctly answered prompts",
        "seed": prompts.seed,
        **options,
    }
    return Discovery(prompts.task, tuple(stages), prompts.n).circuit(criteria, name, about)
