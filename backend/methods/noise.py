"""Does a model in rough numbers still tell its scores from rounding?

A short discovery, on few prompts, in float32 and in the model's own numbers (16 bits, or TF32) with
the same weights and the same receivers: what differs is rounding. Where that is as large as the
scores themselves, heads cannot be ranked.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from backend.core.errors import UserError
from backend.core.heads import Head
from backend.core.placement import Dtype
from backend.core.progress import Progress, between, silent
from backend.core.runtime import at_work
from backend.engine.path_patching.run_pairs import RunPairs
from backend.methods.answering import correctly_answered
from backend.methods.discovery import find_stage
from backend.methods.stage import Stage
from backend.models.loaded_models import until_unload
from backend.models.loading import LoadedModel, in_float32
from backend.tasks.prompts import Prompts
from backend.tasks.task import Group, Task

N_PROMPTS = 8


@dataclass(frozen=True)
class Noise:
    """Rounding against scores, for the heads of one stage.

    noise: the largest difference between a head's scores in the two; largest, weakest: the
    largest and the smallest score, without its sign, of the heads that would be kept in float32.
    """

    group: str
    noise: float
    largest: float
    weakest: float
    prompts: Prompts

    @property
    def drowns(self) -> bool:
        """Whether rounding is as large as the largest score."""
        return self.noise >= self.largest

    @property
    def blurs(self) -> bool:
        """Whether rounding is as large as the weakest score that would be kept."""
        return self.noise >= self.weakest


def probe(
    loaded: LoadedModel,
    prompts: Prompts,
    progress: Progress = silent,
) -> tuple[Noise, ...]:
    """The noise of a model's numbers in each group, on prompts that it answers right in float32.

    Raises UserError when the model answers too few prompts right.
    """
    exact = _exact(loaded)
    task, answered = prompts.task, correctly_answered(exact, prompts)
    counterfactual = task.counterfactual(loaded.tokenizer, answered)
    pairs = [(one, RunPairs(one.model, answered, counterfactual)) for one in (exact, loaded)]
    found = []
    strongest: dict[str, tuple[Head, ...]] = {}
    for number, group in enumerate(task.groups):
        receivers = tuple(sorted({head for key in group.into for head in strongest[key]}))
        told = [
            between(
                progress,
                (number + i / 2) / len(task.groups),
                (number + (i + 1) / 2) / len(task.groups),
            )
            for i in (0, 1)
        ]
        stage, rough = (
            _stage(*pair, group, receivers, step) for pair, step in zip(pairs, told, strict=True)
        )
        strongest[group.key] = stage.strongest(group.size)
        kept = [abs(float(stage.mean[head])) for head in strongest[group.key]]
        noise = float(abs(stage.mean - rough.mean).max())
        largest, weakest = max(kept, default=0.0), min(kept, default=0.0)
        found.append(Noise(group.key, noise, largest, weakest, prompts))
    return tuple(found)


def _exact(loaded: LoadedModel) -> LoadedModel:
    """The same weights in float32, without TF32."""
    return replace(
        loaded,
        model=in_float32(loaded.model),
        placement=replace(loaded.placement, dtype=Dtype.float32, tf32=False),
        runtime=loaded.runtime and replace(loaded.runtime, tf32=False),
    )


def _stage(
    loaded: LoadedModel,
    pairs: RunPairs,
    group: Group,
    receivers: tuple[Head, ...],
    progress: Progress,
) -> Stage:
    with at_work(loaded.runtime):
        return find_stage(pairs, group, receivers, progress)


@until_unload(maxsize=8)
def said(loaded: LoadedModel, task: Task) -> tuple[str, bool]:
    """The verdict on a model that is loaded, and whether it is a warning; asked once.

    Raises UserError like `probe`.
    """
    found = probe(loaded, Prompts(task, N_PROMPTS, 0))
    return verdict(found, loaded.placement.numbers), any(each.blurs for each in found)


def told(loaded: LoadedModel, task: Task) -> str:
    """The verdict on a model that is loaded, or why there is none; empty if its numbers do not
    round."""
    if not loaded.placement.rounds:
        return ""
    try:
        return said(loaded, task)[0]
    except UserError as error:  # it says nothing of what was found
        return f"What rounding does cannot be told: {error}"


def verdict(found: tuple[Noise, ...], numbers: str) -> str:
    """What the noise of numbers, named in words, means for discovery, in a sentence or two."""
    drowned = [each.group for each in found if each.drowns]
    blurred = [each.group for each in found if each.blurs and not each.drowns]
    sizes = "; ".join(
        f"{each.group} {each.noise:.2g} (scores {each.weakest:.2g} to {each.largest:.2g})"
        for each in found
    )
    said = []
    if drowned:
        said.append(
            f"In {_list(drowned)}, rounding in {numbers} is larger than every score: "
            "use float32 there."
        )
    if blurred:
        said.append(
            f"In {_list(blurred)}, rounding in {numbers} is as large as the weakest scores "
            "that are kept: which heads come last is not certain."
        )
    if not said:
        said.append(f"Rounding in {numbers} is smaller than the scores in every group.")
    return f"{' '.join(said)} Largest rounding error: {sizes}; {found[0].prompts}."


def _list(groups: list[str]) -> str:
    return " and ".join(groups) if len(groups) < 3 else f"{', '.join(groups[:-1])} and {groups[-1]}"
