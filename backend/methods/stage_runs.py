"""One stage of discovery, and the runs on which path patching works.

Importing this module imports torch: pages reach it from a background job.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from backend.core.progress import Plan, Progress, Report, step_of
from backend.core.runtime import at_work
from backend.engine.path_patching.run_pairs import RunPairs
from backend.engine.path_patching.scores import scores_of
from backend.methods.discovery import summarised
from backend.methods.reports import chosen
from backend.methods.requests import StageRequest
from backend.methods.stages import Stage
from backend.models.fingerprints import Fingerprint
from backend.models.loaded_models import fingerprint_of, load, until_unload
from backend.tasks.chance import ForcedChoice
from backend.tasks.prompts import Prompts


def stage(request: StageRequest, report: Report, plan: Plan, kept_in: Path | None) -> Stage:
    """Every head as a sender to the request's receivers.

    Scores of finished batches of prompts are kept in a folder, if there is one, and taken from
    there. Raises UserError when the model cannot be loaded or answers too few prompts right.
    """
    pairs, choice = _prepared(request.model, request.prompts, report, plan)
    told = step_of(report, plan, 0, 1)
    with at_work(load(request.model).runtime):
        scores = scores_of(
            pairs, request.group, request.receivers, told, kept_in=kept_in, score=request.score
        )
        found = summarised(request.group, scores, request.receivers, pairs.clean_probability)
    return replace(found, forced_choice=choice, score=request.score)


def run_pairs(model: str, prompts: Prompts, report: Report, plan: Plan) -> RunPairs:
    """The runs that path patching compares, on prompts that the model answers right."""
    return _prepared(model, prompts, report, plan)[0]


def _prepared(
    model: str, prompts: Prompts, report: Report, plan: Plan
) -> tuple[RunPairs, ForcedChoice]:
    """The runs, and how the model does beside guessing."""
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
