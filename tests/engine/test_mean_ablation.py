"""Circuits with everything else knocked out: against an oracle that replaces head by head."""

from __future__ import annotations

import random

import pytest
import torch

from backend.core.heads import Head, Site
from backend.core.metrics import Ablation
from backend.engine.architectures import shape_of
from backend.engine.mean_ablation import (
    alike_first,
    circuit_logits,
    circuit_logits_plainly,
    circuits_logits,
    circuits_measured,
    prepare_ablated_run,
    prepare_resampled_run,
    with_circuit,
    with_values,
)
from backend.engine.memory import prompt_batches
from backend.engine.positions import (
    all_sites,
    mean_head_outputs,
    position_head_outputs,
    site_mask,
    zero_head_outputs,
)
from backend.tasks.entity_tracking import (
    ENTITY_TRACKING,
    counterfactual_prompts,
    reference_prompts,
    sample_prompts,
)
from tests import oracles, tiny

TOKENIZER = tiny.word_tokenizer()
PROMPTS = sample_prompts(TOKENIZER, 6, n_boxes=3)
REFERENCE = reference_prompts(TOKENIZER, 9, n_boxes=3, seed=1)
COUNTERFACTUAL = counterfactual_prompts(TOKENIZER, PROMPTS)


@pytest.fixture(params=tiny.MAKERS)
def model(request):
    return tiny.in_float64(tiny.MAKERS[request.param]())


def some_sites(model, share=0.4, seed=0):
    sites = sorted(all_sites(shape_of(model), ENTITY_TRACKING.position_names), key=str)
    return random.Random(seed).sample(sites, int(share * len(sites)))


def with_all_else_off(model, on, off_values):
    """The oracle; off_values(layer, prompt, token, head) [d_head]."""
    vital = {
        (layer, prompt, int(PROMPTS.positions[position][prompt]), head)
        for (layer, head), position in on
        for prompt in range(len(PROMPTS))
    }
    n_layers, n_heads, _, _ = oracles.sizes(model)
    new = {
        at: off_values(*at)
        for layer in range(n_layers)
        for prompt in range(len(PROMPTS))
        for token in range(PROMPTS.input_ids.shape[1])
        for head in range(n_heads)
        if (at := (layer, prompt, token, head)) not in vital
    }
    return oracles.replaced(model, PROMPTS, new)


def test_means_are_over_the_reference_prompts(model):
    expected = oracles.head_outputs(model, REFERENCE).mean(1)
    torch.testing.assert_close(mean_head_outputs(model, REFERENCE), expected)


def test_circuit_alone_equals_the_oracle(model):
    means = mean_head_outputs(model, REFERENCE)
    on = some_sites(model)
    expected = with_all_else_off(model, on, lambda layer, _, token, head: means[layer, token, head])
    ablated_run = prepare_ablated_run(model, PROMPTS, means)
    for logits in (
        circuit_logits(ablated_run, on),
        circuit_logits_plainly(model, PROMPTS, means, on),
    ):
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("ablation", [Ablation.zero, Ablation.resample])
def test_circuit_alone_among_zeros_or_resampled_heads_equals_the_oracle(model, ablation):
    off = oracles.off_values(model, PROMPTS, REFERENCE, COUNTERFACTUAL, ablation)
    if ablation is Ablation.zero:
        ablated_run = prepare_ablated_run(model, PROMPTS, zero_head_outputs(model, PROMPTS))
    else:
        ablated_run = prepare_resampled_run(model, PROMPTS, COUNTERFACTUAL)
    for on in ([], some_sites(model)):
        expected = oracles.circuit_among(model, PROMPTS, off, on)
        logits = circuit_logits(ablated_run, on)
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-12)


def test_nothing_on_among_resampled_heads_of_the_same_prompts_changes_nothing(model):
    logits = circuit_logits(prepare_resampled_run(model, PROMPTS, PROMPTS), [])
    torch.testing.assert_close(logits, oracles.run(model, PROMPTS)[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("maker", tiny.MAKERS)
def test_float32_stays_within_1e_5_of_a_plain_run(maker):
    model = tiny.MAKERS[maker]()
    means = mean_head_outputs(model, REFERENCE)
    on = some_sites(model)
    logits = circuit_logits(prepare_ablated_run(model, PROMPTS, means), on)
    expected = circuit_logits_plainly(model, PROMPTS, means, on)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)


def test_circuits_in_one_run_are_the_circuits_one_by_one(model):
    ablated_run = prepare_ablated_run(model, PROMPTS, mean_head_outputs(model, REFERENCE))
    circuits = [
        some_sites(model, seed=1),
        [],
        all_sites(shape_of(model), ENTITY_TRACKING.position_names),
    ]
    together = circuits_logits(ablated_run, circuits)
    apart = torch.stack([circuit_logits(ablated_run, sites) for sites in circuits])
    torch.testing.assert_close(together, apart, rtol=0, atol=1e-12)


def test_a_head_that_is_off_can_take_another_value_than_the_mean(model):
    means = mean_head_outputs(model, REFERENCE)
    values = position_head_outputs(model, COUNTERFACTUAL)
    on, patched = some_sites(model)[::2], some_sites(model)[1::2]
    ablated_run = with_values(prepare_ablated_run(model, PROMPTS, means), patched, values)

    def off_value(layer, prompt, token, head):
        for index, position in enumerate(ENTITY_TRACKING.position_names):
            at = PROMPTS.positions[position][prompt]
            if token == at and Site(Head(layer, head), position) in patched:
                return values[layer, prompt, index, head]
        return means[layer, token, head]

    expected = with_all_else_off(model, on, off_value)
    torch.testing.assert_close(circuit_logits(ablated_run, on), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("ablation", [Ablation.mean, Ablation.resample])
def test_a_run_with_a_circuit_on_answers_every_circuit_as_one_with_nothing_on(model, ablation):
    if ablation is Ablation.mean:
        plain = prepare_ablated_run(model, PROMPTS, mean_head_outputs(model, REFERENCE))
    else:
        plain = prepare_resampled_run(model, PROMPTS, COUNTERFACTUAL)
    whole = some_sites(model, share=0.5)
    ready = with_circuit(plain, whole)
    twice = with_circuit(ready, whole[1:])
    values = position_head_outputs(model, COUNTERFACTUAL)
    for on in (whole, whole[:-1], whole[len(whole) // 2 :], [], some_sites(model, seed=2)):
        off = [site for site in whole if site not in on][:3]
        for given in (lambda run: run, lambda run, off=off: with_values(run, off, values)):
            expected = circuit_logits(given(plain), on)
            for run in (ready, twice):
                found = circuit_logits(given(run), on)
                torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_circuits_that_are_alike_in_the_first_layers_are_those_one_by_one(model):
    ablated_run = prepare_ablated_run(model, PROMPTS, mean_head_outputs(model, REFERENCE))
    whole = sorted(some_sites(model), key=str)
    without = [whole[:place] + whole[place + 1 :] for place in (-1, -2, -3)]
    for circuits in ([whole, *without], without, [whole, whole], [[], whole]):
        one_by_one = torch.stack([circuit_logits(ablated_run, on) for on in circuits])
        found = circuits_logits(ablated_run, circuits)
        torch.testing.assert_close(found, one_by_one, rtol=0, atol=1e-12)


def test_circuits_that_lack_heads_of_high_layers_only_run_first():
    low, middle, high = (Site(Head(layer, 0), "last") for layer in (0, 1, 2))
    circuits = [[middle, high], [low, high], [low, middle, high], [low, middle]]
    assert alike_first(circuits) == [2, 3, 1, 0]


def test_circuits_measured_are_those_one_by_one_in_their_order(model):
    ablated_run = prepare_ablated_run(model, PROMPTS, mean_head_outputs(model, REFERENCE))
    whole = some_sites(model, share=0.3)
    circuits = [*([site for site in whole if site != gone] for gone in whole[:11]), []]
    found = torch.cat([*circuits_measured(ablated_run, circuits, lambda logits: logits[..., 7])])
    one_by_one = torch.stack([circuit_logits(ablated_run, on)[:, 7] for on in circuits])
    torch.testing.assert_close(found, one_by_one, rtol=0, atol=1e-12)


def test_nothing_on_leaves_nothing_to_patch_when_values_are_the_means(model):
    means = mean_head_outputs(model, REFERENCE)
    ablated_run = prepare_ablated_run(model, PROMPTS, means)
    patched = with_values(
        ablated_run,
        all_sites(shape_of(model), ENTITY_TRACKING.position_names),
        ablated_run.off_values,
    )
    torch.testing.assert_close(
        circuit_logits(patched, []), circuit_logits(ablated_run, []), rtol=0, atol=1e-12
    )


def test_site_mask_names_exactly_the_sites():
    shape = shape_of(tiny.llama())
    assert site_mask(
        shape, all_sites(shape, ENTITY_TRACKING.position_names), ENTITY_TRACKING.position_names
    ).all()
    mask = site_mask(shape, [Site(Head(2, 3), "query_label")], ENTITY_TRACKING.position_names)
    assert mask.nonzero().tolist() == [[2, 1, 3]]
    with pytest.raises(ValueError, match="not in tuple"):
        site_mask(shape, [Site(Head(0, 0), "correct_object")], ENTITY_TRACKING.position_names)


def test_lora_wrapped_equals_merged():
    wrapped = tiny.in_float64(tiny.lora_llama())
    on = some_sites(wrapped)

    def logits(model):
        ablated_run = prepare_ablated_run(model, PROMPTS, mean_head_outputs(model, REFERENCE))
        return circuit_logits(ablated_run, on)

    before = logits(wrapped)
    merged = wrapped.merge_and_unload()
    torch.testing.assert_close(logits(merged), before, rtol=0, atol=1e-12)
    assert (logits(tiny.in_float64(tiny.grouped_llama())) - before).abs().max() > 0.01


def test_means_and_values_do_not_depend_on_the_batches(monkeypatch):
    model = tiny.in_float64(tiny.llama())
    assert prompt_batches(model, 9, length=25) == [slice(0, 9)]
    means, values = mean_head_outputs(model, REFERENCE), position_head_outputs(model, PROMPTS)
    monkeypatch.setattr("backend.engine.memory._NUMBERS_AT_ONCE", 60_000)
    monkeypatch.setattr("backend.engine.memory._LEAST_ON_CPU", 1)
    batches = prompt_batches(model, 9, length=25)
    assert 1 < len(batches) < 9
    assert [row for batch in batches for row in range(9)[batch]] == list(range(9))
    assert len(prompt_batches(model, 9, length=250)) == 9
    torch.testing.assert_close(mean_head_outputs(model, REFERENCE), means, rtol=0, atol=1e-12)
    torch.testing.assert_close(position_head_outputs(model, PROMPTS), values, rtol=0, atol=1e-12)
