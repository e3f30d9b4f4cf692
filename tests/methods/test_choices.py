"""Metrics, scores and ablations that are asked for, from the request to the figure."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from backend.core.components import Component
from backend.core.metrics import Ablation, Metric, Score
from backend.methods.cmap import CmapRequest, SetRequest
from backend.methods.compare import N_RANDOM, ComparisonRequest, ModelAnswers, packed, unpacked
from backend.methods.completeness import CompletenessRequest
from backend.methods.edges import EdgesRequest
from backend.methods.faithfulness import FaithfulnessRequest
from backend.methods.minimality import MinimalityRequest
from backend.methods.registry import settings_of
from backend.methods.requests import N_REFERENCE
from backend.methods.stage import SATURATED, StageRequest
from backend.methods.stages import Criteria, remark
from backend.studies import studies
from backend.studies.keys import identity
from backend.tasks.circuit import Circuit
from backend.tasks.entity_tracking import ENTITY_TRACKING, counterfactual_prompts
from backend.tasks.prompts import Prompts
from tests import oracles, planted, tiny

PROMPTS = Prompts(ENTITY_TRACKING, 12, 0, (3,))
CIRCUIT = Circuit.of(ENTITY_TRACKING, planted.CIRCUIT, "planted")
TOKENIZER = planted.tokenizer()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of the planted model."""
    folder = tmp_path_factory.mktemp("models") / "planted"
    planted.model().save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)
    return str(folder)


@cache
def exact() -> tuple[Any, Any, Any]:
    """The same in float64, its prompts, and their counterfactuals."""
    prompts = PROMPTS.sample(TOKENIZER)
    return tiny.in_float64(planted.model()), prompts, counterfactual_prompts(TOKENIZER, prompts)


@cache
def off(ablation: Ablation) -> torch.Tensor:
    of, prompts, other = exact()
    reference = PROMPTS.reference(TOKENIZER, N_REFERENCE)
    return oracles.off_values(of, prompts, reference, other, ablation)


def read(logits: torch.Tensor, metric: Metric) -> Any:
    """A metric of logits [n, vocab]: [n]."""
    prompts = exact()[1]
    if metric is Metric.accuracy:
        return (logits.argmax(-1).numpy() == prompts.answer_ids).astype(float)
    if metric is Metric.probability:
        return oracles.answer_probabilities(logits, prompts).numpy()
    return oracles.logit_differences(logits, prompts).numpy()


def silent(stage: str, share: float) -> None:
    """Nobody asked how far it is."""


CHOSEN = [
    (Metric.probability, Ablation.mean),
    (Metric.logit_difference, Ablation.zero),
    (Metric.logit_difference, Ablation.resample),
    (Metric.accuracy, Ablation.zero),
]


@pytest.mark.parametrize(("metric", "ablation"), CHOSEN)
def test_faithfulness_and_comparison_are_those_of_whole_runs(
    model: str, metric: Metric, ablation: Ablation
) -> None:
    of, prompts, _ = exact()
    whole = read(oracles.run(of, prompts)[0], metric)
    alone = read(oracles.circuit_among(of, prompts, off(ablation), CIRCUIT.sites), metric)
    without_b = CIRCUIT.sites_of(["B"])
    knocked = read(oracles.model_giving(of, prompts, off(ablation), without_b), metric)

    asked = FaithfulnessRequest((model,), CIRCUIT, PROMPTS, metric, ablation)
    (report,) = studies.run(asked, silent)
    (compared,) = studies.run(ComparisonRequest(*vars(asked).values()), silent)
    row = compared.figures
    for found, expected in (
        (report.model.value, whole.mean()),
        (report.circuit.value, alone.mean()),
        (report.faithfulness.value, alone.mean() / whole.mean()),
        (row.faithfulness.value, alone.mean() / whole.mean()),
        (row.groups["B"].model.value, knocked.mean()),
        (row.groups["B"].model_change.value, (knocked - whole).mean()),
    ):
        assert found == pytest.approx(expected, abs=2e-3)
    (again,) = studies.run(asked, silent)
    assert again == report


def test_two_models_are_paired_by_numbers_after_they_were_stored(model: str) -> None:
    asked = ComparisonRequest((model, model), CIRCUIT, PROMPTS, Metric.logit_difference)
    first = next(studies.run(asked, silent))
    _, second = studies.run(asked, silent)  # the first model comes out of the store
    (pair,) = second.differences
    assert (pair.model.value, pair.circuit.value, pair.faithfulness.value) == (0, 0, 0)
    assert second.figures.model == first.figures.model


def test_answers_are_packed_to_the_last_digit() -> None:
    rng = np.random.default_rng(0)
    one, many, groups = rng.normal(size=7), rng.normal(size=(N_RANDOM, 7)), rng.normal(size=(4, 7))
    answers = ModelAnswers(one, one + 1, many, groups, groups + 1, one > 0)
    found = unpacked(packed(answers), 7, 4, Metric.logit_difference)
    for name, row in vars(answers).items():
        np.testing.assert_array_equal(getattr(found, name), row)
        assert getattr(found, name).dtype == row.dtype


@pytest.mark.parametrize("score", Score)
def test_a_stage_and_edges_have_the_score_asked_for(model: str, score: Score) -> None:
    of, prompts, other = exact()
    sender, receivers = planted.CIRCUIT["B"][0], planted.CIRCUIT["A"]
    expected = oracles.path_patching_score(
        of, prompts, other, "B", receivers, sender, score=score
    ).mean()
    (stage,) = studies.run(StageRequest(model, PROMPTS, "B", receivers, score), silent)
    assert stage.score is score
    assert stage.mean[sender] == pytest.approx(float(expected), rel=2e-3)
    (found,) = studies.run(EdgesRequest(model, CIRCUIT, PROMPTS, score), silent)
    assert found.score is score
    for receiver in receivers:
        (edge,) = (each for each in found.edges if each.receiver == receiver and each.group == "B")
        alone = oracles.path_patching_score(
            of, prompts, other, "B", [receiver], sender, score=score
        )
        assert edge.weight.value == pytest.approx(float(alone.mean()), rel=5e-3)


def test_a_sure_model_does_not_saturate_the_logit_difference(model: str) -> None:
    request = StageRequest(model, PROMPTS, "A", (), Score.logit_difference)
    (stage,) = studies.run(request, silent)
    sure = replace(stage, clean_probability=SATURATED)
    assert not sure.is_saturated
    told = remark(ENTITY_TRACKING.group("A"), replace(sure, score=Score.probability), Criteria())
    assert told
    assert "Score by the change of the logit difference" in told


def test_a_transplant_is_read_by_the_metric(model: str, tmp_path: Path) -> None:
    worse = planted.model().requires_grad_(False)
    worse.model.layers[3].self_attn.v_proj.weight *= 0.7
    worse.save_pretrained(tmp_path)
    TOKENIZER.save_pretrained(tmp_path)
    sites = CIRCUIT.sites_of(["A"])
    request = SetRequest(
        model, str(tmp_path), sites, Component.output, PROMPTS, Metric.logit_difference
    )
    (found,) = studies.run(request, silent)
    target, prompts = tiny.in_float64(worse), exact()[1]
    source = read(oracles.run(exact()[0], prompts)[0], Metric.logit_difference)
    before = read(oracles.run(target, prompts)[0], Metric.logit_difference)
    values = oracles.head_outputs(exact()[0], prompts)
    after = read(oracles.model_giving(target, prompts, values, sites), Metric.logit_difference)
    assert found.accuracy.value == pytest.approx(after.mean(), rel=2e-3)
    assert found.change.value == pytest.approx((after - before).mean(), rel=5e-3)
    gap = (after - before).mean() / (source - before).mean()
    assert found.recovery.value == pytest.approx(gap, rel=5e-3)


@pytest.mark.parametrize("kind", [MinimalityRequest, CompletenessRequest])
def test_heads_are_knocked_out_as_asked(model: str, kind: type) -> None:
    of, prompts, _ = exact()
    (found,) = studies.run(kind(model, CIRCUIT, PROMPTS, ablation=Ablation.zero), silent)
    rest = CIRCUIT.sites - CIRCUIT.sites_of(["C"])
    alone = oracles.circuit_among(of, prompts, off(Ablation.zero), rest)
    if kind is CompletenessRequest:
        shown = next(removal.circuit for removal in found.groups if removal.name == "C")
    else:
        shown = next(head.after for head in found.heads if head.group == "C")
    assert shown.value == pytest.approx(read(alone, Metric.accuracy).mean())


def test_what_is_asked_otherwise_is_another_result_and_says_so(model: str) -> None:
    usual = FaithfulnessRequest((model,), CIRCUIT, PROMPTS)
    assert settings_of(usual) == ""
    other = replace(usual, metric=Metric.logit_difference, ablation=Ablation.resample)
    assert settings_of(other) == "logit difference, resample ablation"
    stage = StageRequest(model, PROMPTS, "A", ())
    scored = replace(stage, score=Score.logit_difference)
    assert settings_of(scored) == "stage A, change of logit difference"
    cmap = CmapRequest(model, model, CIRCUIT, Component.k, PROMPTS)
    assert settings_of(replace(cmap, metric=Metric.probability)) == (
        "keys, probability of the right answer"
    )
    for before, after in ((usual, other), (stage, scored)):
        assert identity(before) != identity(after)
