"""Any circuit and any patch: what is run again gives what a plain run of everything gives."""

from __future__ import annotations

from functools import cache

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.engine.activation_patching import patched_logits, patched_logits_plainly, prepare_clean
from backend.engine.architectures import logits_of, shape_of
from backend.engine.mean_ablation import (
    circuit_logits_plainly,
    circuits_logits,
    prepare_ablated_run,
    with_values,
)
from backend.engine.positions import all_sites, input_ids, mean_head_outputs, position_head_outputs
from backend.engine.replay import full_run, replay
from backend.tasks.entity_tracking import (
    ENTITY_TRACKING,
    counterfactual_prompts,
    reference_prompts,
    sample_prompts,
)
from tests import oracles, tiny

TOKENIZER = tiny.word_tokenizer()
PROMPTS = sample_prompts(TOKENIZER, 6, n_boxes=3)
SITES = st.sets(
    st.sampled_from(
        sorted(all_sites(shape_of(tiny.llama()), ENTITY_TRACKING.position_names), key=str)
    )
)


@cache
def prepared():
    model = tiny.in_float64(tiny.grouped_llama())
    means = mean_head_outputs(model, reference_prompts(TOKENIZER, 6, n_boxes=3))
    values = position_head_outputs(model, counterfactual_prompts(TOKENIZER, PROMPTS))
    return (
        model,
        means,
        values,
        prepare_clean(model, PROMPTS),
        prepare_ablated_run(model, PROMPTS, means),
    )


@settings(max_examples=40, deadline=None)
@given(SITES)
def test_any_patch(sites):
    model, _, values, clean, _ = prepared()
    expected = patched_logits_plainly(model, PROMPTS, sites, values)
    torch.testing.assert_close(patched_logits(clean, sites, values), expected, rtol=0, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.lists(SITES, min_size=1, max_size=3))
def test_any_circuits(circuits):
    model, means, _, _, ablated_run = prepared()
    expected = [circuit_logits_plainly(model, PROMPTS, means, sites) for sites in circuits]
    together = circuits_logits(ablated_run, circuits)
    torch.testing.assert_close(together, torch.stack(expected), rtol=0, atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(SITES, SITES)
def test_values_of_sites_that_are_on_do_not_matter(on, patched):
    _, _, values, _, ablated_run = prepared()
    logits = [
        circuits_logits(with_values(ablated_run, sites, values), [on])
        for sites in (patched | on, patched - on)
    ]
    assert torch.equal(*logits)


def test_a_full_run_is_a_plain_run():
    model = prepared()[0]
    run = full_run(model, input_ids(model, PROMPTS))
    expected, _ = oracles.run(model, PROMPTS)
    logits = logits_of(model, run.residuals[-1][:, -1])
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-12)


def test_variants_do_not_see_each_other():
    model = prepared()[0]
    run = full_run(model, input_ids(model, PROMPTS))
    tokens = torch.arange(20, PROMPTS.input_ids.shape[1])[None]
    clean = run.residuals[1][:, 20:]
    others = torch.randn(2, *clean.shape, dtype=clean.dtype)
    rows = torch.cat([others[0], clean, others[1]], 1)
    final = replay(model, rows, tokens, run.context.before(20), start=1, variants=3)
    torch.testing.assert_close(final[:, 1], run.residuals[-1][:, -1], rtol=0, atol=1e-12)
