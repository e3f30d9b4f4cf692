"""One stage of discovery, batch of prompts by batch: what is finished outlives the process.

Importing this module imports torch: pages reach it from a background job.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as read_tensors
from safetensors.torch import save as tensors_as_bytes
from torch import Tensor

from backend.anatomy import shape_of
from backend.discovery import summarised
from backend.files import write_atomically
from backend.fingerprints import Fingerprint, fingerprint
from backend.jobs import Report
from backend.path_patching import scores_of
from backend.reports import correctly_answered
from backend.requests import Prompts, StageRequest
from backend.results import Stage
from backend.run_pairs import RunPairs
from backend.shelf import load, until_unload
from backend.tasks import counterfactual_prompts

_PREPARED = 0.35


def stage(request: StageRequest, report: Report, kept_in: Path | None) -> Stage:
    """Every head as a sender to the request's receivers.

    Scores of finished batches of prompts are kept in a folder, if there is one, and taken from
    there. Raises UserError when the model cannot be loaded or answers too few prompts right.
    """
    pairs = run_pairs(request.model, request.prompts, report)
    name = f"Stage {request.group.name}, {request.group.value}"
    scores = []
    for batch, alone in pairs.batches():

        def steps(done: int, total: int, batch: slice = batch) -> None:
            n_done = batch.start + (batch.stop - batch.start) * done / total
            report(name, _PREPARED + (1 - _PREPARED) * n_done / pairs.n_prompts)

        steps(0, 1)
        file = kept_in / f"{batch.start}-{batch.stop}.safetensors" if kept_in else None
        kept = _read(file, alone) if file else None
        if kept is None:
            kept = scores_of(alone, request.group, request.receivers, steps)
            if file and alone.n_prompts < pairs.n_prompts:
                with suppress(OSError):  # then it is only computed again
                    write_atomically(file, tensors_as_bytes({"scores": kept}))
        scores.append(kept)
    return summarised(torch.cat(scores), request.receivers)


def _read(file: Path, pairs: RunPairs) -> Tensor | None:
    """Scores that were kept; None if there are none, or none that fit."""
    shape = shape_of(pairs.model)
    try:
        kept = read_tensors(file.read_bytes())["scores"]
    except (OSError, SafetensorError, KeyError):
        return None
    fits = kept.shape == (pairs.n_prompts, shape.n_layers, shape.n_heads)
    return kept if fits and kept.isfinite().all() else None


def run_pairs(model: str, prompts: Prompts, report: Report) -> RunPairs:
    """The runs that path patching compares, on prompts that the model answers right."""
    return _run_pairs(_Wanted(model, prompts, fingerprint(model), report))


@dataclass(frozen=True)
class _Wanted:
    """Runs that are wanted, and who is told how far they are."""

    model: str
    prompts: Prompts
    fingerprint: Fingerprint | None
    report: Report = field(compare=False)


@until_unload(maxsize=1)
def _run_pairs(wanted: _Wanted) -> RunPairs:
    asked = wanted.prompts

    def steps(done: int, total: int) -> None:
        share = 0.04 + (_PREPARED - 0.04) * done / total
        wanted.report("Choosing prompts that the model answers right", share)

    wanted.report("Loading the model", 0.02)
    loaded = load(wanted.model)
    steps(0, 1)
    prompts = correctly_answered(loaded, asked.n, asked.boxes, asked.seed, steps)
    return RunPairs(loaded.model, prompts, counterfactual_prompts(loaded.tokenizer, prompts))
