"""The runs on which path patching works, kept from one question to the next."""

from __future__ import annotations

from dataclasses import dataclass, field

from backend.core.progress import Plan, Progress, Report, step_of
from backend.engine.path_patching.run_pairs import RunPairs
from backend.methods.answering import chosen
from backend.models.fingerprints import Fingerprint
from backend.models.loaded_models import fingerprint_of, load, until_unload
from backend.tasks.chance import ForcedChoice
from backend.tasks.prompts import Prompts


def run_pairs(
    model: str, prompts: Prompts, report: Report, plan: Plan
) -> tuple[RunPairs, ForcedChoice]:
    """The runs that path patching compares, on prompts that the model answers right.

    And how it does beside guessing. Raises UserError when it answers too few right.
    """
    return _run_pairs(_Wanted(model, prompts, fingerprint_of(model), step_of(report, plan, 0, 0)))


@dataclass(frozen=True)
class _Wanted:
    """Runs that are wanted, and who is told how far they are."""

    model: str
    prompts: Prompts
    fingerprint: Fingerprint | None
    progress: Progress = field(compare=False)


@until_unload(maxsize=1)
def _run_pairs(wanted: _Wanted) -> tuple[RunPairs, ForcedChoice]:
    asked, loaded = wanted.prompts, load(wanted.model)
    prompts, choice = chosen(loaded, asked, wanted.progress)
    other = asked.task.counterfactual(loaded.tokenizer, prompts)
    return RunPairs(loaded.model, prompts, other), choice
