"""Which heads of a stage are kept: those that are clear among all, and of a size that means much.

Against SciPy and on simulated scores, where what is noise is known.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from backend.core.heads import Head
from backend.core.statistics import false_discovery, p_below_zero
from backend.engine.path_patching.run_pairs import RunPairs
from backend.methods.discovery import discover, summarised
from backend.methods.stage import NO_TEST, SATURATED, Stage
from backend.methods.stages import (
    DEFAULT_FDR,
    Criteria,
    Discovery,
    n_valid,
    next_stage,
    nothing_to_feed,
    remark,
)
from backend.tasks.circuit import Circuit
from backend.tasks.entity_tracking import ENTITY_TRACKING, counterfactual_prompts, sample_prompts
from tests import planted, tiny

GROUP_A, GROUP_B = (ENTITY_TRACKING.group(key) for key in "AB")
SHAPE = (30, 9)
N_STUDIES = 200


def noise(seed: int, n: int, kind: str) -> torch.Tensor:
    """Scores [n, 30, 9] of heads that do nothing, in as many prompts."""
    rng = np.random.default_rng([seed, n])
    if kind == "shared by the heads of a prompt":
        drawn = rng.normal(size=(n, *SHAPE)) + rng.normal(size=(n, 1, 1))
    elif kind == "rarely very negative":
        drawn = 1 - rng.exponential(size=(n, *SHAPE))
    else:
        drawn = rng.normal(size=(n, *SHAPE))
    return torch.tensor(0.01 * drawn)


def planted_in(scores: torch.Tensor, heads: dict[Head, float]) -> Stage:
    """A stage of noise to which some heads add a score, given in standard errors."""
    for head, z in heads.items():
        scores[:, head.layer, head.index] += z * 0.01 / len(scores) ** 0.5
    return summarised("A", scores, ())


def quiet(heads: dict[Head, float]) -> Stage:
    """A stage of 100 prompts in which the means of all other heads are zero, up to rounding."""
    scores = noise(0, 100, "normal")
    return planted_in(scores - scores.mean(0), heads)


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.3, 1.0])
def test_what_is_clear_is_scipys_benjamini_and_hochberg(rate: float) -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        p_values = rng.uniform(size=(6, 5)) ** rng.uniform(1, 6)
        p_values[rng.uniform(size=p_values.shape) < 0.2] = np.nan
        tested = ~np.isnan(p_values)
        expected = np.zeros(p_values.shape, bool)
        expected[tested] = stats.false_discovery_control(p_values[tested]) <= rate
        np.testing.assert_array_equal(false_discovery(p_values) <= rate, expected)
    assert not (false_discovery(np.full((2, 2), np.nan)) <= rate).any()


def test_the_p_values_are_scipys_one_sided_t_test() -> None:
    scores = torch.tensor(np.random.default_rng(1).normal(-0.1, 1, size=(12, 3, 4)))
    stage = summarised("A", scores, ())
    ours = p_below_zero(stage.mean, stage.standard_error, stage.n)
    theirs = stats.ttest_1samp(scores.numpy(), 0, alternative="less").pvalue
    np.testing.assert_allclose(ours, theirs, rtol=1e-10)
    assert np.isnan(p_below_zero(np.zeros(2), np.zeros(2), 12)).all()
    assert np.isnan(p_below_zero(stage.mean, stage.standard_error, 1)).all()


def test_centred_scores_are_tested_against_the_middle_head_of_their_layer() -> None:
    for n_heads in (4, 5):
        scores = torch.tensor(np.random.default_rng(2).normal(size=(15, 2, n_heads)))
        stage = summarised("A", scores, ())
        for layer in range(2):
            order = stage.mean[layer].argsort()
            middle = scores[:, layer, order[[(n_heads - 1) // 2, n_heads // 2]]].mean(-1)
            for index in range(n_heads):
                less = (scores[:, layer, index] - middle).numpy()
                assert stage.centred[layer, index] == pytest.approx(less.mean(), abs=1e-12)
                error = less.std(ddof=1) / 15**0.5
                assert stage.ranked(True)[1][layer, index] == pytest.approx(error, abs=1e-12)


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("n", [20, 100])
@pytest.mark.parametrize(
    "kind", ["normal", "shared by the heads of a prompt", "rarely very negative"]
)
def test_noise_gives_no_circuit(kind: str, n: int, centred: bool) -> None:
    """Of 270 heads some are two standard errors below zero; that is no finding."""
    criteria = Criteria(centred=centred)
    stages = [summarised("A", noise(seed, n, kind), ()) for seed in range(N_STUDIES)]
    found = sum(bool(criteria.kept(GROUP_A, stage)) for stage in stages)
    # Three standard errors of a share of 0.05 among 200 studies.
    assert found / N_STUDIES <= DEFAULT_FDR + 3 * (0.05 * 0.95 / N_STUDIES) ** 0.5
    if kind == "normal" and not centred:
        untested = replace(criteria, fdr=NO_TEST)
        assert all(len(untested.kept(GROUP_A, stage)) == 8 for stage in stages)


def test_few_of_those_kept_are_noise_and_few_that_matter_are_lost() -> None:
    true = {Head(layer, layer % 9): -6.0 for layer in range(10, 20)}
    criteria = Criteria(dict.fromkeys(ENTITY_TRACKING.keys, 40))
    kept = [
        criteria.kept(GROUP_A, planted_in(noise(seed, 100, "normal"), true)) for seed in range(100)
    ]
    false_shares = [sum(head not in true for head in each) / len(each) for each in kept]
    assert np.mean(false_shares) <= DEFAULT_FDR + 0.01
    assert np.mean([sum(head in true for head in each) for each in kept]) > 9.8


def test_the_strongest_of_the_clear_ones_are_kept_up_to_the_size() -> None:
    heads = {Head(1, 1): -8.0, Head(2, 2): -12.0, Head(3, 3): -10.0, Head(4, 4): 12.0}
    stage = quiet(heads)
    assert stage.strongest(2, fdr=DEFAULT_FDR) == (Head(2, 2), Head(3, 3))
    assert {*stage.strongest(40, fdr=DEFAULT_FDR)} == {*list(heads)[:3]}
    assert Head(4, 4) not in stage.strongest(300)


def test_heads_that_cannot_reach_a_receiver_are_not_among_those_tried() -> None:
    """A score of z = -3.4 is clear among 9 heads, and not among 270."""
    scores = torch.tensor(np.random.default_rng(3).normal(size=(50, *SHAPE))) * 0.01
    scores = (scores - scores.mean(0)) / scores.std(0) * 0.01
    scores[:, 0, 0] -= 3.4 * 0.01 / 50**0.5
    assert not summarised("A", scores, ()).strongest(1, fdr=DEFAULT_FDR)
    scores[:, 1:] = 0
    stage = summarised("A", scores, ())
    assert stage.n_tried == SHAPE[1]
    assert stage.strongest(1, fdr=DEFAULT_FDR) == (Head(0, 0),)


def test_a_stage_of_an_older_file_is_not_tested_and_keeps_nothing() -> None:
    stage = quiet({Head(1, 1): -20.0})
    old = Stage("A", stage.mean, stage.standard_error, stage.receivers)
    assert not old.strongest(8, fdr=DEFAULT_FDR)
    assert not old.is_saturated
    assert old.strongest(1) == (Head(1, 1),)


def test_random_models_give_no_circuit() -> None:
    tokenizer, empty = tiny.word_tokenizer(), 0
    for seed in range(20):
        prompts = sample_prompts(tokenizer, 30, seed, 3)
        pairs = RunPairs(tiny.llama(seed), prompts, counterfactual_prompts(tokenizer, prompts))
        found = discover(pairs, Criteria())
        empty += not found.circuit(Criteria(), "found", {}).members
        of_a = found.stages[0]
        assert of_a.group == "A"
        assert of_a.strongest(8) or not (of_a.mean < 0).any()
    assert empty >= 17  # 19 are expected; fewer than 17 has a chance of 2 %


def test_a_sure_model_saturates_the_score() -> None:
    stage = quiet({Head(1, 1): -12.0})
    sure = replace(stage, clean_probability=SATURATED)
    assert stage.strongest(8, fdr=DEFAULT_FDR) == (Head(1, 1),)
    assert sure.is_saturated
    assert not sure.strongest(8, fdr=DEFAULT_FDR)
    assert sure.strongest(1, fdr=NO_TEST) == (Head(1, 1),)
    said = remark(GROUP_A, sure, Criteria())
    assert said
    assert "saturated" in said
    assert "none is kept" in said
    assert remark(GROUP_A, replace(stage, clean_probability=0.8), Criteria()) is None
    large = replace(sure, mean=10 * sure.mean, standard_error=10 * sure.standard_error)
    assert large.strongest(8, fdr=DEFAULT_FDR) == (Head(1, 1),)


def test_log_odds_that_fall_hardly_move_the_probability_of_a_sure_model() -> None:
    """What `SATURATED` says of scores: -(1 - p)(exp(d) - 1), nearly."""
    p, fall = 0.999, 2.6
    odds = p / (1 - p) / np.exp(fall)
    score = odds / (1 + odds) / p - 1
    assert score == pytest.approx(-(1 - p) * (np.exp(fall) - 1), rel=0.02)
    assert abs(score) < 0.013


def test_the_clean_probability_is_the_models() -> None:
    model, tokenizer = planted.model(), planted.tokenizer()
    prompts = sample_prompts(tokenizer, 12, n_boxes=3)
    pairs = RunPairs(model, prompts, counterfactual_prompts(tokenizer, prompts))
    pairs.batches = [slice(0, 5), slice(5, 12)]
    with torch.no_grad():
        logits = model(torch.tensor(prompts.input_ids)).logits[:, -1].double()
    expected = logits.softmax(-1)[range(12), prompts.answer_ids].mean()
    assert pairs.clean_probability == pytest.approx(float(expected), abs=1e-6)


def test_after_a_stage_that_keeps_nothing_there_is_none() -> None:
    clear, unclear = quiet({Head(1, 1): -20.0}), quiet({})
    criteria = Criteria()
    of_b = replace(unclear, group="B", receivers=(Head(1, 1),))
    assert next_stage(ENTITY_TRACKING, [], criteria) == (GROUP_A, ())
    assert next_stage(ENTITY_TRACKING, [clear], criteria) == (GROUP_B, (Head(1, 1),))
    assert next_stage(ENTITY_TRACKING, [unclear], criteria) is None
    assert next_stage(ENTITY_TRACKING, [clear, of_b], criteria) is None
    of_c = replace(unclear, group="C")
    assert n_valid(ENTITY_TRACKING, [clear, of_b, of_c], criteria) == 2
    found = Discovery(ENTITY_TRACKING, (clear, of_b), 100).circuit(criteria, "part", {})
    assert found.members == (("A", Head(1, 1)),)
    assert "B keeps no head" in nothing_to_feed(ENTITY_TRACKING.group("C"))


def test_a_circuit_without_heads_survives_its_file() -> None:
    stage = quiet({})
    found = Discovery(ENTITY_TRACKING, (stage,), stage.n).circuit(Criteria(), "none", {})
    assert not found.members
    assert Circuit.from_json(found.to_json()) == found


def test_scores_errors_and_numbers_stand_in_the_circuits_file() -> None:
    stage = quiet({Head(1, 1): -20.0})
    found = Discovery(ENTITY_TRACKING, (stage,), stage.n).circuit(Criteria(fdr=0.1), "found", {})
    about = Circuit.from_json(found.to_json()).provenance
    assert about["false_discovery_rate"] == 0.1
    (head,) = about["heads"]["A"]
    assert head["head"] == [1, 1]
    assert head["score"] == stage.mean[1, 1]
    assert head["standard_error"] == stage.standard_error[1, 1]
    assert head["z"] == pytest.approx(stage.mean[1, 1] / stage.standard_error[1, 1])
    assert head["n"] == 100
