"""Rounding against scores: measured on a model whose circuit is known, and put into words."""

from __future__ import annotations

import pytest
import torch

from backend.core.placement import Dtype, Placement
from backend.engine.path_patching.scores import path_patching_scores
from backend.methods.answering import correctly_answered
from backend.methods.noise import Noise, probe, said, verdict
from backend.models import loaded_models
from backend.tasks.entity_tracking import ENTITY_TRACKING, counterfactual_prompts
from backend.tasks.prompts import Prompts
from tests import planted


@pytest.fixture(scope="module")
def name(tmp_path_factory: pytest.TempPathFactory) -> str:
    place = tmp_path_factory.mktemp("planted")
    planted.model().save_pretrained(place)
    planted.tokenizer().save_pretrained(place)
    return str(place)


def test_the_noise_is_the_difference_of_the_scores(name: str) -> None:
    rough = loaded_models.load(name, Placement("cpu", Dtype.bfloat16))
    found = probe(rough, Prompts(ENTITY_TRACKING, 6, 0, (2,)))
    exact = planted.model()
    # The weights that are probed are the rounded ones, in both dtypes.
    for weight, rounded in zip(exact.parameters(), rough.model.parameters(), strict=True):
        weight.data = rounded.detach().float()
    loaded_models.unload(name)
    prompts = correctly_answered(loaded_models.load(name), Prompts(ENTITY_TRACKING, 6, 0, (2,)))
    other = counterfactual_prompts(rough.tokenizer, prompts)
    scores = [
        path_patching_scores(model, prompts, other, "A").mean(0) for model in (exact, rough.model)
    ]
    assert [each.group for each in found] == ["A", "B", "C", "D"]
    assert found[0].noise == pytest.approx(float((scores[0] - scores[1]).abs().max()), rel=1e-3)
    assert found[0].largest == pytest.approx(float(scores[0].abs().max()), rel=1e-3)
    assert found[0].noise > 1e-4
    assert not any(each.drowns for each in found), "a planted circuit is stronger than rounding"


def test_in_float32_there_is_none(name: str) -> None:
    found = probe(loaded_models.load(name, Placement("cpu")), Prompts(ENTITY_TRACKING, 4, 0, (2,)))
    assert max(each.noise for each in found) == 0


def test_a_model_is_probed_once_and_its_weights_stay() -> None:
    rough = loaded_models.load("base", Placement("cpu", Dtype.float16))
    before = [weight.clone() for weight in rough.model.parameters()]
    text, _ = said(rough, ENTITY_TRACKING)
    assert "float16" in text
    assert said(rough, ENTITY_TRACKING) is said(rough, ENTITY_TRACKING)
    after = rough.model.parameters()
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))
    loaded_models.unload("base")


def test_the_verdict_names_groups_that_rounding_hides() -> None:
    asked = Prompts(ENTITY_TRACKING, 8, 3, (7,))
    fine = Noise("A", 0.001, 0.4, 0.1, asked)
    blurred = Noise("B", 0.02, 0.4, 0.01, asked)
    drowned = Noise("C", 0.005, 0.002, 0.001, asked)
    text = verdict((fine, blurred, drowned), "bfloat16")
    assert "In C, rounding in bfloat16 is larger than every score: use float32 there." in text
    assert "In B, rounding in bfloat16 is as large as the weakest" in text
    assert "C 0.005 (scores 0.001 to 0.002); 8 prompts, seed 3, 7 boxes." in text
    assert "smaller than the scores in every group" in verdict((fine,), "bfloat16")
