"""Evaluations against whole runs in float64, by every metric, for every ablation."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from backend.core.heads import Head, Site
from backend.core.kept import Folder
from backend.core.metrics import Ablation, Metric, Tokens
from backend.engine import memory
from backend.engine.answers import read_answers
from backend.methods.compare import as_in_paper
from backend.methods.evaluation import Evaluation
from backend.tasks.entity_tracking import counterfactual_prompts
from backend.tasks.prompts import PromptSet
from tests import oracles
from tests.circuits import CIRCUIT, TOKENIZER, Examined

QUESTIONS: list[Collection[Site]] = [CIRCUIT.sites, CIRCUIT.sites_of(["A"]), frozenset()]


@cache
def examined(kind: str) -> Examined:
    return Examined(kind)


@cache
def prompts_of(kind: str) -> PromptSet:
    """Prompts whose right answers, which are those that the model gives, are among the choices."""
    prompts = examined(kind).prompts
    choices, answers = prompts.choice_ids.copy(), prompts.answer_ids
    missing = (choices != answers[:, None]).all(1)
    choices[missing, 0] = answers[missing]
    return replace(prompts, choice_ids=choices)


@cache
def expected(kind: str, ablation: Ablation) -> tuple[Tensor, Tensor]:
    """Logits [questions, n, vocab] of circuits alone, and of the model without their heads."""
    of = examined(kind)
    other = counterfactual_prompts(TOKENIZER, prompts_of(kind))
    off = oracles.off_values(of.model, prompts_of(kind), of.reference, other, ablation)
    alone = [oracles.circuit_among(of.model, prompts_of(kind), off, sites) for sites in QUESTIONS]
    without = [oracles.model_giving(of.model, prompts_of(kind), off, sites) for sites in QUESTIONS]
    return torch.stack(alone), torch.stack(without)


def evaluation(kind: str, ablation: Ablation) -> Evaluation:
    of = examined(kind)
    return Evaluation(of.evaluation.loaded, prompts_of(kind), of.reference, ablation)


@pytest.fixture(params=["30", "7"])
def _chunk(request: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """All prompts in one batch, or in five."""
    monkeypatch.setenv("CIRCUIT_EXPLORER_CHUNK", request.param)


def read(logits: Tensor, prompts: PromptSet, metric: Metric) -> Any:
    """The metric of logits [n, vocab], by the oracles: [n]."""
    if metric is Metric.accuracy:
        return logits.argmax(-1).numpy() == prompts.answer_ids
    if metric is Metric.probability:
        return oracles.answer_probabilities(logits, prompts).numpy()
    return oracles.logit_differences(logits, prompts).numpy()


@pytest.mark.usefixtures("_chunk")
@pytest.mark.parametrize("ablation", Ablation)
@pytest.mark.parametrize("kind", ["grouped", "granite"])
def test_every_metric_is_that_of_whole_runs(kind: str, ablation: Ablation) -> None:
    asked, (alone, without) = evaluation(kind, ablation), expected(kind, ablation)
    for metric in Metric:
        for rows, logits in ((asked.circuit_only, alone), (asked.ablated, without)):
            found = rows(QUESTIONS, metric=metric)
            wanted = np.stack([read(each, asked.prompts, metric) for each in logits])
            assert found.dtype == wanted.dtype
            np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12)
            assert metric is Metric.accuracy or found[0].std() > 1e-4


@pytest.mark.usefixtures("_chunk")
@pytest.mark.parametrize("ablation", Ablation)
@pytest.mark.parametrize("kind", ["grouped", "granite"])
def test_at_tokens_without_a_name_every_head_computes_freely(kind: str, ablation: Ablation) -> None:
    of, prompts = examined(kind), prompts_of(kind)
    other = counterfactual_prompts(TOKENIZER, prompts)
    off = oracles.off_values(of.model, prompts, of.reference, other, ablation)
    n_layers, n_heads, *_ = oracles.sizes(of.model)
    named = {
        Site(Head(layer, index), position)
        for layer, index in product(range(n_layers), range(n_heads))
        for position in ("prev_query_label", "query_label", "last")
    }
    logits = [oracles.model_giving(of.model, prompts, off, named - {*each}) for each in QUESTIONS]
    asked = evaluation(kind, ablation)
    for metric in Metric:
        found = asked.circuit_only(QUESTIONS, metric=metric, tokens=Tokens.named)
        wanted = np.stack([read(each, prompts, metric) for each in logits])
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12)
        at_every = asked.circuit_only(QUESTIONS, metric=metric)
        assert metric is Metric.accuracy or abs(found - at_every).mean() > 1e-4
    everyone = asked.circuit_only([named], metric=Metric.logit_difference, tokens=Tokens.named)
    whole = asked.whole_by(Metric.logit_difference)
    np.testing.assert_allclose(everyone[0], whole, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("_chunk")
@pytest.mark.parametrize("kind", ["grouped", "granite"])
def test_the_whole_model_is_read_as_its_answers_are(kind: str) -> None:
    asked = evaluation(kind, Ablation.mean)
    answers = read_answers([oracles.run(examined(kind).model, asked.prompts)[0]], asked.prompts)
    np.testing.assert_array_equal(asked.whole, answers.correct)
    for metric, wanted in (
        (Metric.accuracy, answers.correct),
        (Metric.probability, answers.probability),
        (Metric.logit_difference, answers.logit_difference),
    ):
        found = asked.whole_by(metric)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12)
        assert asked.whole_by(metric) is found


def test_what_was_kept_of_one_metric_and_ablation_is_not_taken_for_another(tmp_path: Any) -> None:
    for _ in range(2):
        for ablation, metric in product(Ablation, Metric):
            asked = evaluation("grouped", ablation)
            for rows in (asked.circuit_only, asked.ablated):
                kept = rows(QUESTIONS, kept_in=Folder(tmp_path), metric=metric)
                np.testing.assert_array_equal(kept, rows(QUESTIONS, metric=metric))


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
