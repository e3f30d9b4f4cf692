"""Evaluations against whole runs in float64, for every ablation."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from backend.core.circuit import Group, Site
from backend.core.metrics import Ablation
from backend.engine import memory
from backend.methods.compare import as_in_paper
from backend.methods.evaluation import Evaluation
from backend.tasks.entity_tracking import counterfactual_prompts
from tests import oracles
from tests.circuits import CIRCUIT, TOKENIZER, Examined

QUESTIONS: list[Collection[Site]] = [CIRCUIT.sites, CIRCUIT.sites_of([Group.A]), frozenset()]


@cache
def examined(kind: str) -> Examined:
    return Examined(kind)


@cache
def expected(kind: str, ablation: Ablation) -> tuple[Tensor, Tensor]:
    """Logits [questions, n, vocab] of circuits alone, and of the model without their heads."""
    of = examined(kind)
    other = counterfactual_prompts(TOKENIZER, of.prompts)
    off = oracles.off_values(of.model, of.prompts, of.reference, other, ablation)
    alone = [oracles.circuit_among(of.model, of.prompts, off, sites) for sites in QUESTIONS]
    without = [oracles.model_giving(of.model, of.prompts, off, sites) for sites in QUESTIONS]
    return torch.stack(alone), torch.stack(without)


def evaluation(kind: str, ablation: Ablation) -> Evaluation:
    of = examined(kind)
    return Evaluation(of.evaluation.loaded, of.prompts, of.reference, ablation)


@pytest.fixture(params=["30", "7"])
def _chunk(request: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """All prompts in one batch, or in five."""
    monkeypatch.setenv("CIRCUIT_EXPLORER_CHUNK", request.param)


@pytest.mark.usefixtures("_chunk")
@pytest.mark.parametrize("ablation", Ablation)
@pytest.mark.parametrize("kind", ["grouped", "granite"])
def test_right_answers_are_those_of_whole_runs(kind: str, ablation: Ablation) -> None:
    asked, (alone, without) = evaluation(kind, ablation), expected(kind, ablation)
    answers = torch.tensor(asked.prompts.answer_ids)
    for rows, logits in ((asked.circuit_only, alone), (asked.ablated, without)):
        np.testing.assert_array_equal(rows(QUESTIONS), (logits.argmax(-1) == answers).numpy())


def test_what_was_kept_of_one_ablation_is_not_taken_for_another(tmp_path: Any) -> None:
    for _ in range(2):
        for ablation in Ablation:
            asked = evaluation("grouped", ablation)
            for rows in (asked.circuit_only, asked.ablated):
                kept = rows(QUESTIONS, kept_in=tmp_path)
                np.testing.assert_array_equal(kept, rows(QUESTIONS))


def test_room_is_counted_for_the_head_outputs_of_resampled_prompts() -> None:
    model, length = examined("grouped").model, 25
    (kept, passing), (also_kept, more) = (
        memory.bytes_of_prompt(model, length, ablation)
        for ablation in (Ablation.mean, Ablation.resample)
    )
    heads = oracles.head_outputs(model, examined("grouped").prompts)[:, 0]
    assert kept == also_kept
    assert (more - passing) * heads.shape[1] == heads.nbytes * length
    assert memory.bytes_of_prompt(model, length, Ablation.zero) == (kept, passing)


def test_the_papers_code_knows_means_only() -> None:
    asked = evaluation("lora", Ablation.resample)
    assert as_in_paper(asked, CIRCUIT, asked.whole) is None
    with pytest.raises(ValueError, match="no means"):
        asked.run_by(asked.loaded)
