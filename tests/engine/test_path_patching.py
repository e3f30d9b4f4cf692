"""Path patching without its shortcuts: two plain runs per sender must give the same scores."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from backend.core.heads import Head
from backend.core.kept import Folder
from backend.core.metrics import Score
from backend.engine.architectures import decoder, logits_of
from backend.engine.path_patching.plain_patching import patched_plainly
from backend.engine.path_patching.receivers_runs import receivers_runs
from backend.engine.path_patching.run_pairs import RunPairs, scenes
from backend.engine.path_patching.scores import path_patching_scores, scores_of
from backend.tasks.entity_tracking import ENTITY_TRACKING, counterfactual_prompts, sample_prompts
from tests import oracles, tiny

TOKENIZER = tiny.word_tokenizer()
PROMPTS = sample_prompts(TOKENIZER, 5, n_boxes=3)
COUNTERFACTUAL = counterfactual_prompts(TOKENIZER, PROMPTS)
RECEIVERS = (Head(1, 1), Head(3, 0), Head(3, 3))
"""In two layers, so that a sender reaches the upper receivers directly and through the lower."""
SENDERS = {layer: range(4) for layer in range(3)}


@cache
def float64_model(maker):
    return tiny.in_float64(tiny.MAKERS[maker]())


@cache
def plain_runs(maker):
    model = float64_model(maker)
    return oracles.run(model, PROMPTS), oracles.run(model, COUNTERFACTUAL)


@pytest.mark.parametrize("group", ENTITY_TRACKING.keys)
@pytest.mark.parametrize("maker", tiny.MAKERS)
def test_scores_equal_two_plain_runs_per_sender(maker, group):
    model = float64_model(maker)
    expected = torch.stack(
        [
            oracles.path_patching_score(
                model, PROMPTS, COUNTERFACTUAL, group, RECEIVERS, Head(*sender), *plain_runs(maker)
            )
            for sender in torch.cartesian_prod(torch.arange(4), torch.arange(4)).tolist()
        ],
        1,
    ).view(-1, 4, 4)
    scores = path_patching_scores(model, PROMPTS, COUNTERFACTUAL, group, RECEIVERS)
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-12)
    assert expected.abs().max() > 0.01

    in_float32 = path_patching_scores(
        tiny.MAKERS[maker](), PROMPTS, COUNTERFACTUAL, group, RECEIVERS
    )
    # A score is p_patched / p_clean - 1: where the ratio is large, so is its rounding.
    torch.testing.assert_close(in_float32.double() + 1, expected + 1, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("group", ENTITY_TRACKING.keys)
@pytest.mark.parametrize("maker", ["grouped", "gpt2", "granite"])
def test_the_change_of_logit_difference_equals_two_plain_runs_per_sender(maker, group):
    model, score = float64_model(maker), Score.logit_difference
    found = path_patching_scores(model, PROMPTS, COUNTERFACTUAL, group, RECEIVERS, score=score)
    for sender in (Head(0, 0), Head(0, 3), Head(2, 1), Head(3, 2)):
        expected = oracles.path_patching_score(
            model, PROMPTS, COUNTERFACTUAL, group, RECEIVERS, sender, *plain_runs(maker), score
        )
        torch.testing.assert_close(found[:, *sender], expected, rtol=0, atol=1e-12)
    assert found.abs().max() > 0.1


def test_what_was_kept_of_one_score_is_not_taken_for_another(tmp_path):
    pairs = RunPairs(tiny.llama(), PROMPTS, COUNTERFACTUAL)
    for _ in range(2):
        for score in Score:
            found = scores_of(pairs, "A", kept_in=Folder(tmp_path), score=score)
            assert torch.equal(found, scores_of(pairs, "A", score=score))


@pytest.mark.parametrize("projection", ["q_proj", "k_proj", "v_proj"])
@pytest.mark.parametrize("maker", ["grouped", "gpt2"])
@torch.no_grad()
def test_receivers_receive_what_they_are_said_to(maker, projection):
    model = float64_model(maker)
    pair = RunPairs(model, PROMPTS, COUNTERFACTUAL).of(slice(0, len(PROMPTS)))
    plainly = dict(
        patched_plainly(pair, ENTITY_TRACKING.group("C"), SENDERS, RECEIVERS, projection)
    )
    for rows, scene in scenes(pair, pair.clean.run, ENTITY_TRACKING.group("C")):
        for layer, final in receivers_runs(scene, SENDERS, RECEIVERS, projection):
            torch.testing.assert_close(
                logits_of(model, final), plainly[layer][rows], rtol=0, atol=1e-12
            )
    untouched = logits_of(model, pair.clean.run.residuals[-1][:, -1])
    assert (plainly[0] - untouched[:, None]).abs().max() > 1e-3


@pytest.mark.parametrize("group", ENTITY_TRACKING.groups[1:], ids=lambda group: group.key)
@pytest.mark.parametrize("maker", tiny.MAKERS)
@torch.no_grad()
def test_keys_are_received_as_in_two_plain_runs_per_sender(maker, group):
    """At the last token, and at tokens that differ between prompts; projected, not yet normed."""
    model, (clean, other) = float64_model(maker), plain_runs(maker)
    pair = RunPairs(model, PROMPTS, COUNTERFACTUAL).of(slice(0, len(PROMPTS)))
    found = {}
    if pair.clean.run is None:
        found = dict(patched_plainly(pair, group, SENDERS, RECEIVERS, "k_proj"))
    else:
        shape = len(PROMPTS), 4, clean[0].shape[-1]
        for rows, scene in scenes(pair, pair.clean.run, group):
            for layer, final in receivers_runs(scene, SENDERS, RECEIVERS, "k_proj"):
                logits = found.setdefault(layer, torch.zeros(shape, dtype=torch.float64))
                logits[rows] = logits_of(model, final)
    moved = 0.0
    for sender in (Head(0, 0), Head(0, 3), Head(1, 2), Head(2, 1)):
        expected = oracles.path_patched_logits(
            model,
            PROMPTS,
            COUNTERFACTUAL,
            group.position,
            "k_proj",
            RECEIVERS,
            sender,
            clean,
            other,
        )
        patched = found[sender.layer][:, sender.index]
        torch.testing.assert_close(patched, expected, rtol=0, atol=1e-12)
        moved = max(moved, float((expected - clean[0]).abs().max()))
    assert moved > 1e-3


@pytest.mark.parametrize("group", ENTITY_TRACKING.keys)
def test_a_counterfactual_that_is_the_prompt_scores_zero(group):
    scores = path_patching_scores(float64_model("grouped"), PROMPTS, PROMPTS, group, RECEIVERS)
    assert scores.abs().max() < 1e-12


@pytest.mark.parametrize("group", ENTITY_TRACKING.keys)
@pytest.mark.parametrize("maker", ["grouped", "gpt2", "granite"])
def test_chosen_senders_score_as_among_all_and_all_others_zero(maker, group):
    pairs = RunPairs(float64_model(maker), PROMPTS, COUNTERFACTUAL)
    everyone = scores_of(pairs, group, RECEIVERS)
    chosen = [Head(2, 3), Head(0, 1), Head(2, 0), Head(3, 1)]
    some = scores_of(pairs, group, RECEIVERS, senders=chosen)
    expected = torch.zeros_like(everyone)
    for head in chosen:
        expected[:, *head] = everyone[:, *head]
    torch.testing.assert_close(some, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("group", ["B", "C", "D"])
def test_heads_that_are_not_below_a_receiver_score_exactly_zero(group):
    model = tiny.llama()
    scores = path_patching_scores(model, PROMPTS, COUNTERFACTUAL, group, [Head(2, 1)])
    assert (scores[:, 2:] == 0).all()
    assert (scores[:, :2] != 0).any(0).all()
    for unreachable in ([], [Head(0, 3)]):
        none = path_patching_scores(model, PROMPTS, COUNTERFACTUAL, group, unreachable)
        assert none.shape == scores.shape
        assert (none == 0).all()


def test_a_value_receiver_is_the_key_value_head_that_query_heads_share():
    model = tiny.grouped_llama()

    def scores(*receivers):
        return path_patching_scores(model, PROMPTS, COUNTERFACTUAL, "C", receivers)

    assert torch.equal(scores(Head(3, 2)), scores(Head(3, 3)))
    assert torch.equal(scores(Head(3, 2)), scores(Head(3, 2), Head(3, 3)))
    assert not torch.equal(scores(Head(3, 1)), scores(Head(3, 2)))


@pytest.mark.parametrize("group", ENTITY_TRACKING.keys)
def test_lora_wrapped_equals_merged(group):
    wrapped = tiny.in_float64(tiny.lora_llama())
    before = path_patching_scores(wrapped, PROMPTS, COUNTERFACTUAL, group, RECEIVERS)
    merged = wrapped.merge_and_unload()
    after = path_patching_scores(merged, PROMPTS, COUNTERFACTUAL, group, RECEIVERS)
    torch.testing.assert_close(after, before, rtol=0, atol=1e-12)


@pytest.mark.parametrize("group", ENTITY_TRACKING.keys)
def test_prompts_do_not_depend_on_each_other_or_on_the_batches(group, monkeypatch):
    model = float64_model("llama")
    together = path_patching_scores(model, PROMPTS, COUNTERFACTUAL, group, RECEIVERS)
    monkeypatch.setattr("backend.engine.memory._NUMBERS_AT_ONCE", 1)
    monkeypatch.setattr("backend.engine.memory._LEAST_ON_CPU", 1)
    monkeypatch.setattr("backend.engine.path_patching.receivers_runs._ROWS_AT_ONCE", 1)
    apart = path_patching_scores(model, PROMPTS, COUNTERFACTUAL, group, RECEIVERS)
    torch.testing.assert_close(apart, together, rtol=0, atol=1e-12)


def test_progress_ends_at_the_total_and_may_cancel():
    model = tiny.llama()
    steps = []
    path_patching_scores(
        model, PROMPTS, COUNTERFACTUAL, "D", RECEIVERS, lambda *step: steps.append(step)
    )
    done, totals = zip(*steps, strict=True)
    assert set(totals) == {done[-1]}
    assert done[0] == 0
    assert list(done) == sorted(set(done))

    def cancel(done, total):
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        path_patching_scores(model, PROMPTS, COUNTERFACTUAL, "B", RECEIVERS, cancel)
    for block in decoder(model).layers:
        for module in block.self_attn.children():
            assert not module._forward_hooks
            assert not module._forward_pre_hooks
