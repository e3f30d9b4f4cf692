"""Attribution patching: the derivative of path patching, beside plain runs with hooks."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch

from backend.core.errors import UserError
from backend.core.heads import Head
from backend.core.kept import Folder
from backend.core.metrics import Score
from backend.engine.architectures import shape_of
from backend.engine.path_patching.attribution_patching import attribution_scores, attributions_of
from backend.engine.path_patching.run_pairs import RunPair, RunPairs
from backend.engine.path_patching.scores import path_patching_scores, scores_of
from backend.tasks.entity_tracking import ENTITY_TRACKING, counterfactual_prompts, sample_prompts
from backend.tasks.ioi import IOI
from tests import oracles, planted, planted_ioi, tiny

TOKENIZER = tiny.word_tokenizer()
PROMPTS = sample_prompts(TOKENIZER, 5, n_boxes=3)
COUNTERFACTUAL = counterfactual_prompts(TOKENIZER, PROMPTS)
RECEIVERS = (Head(1, 1), Head(3, 0), Head(3, 3))
"""In two layers, so that a sender reaches the upper receivers directly and through the lower."""
EPSILON = 1e-4


@cache
def float64_model(maker):
    return tiny.in_float64(tiny.MAKERS[maker]())


class Scaled(RunPairs):
    """Pairs of runs whose counterfactual is a multiple of its distance from the clean run away."""

    factor = 1.0

    def of(self, batch: slice) -> RunPair:
        pair = super().of(batch)
        difference = pair.counterfactual - pair.heads
        return replace(pair, counterfactual=pair.heads + self.factor * difference)


class OneHead(RunPairs):
    """Pairs of runs whose counterfactual differs in one head only."""

    head = Head(0, 0)

    def of(self, batch: slice) -> RunPair:
        pair = super().of(batch)
        layer, index = self.head
        other = pair.heads.clone()
        other[layer, :, :, index] = pair.counterfactual[layer, :, :, index]
        return replace(pair, counterfactual=other)


@pytest.mark.parametrize("group", ENTITY_TRACKING.keys)
@pytest.mark.parametrize("maker", tiny.MAKERS)
def test_attributions_are_derivatives_of_plain_runs_with_hooks(maker, group):
    model = float64_model(maker)
    found = attribution_scores(model, PROMPTS, COUNTERFACTUAL, group, RECEIVERS)
    expected = oracles.attributions(model, PROMPTS, COUNTERFACTUAL, group, RECEIVERS)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)
    assert expected.abs().max() > 0.01

    rounded = attribution_scores(
        tiny.MAKERS[maker](), PROMPTS, COUNTERFACTUAL, group, RECEIVERS
    ).double()
    torch.testing.assert_close(rounded, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("group", ENTITY_TRACKING.keys)
@pytest.mark.parametrize("score", Score)
@pytest.mark.parametrize("maker", ["lora", "granite"])
def test_integrated_gradients_are_means_along_the_way(maker, score, group):
    model, points = float64_model(maker), [1 / 6, 3 / 6, 5 / 6]
    found = attribution_scores(model, PROMPTS, COUNTERFACTUAL, group, RECEIVERS, score, steps=3)
    expected = oracles.attributions(model, PROMPTS, COUNTERFACTUAL, group, RECEIVERS, score, points)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("group", ENTITY_TRACKING.keys)
@pytest.mark.parametrize("score", Score)
@pytest.mark.parametrize("maker", ["grouped", "gemma2", "gemma3", "neox", "lora", "granite"])
def test_path_patching_tends_to_it_as_the_counterfactual_tends_to_the_prompt(maker, score, group):
    """Independent of all that gradients are made of: exact scores of small differences."""
    model = float64_model(maker)
    pairs, near = (of(model, PROMPTS, COUNTERFACTUAL) for of in (RunPairs, Scaled))
    expected = attributions_of(pairs, group, RECEIVERS, score=score)
    exact = []
    for near.factor in (EPSILON, -EPSILON):
        exact.append(scores_of(near, group, RECEIVERS, score=score))
    slope = (exact[0] - exact[1]) / (2 * EPSILON)
    torch.testing.assert_close(slope, expected, rtol=1e-4, atol=1e-5)
    assert expected.abs().max() > 0.01
    far = scores_of(pairs, group, RECEIVERS, score=score)
    assert (far - expected).abs().max() > 1e-3  # it is an estimate, and no more


@pytest.mark.parametrize("group", ["A", "B"])
@pytest.mark.parametrize("maker", tiny.OTHERS)
def test_gradients_go_through_experts_and_out_of_models_for_pictures(maker, group):
    """In float32: experts know no float64."""
    pairs, near = (of(tiny.OTHERS[maker](), PROMPTS, COUNTERFACTUAL) for of in (RunPairs, Scaled))
    expected, exact = attributions_of(pairs, group, RECEIVERS), []
    for near.factor in (0.01, -0.01):
        exact.append(scores_of(near, group, RECEIVERS))
    slope = (exact[0] - exact[1]) / 0.02
    close = (slope - expected).abs() < 0.02 * expected.abs().max()
    assert close.double().mean() > 0.95  # a token may choose other experts on the way
    assert expected.abs().max() > 0.01


@pytest.mark.parametrize("group", ENTITY_TRACKING.keys)
@pytest.mark.parametrize("maker", ["grouped", "neox"])
def test_with_many_steps_the_integral_is_exact_where_one_head_moves(maker, group):
    """Then its way is the same as in path patching; at the clean output alone it is not."""
    pairs = OneHead(float64_model(maker), PROMPTS, COUNTERFACTUAL)
    errors = []
    exact = scores_of(pairs, group, RECEIVERS)
    for steps in (0, 4, 64):
        found = attributions_of(pairs, group, RECEIVERS, steps=steps)
        assert int((found != 0).any(0).sum()) == 1
        errors.append(float((found - exact).abs().max()))
    assert errors[2] < 1e-3
    assert errors[2] < errors[1] < errors[0]


@pytest.mark.parametrize("group", ["B", "C", "D"])
def test_heads_that_are_not_below_a_receiver_get_exactly_zero(group):
    found = attribution_scores(tiny.llama(), PROMPTS, COUNTERFACTUAL, group, [Head(2, 1)])
    assert (found[:, 2:] == 0).all()
    assert (found[:, :2] != 0).any(0).all()
    for unreachable in ([], [Head(0, 3)]):
        none = attribution_scores(tiny.llama(), PROMPTS, COUNTERFACTUAL, group, unreachable)
        assert none.shape == found.shape
        assert (none == 0).all()


@pytest.mark.parametrize("group", ENTITY_TRACKING.keys)
@pytest.mark.parametrize("maker", ["llama", "granite"])
def test_prompts_do_not_depend_on_each_other_or_on_the_batches(maker, group, monkeypatch):
    model = float64_model(maker)
    together = attribution_scores(model, PROMPTS, COUNTERFACTUAL, group, RECEIVERS)
    with monkeypatch.context() as small:
        small.setattr(
            "backend.engine.path_patching.attribution_patching.gradient_batches",
            lambda _, n, __: [slice(i, min(i + 2, n)) for i in range(0, n, 2)],
        )
        apart = attribution_scores(model, PROMPTS, COUNTERFACTUAL, group, RECEIVERS)
    torch.testing.assert_close(apart, together, rtol=0, atol=1e-12)
    monkeypatch.setenv("CIRCUIT_EXPLORER_CHUNK", "2")
    apart = attribution_scores(model, PROMPTS, COUNTERFACTUAL, group, RECEIVERS)
    torch.testing.assert_close(apart, together, rtol=0, atol=1e-12)


@pytest.mark.parametrize("group", ENTITY_TRACKING.keys)
def test_lora_wrapped_equals_merged_and_weights_are_left_alone(group):
    wrapped = tiny.in_float64(tiny.lora_llama())
    before = attribution_scores(wrapped, PROMPTS, COUNTERFACTUAL, group, RECEIVERS)
    assert all(weights.grad is None for weights in wrapped.parameters())
    merged = wrapped.merge_and_unload()
    after = attribution_scores(merged, PROMPTS, COUNTERFACTUAL, group, RECEIVERS)
    torch.testing.assert_close(after, before, rtol=0, atol=1e-12)


def test_progress_counts_up_to_the_total_and_may_cancel():
    pairs, told = RunPairs(tiny.llama(), PROMPTS, COUNTERFACTUAL), []
    attributions_of(pairs, "D", RECEIVERS, lambda *step: told.append(step), steps=3)
    done, totals = zip(*told, strict=True)
    assert list(done) == sorted(done)
    assert {*totals} == {len(PROMPTS)}
    assert (done[0], done[-1]) == (0, pytest.approx(len(PROMPTS)))

    def cancel(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attributions_of(pairs, "A", progress=cancel)


def test_what_was_kept_is_taken_and_what_is_not_finite_is_told(tmp_path):
    model = tiny.llama().requires_grad_(False)
    pairs = RunPairs(model, PROMPTS, COUNTERFACTUAL)
    first = attributions_of(pairs, "A", kept_in=Folder(tmp_path))
    pairs.of(pairs.batches[0])
    model.model.norm.weight[:] = float("nan")
    assert torch.equal(attributions_of(pairs, "A", kept_in=Folder(tmp_path)), first)
    with pytest.raises(UserError, match="not finite"):
        attributions_of(pairs, "A")


def means(of, planted_in, task, n_boxes, group, *arguments):
    tokenizer, options = planted_in.tokenizer(), [n_boxes] if n_boxes else []
    prompts = task.sample(tokenizer, 30, 0, *options)
    other = task.counterfactual(tokenizer, prompts, 0)
    receivers = [head for key in group.into for head in planted_in.CIRCUIT[key]]
    model = planted_in.model()
    return of(model, prompts, other, group.key, receivers, *arguments).double().mean(0)


PLANTED = [
    *((planted, ENTITY_TRACKING, 3, group) for group in ENTITY_TRACKING.groups),
    *((planted_ioi, IOI, None, group) for group in IOI.groups),
]


@pytest.mark.parametrize("steps", [0, 20])
@pytest.mark.parametrize("score", Score)
@pytest.mark.parametrize(
    ("planted_in", "task", "n_boxes", "group"), PLANTED, ids=lambda of: getattr(of, "key", "")
)
def test_planted_heads_rank_first(planted_in, task, n_boxes, group, score, steps):
    heads = planted_in.CIRCUIT[group.key]
    scores = means(attribution_scores, planted_in, task, n_boxes, group, score, steps)
    strongest = scores.flatten().argsort()[: len(heads)].tolist()
    n_heads = shape_of(planted_in.model()).n_heads
    assert {Head(*divmod(place, n_heads)) for place in strongest} == {*heads}


ALONE = [given for given in PLANTED if given[3].into and len(given[0].CIRCUIT[given[3].key]) == 1]
"""Groups of one planted head, which changes what receivers attend to or copy."""


@pytest.mark.parametrize(
    ("planted_in", "task", "n_boxes", "group"), ALONE, ids=lambda of: getattr(of, "key", "")
)
def test_integrated_gradients_are_closer_where_a_head_changes_attention(
    planted_in, task, n_boxes, group
):
    """It switches attention all the way, which a derivative where it begins hardly shows."""
    score, (head,) = Score.logit_difference, planted_in.CIRCUIT[group.key]
    of = planted_in, task, n_boxes, group

    def exactly(*given):
        return path_patching_scores(*given, score=score)

    exact = float(means(exactly, *of)[head])
    first_order, integrated = (
        float(means(attribution_scores, *of, score, steps)[head]) for steps in (0, 20)
    )
    assert abs(integrated - exact) < abs(first_order - exact)
    assert abs(first_order - exact) > 0.5 * abs(exact)
