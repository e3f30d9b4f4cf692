"""Discovery stage by stage: what is stored is there at once, and the rest goes on from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from backend.core.circuit import Circuit, Group, Head
from backend.core.progress import Report
from backend.methods.plans import chosen_step, scale_of, stage_step
from backend.methods.requests import Prompts, StageRequest, prompts_of
from backend.methods.results import LEAST_EFFECT_WHEN_SATURATED, NO_TEST, Criteria, Discovery, Stage
from backend.studies import studies
from backend.tasks.setting import Setting

_RECEIVING = {Group.A: 1.0, Group.B: 0.8, Group.C: 0.65, Group.D: 0.5}
"""How high in a model the receivers of a stage are taken to be, before they are found."""


def run_stages(
    setting: Setting,
    criteria: Criteria,
    done: Sequence[Stage],
    until: Group,
    report: Report,
) -> Iterator[Stage]:
    """The stages after those that are `done`, `until` the last one asked for.

    The heads kept in a group are the receivers of the next stage; after a group without any, there
    is none. Raises UserError when the model cannot be loaded or answers too few prompts right.
    """
    stages = list(done)
    todo = list(Group)[len(stages) : list(Group).index(until) + 1]
    costs = expected_costs(setting, todo)
    for place in range(len(todo)):
        if following(stages, criteria) is None:
            return
        start, end = (sum(costs[:end]) / sum(costs) for end in (place, place + 1))
        told = partial(_stretched, report, start, end - start)
        (found,) = studies.run(stage_request(setting, stages, criteria), told)
        stages.append(found)
        yield found


def expected_costs(setting: Setting, groups: Sequence[Group]) -> list[float]:
    """What each of these stages is expected to cost, in tokens that pass a layer."""
    scale = scale_of(setting.model, prompts_of(setting))
    chosen = chosen_step(scale, setting.n).cost

    def cost(group: Group) -> float:
        receiving = {int(_RECEIVING[group] * scale.n_layers)}
        return chosen + stage_step(scale, setting.n, group, receiving).cost

    return [cost(group) for group in groups]


def stored_stages(setting: Setting, criteria: Criteria) -> list[studies.Stored]:
    """The stages that are in the store, from A on."""
    found: list[studies.Stored] = []
    while following(stages := [stored.parts[0] for stored in found], criteria):
        request = stage_request(setting, stages, criteria)
        stored = studies.find(request, patiently=False)
        if not stored:
            break
        found.append(stored)
    return found


def following(stages: Sequence[Stage], criteria: Criteria) -> Group | None:
    """The stage to run after these; None when all are there, or the last one keeps no head."""
    if len(stages) == len(Group) or (stages and not receivers(stages, criteria)):
        return None
    return list(Group)[len(stages)]


def stage_request(setting: Setting, earlier: Sequence[Stage], criteria: Criteria) -> StageRequest:
    """The stage that comes after these."""
    prompts = Prompts(setting.n, setting.boxes, setting.seed)
    group = list(Group)[len(earlier)]
    return StageRequest(setting.model, prompts, group, receivers(earlier, criteria))


def receivers(earlier: Sequence[Stage], criteria: Criteria) -> tuple[Head, ...]:
    """The heads that the stage after these feeds; none of the first, which feeds the logits."""
    return criteria.kept(list(Group)[len(earlier) - 1], earlier[-1]) if earlier else ()


def n_valid(stages: Sequence[Stage], criteria: Criteria) -> int:
    """How many stages, from A on, have the receivers that these criteria ask for."""
    for place, stage in enumerate(stages):
        before = stages[:place]
        if not following(before, criteria) or stage.receivers != receivers(before, criteria):
            return place
    return len(stages)


def found_circuit(
    setting: Setting, stages: Sequence[Stage], criteria: Criteria, name: str
) -> Circuit:
    """The circuit of all stages that there are, with all that it takes to find it again."""
    about = {
        "model": setting.model,
        "method": "path patching on correctly answered prompts",
        "seed": setting.seed,
        "boxes": setting.boxes,
    }
    found = Discovery(dict(zip(Group, stages, strict=False)), setting.n)
    return found.circuit(criteria, name, about)


def remark(group: Group, stage: Stage, criteria: Criteria) -> str | None:
    """What must be known of a stage's scores and of what it keeps; None if nothing."""
    is_tested, said = criteria.fdr < NO_TEST, []
    if stage.is_saturated:
        only = f"Only those below −{LEAST_EFFECT_WHEN_SATURATED:g} count. " if is_tested else ""
        said.append(
            "The score is saturated: the right answer has a probability of "
            f"{stage.clean_probability:.4f} with nothing patched, and heads that matter may hardly "
            f"change it. {only}Another metric is needed, such as the logit difference."
        )
    if not criteria.kept(group, stage):
        said.append(
            f"No head is clear among the {stage.n_tried} that were tried (false discovery rate "
            f"{criteria.fdr:g}, n = {stage.n}): none is kept."
            if is_tested
            else "No head has a negative score: none is kept."
        )
    return " ".join(said) or None


def nothing_to_feed(before: Group) -> str:
    """Why a stage is not run when an earlier one, `before`, keeps no head."""
    return f"Not run: {before.name} keeps no head, so there is nothing to feed."


def _stretched(report: Report, start: float, length: float, stage: str, share: float) -> None:
    report(stage, start + length * share)
