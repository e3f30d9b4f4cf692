"""Cross-model activation patching: against plain runs in float64, and what must not change."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from backend.core.components import Component
from backend.core.errors import UserError
from backend.core.heads import Head, Site
from backend.core.placement import Dtype, Placement
from backend.core.statistics import recovery
from backend.engine.activation_patching import clean_logits, patched_logits, prepare_clean
from backend.engine.architectures import shape_of
from backend.engine.positions import all_sites, position_head_outputs
from backend.engine.transplants import foreign, transplanted_logits
from backend.methods.cmap import cmap, compatible, group_sets, head_map, read_alike
from backend.methods.evaluation import examine
from backend.models.loading import LoadedModel
from backend.tasks.circuit import Circuit
from backend.tasks.entity_tracking import ENTITY_TRACKING, sample_prompts
from backend.tasks.prompts import Prompts
from tests import oracles, planted, tiny

TOKENIZER = tiny.word_tokenizer()
PROMPTS = sample_prompts(TOKENIZER, 6, n_boxes=3)
SITES = [
    Site(Head(0, 1), "prev_query_label"),
    Site(Head(1, 2), "query_label"),
    Site(Head(1, 3), "last"),
    Site(Head(3, 0), "last"),
    Site(Head(3, 1), "last"),
]
SITE_SETS = {"everywhere": SITES, "query label": SITES[1:4], "last": SITES[3:]}
CIRCUIT = Circuit.of(ENTITY_TRACKING, planted.CIRCUIT, "planted")
NAMES = {Component.q: "q_proj", Component.k: "k_proj", Component.v: "v_proj"}


@pytest.fixture(params=tiny.MAKERS)
def pair(request):
    """A source and a target of the same kind."""
    return [tiny.in_float64(tiny.MAKERS[request.param](seed)) for seed in (1, 2)]


def at(site, prompt):
    return site.head.layer, prompt, int(PROMPTS.positions[site.position][prompt]), site.head.index


def one_head_with(name, source, target, site, held):
    """The head's output at the site [n, d_head] when every token has the source's projection.

    `held` are head outputs of lower layers, as `oracles.replaced` takes them.
    """
    n_layers, _, _, d_head = oracles.sizes(target)
    _, of_source = oracles.run(source, PROMPTS)

    def hold(layer):
        def change(flat):
            for (at_layer, prompt, token, head), value in held.items():
                if at_layer == layer:
                    flat[prompt, token, head * d_head : (head + 1) * d_head] = value

        return change

    def copy(flat):
        flat[:] = of_source[site.head.layer, name]

    _, seen = oracles.run(
        target,
        PROMPTS,
        {layer: hold(layer) for layer in range(n_layers)},
        {(site.head.layer, name): copy},
    )
    tokens = torch.tensor(PROMPTS.positions[site.position])
    heads = seen[site.head.layer, "heads"].unflatten(-1, (-1, d_head))
    return heads[torch.arange(len(PROMPTS)), tokens, site.head.index]


@pytest.mark.parametrize("sites", SITE_SETS.values(), ids=SITE_SETS)
@pytest.mark.parametrize("part", NAMES)
def test_queries_keys_and_values_against_the_oracle(pair, part, sites):
    source, target = pair
    held = {}
    for layer in sorted({site.head.layer for site in sites}):
        new = {}
        for site in (site for site in sites if site.head.layer == layer):
            values = one_head_with(NAMES[part], source, target, site, held)
            new |= {at(site, prompt): values[prompt] for prompt in range(len(PROMPTS))}
        held |= new
    expected = oracles.replaced(target, PROMPTS, held)
    clean = prepare_clean(target, PROMPTS)
    logits = transplanted_logits(clean, sites, foreign(clean, source, PROMPTS, NAMES[part]))
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-12)
    assert (logits - clean_logits(clean)).abs().max() > 1e-3, "the transplant should do something"


def test_head_outputs_against_the_oracle(pair):
    source, target = pair
    outputs = oracles.head_outputs(source, PROMPTS)
    new = {
        at(site, prompt): outputs[at(site, prompt)]
        for site in SITES
        for prompt in range(len(PROMPTS))
    }
    logits = patched_logits(
        prepare_clean(target, PROMPTS), SITES, position_head_outputs(source, PROMPTS)
    )
    torch.testing.assert_close(logits, oracles.replaced(target, PROMPTS, new), rtol=0, atol=1e-12)


@pytest.mark.parametrize("pair", tiny.LLAMAS, indirect=True)
def test_all_heads_at_all_tokens_is_what_one_computes_by_hand(pair):
    """With all head outputs given, the last token's answer takes only MLPs to compute.

    So patching all heads at the last token already is patching all of them everywhere.
    """
    source, target = pair
    outputs = oracles.head_outputs(source, PROMPTS)
    stack = oracles.base_of(target).model
    with torch.no_grad():
        residual = stack.embed_tokens(torch.tensor(PROMPTS.input_ids))
        for layer, block in enumerate(stack.layers):
            residual = residual + block.self_attn.o_proj(outputs[layer].flatten(-2))
            residual = residual + block.mlp(block.post_attention_layernorm(residual))
        expected = oracles.base_of(target).lm_head(stack.norm(residual[:, -1]))
    values, clean = position_head_outputs(source, PROMPTS), prepare_clean(target, PROMPTS)
    everything = all_sites(shape_of(target), ENTITY_TRACKING.position_names)
    for sites in (everything, {site for site in everything if site.position == "last"}):
        logits = patched_logits(clean, sites, values)
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-12)


def test_a_model_s_own_parts_change_nothing(pair):
    model = pair[0]
    clean = prepare_clean(model, PROMPTS)
    for name in NAMES.values():
        own = foreign(clean, model, PROMPTS, name)
        logits = transplanted_logits(
            clean, all_sites(shape_of(model), ENTITY_TRACKING.position_names), own
        )
        torch.testing.assert_close(logits, clean_logits(clean), rtol=0, atol=1e-12)


def loaded(name, model, tokenizer):
    return LoadedModel(name, model, tokenizer, shape_of(model))


def evaluation(name, change=None):
    model = planted.model().requires_grad_(False)
    if change:
        change(model.model)
    return examine(loaded(name, model, planted.tokenizer()), Prompts(ENTITY_TRACKING, 60, 0, (3,)))


@pytest.fixture(scope="module")
def better():
    return evaluation("better")


@pytest.fixture(scope="module")
def worse():
    """Its value fetchers have nothing to give."""

    def forget(stack):
        stack.layers[3].self_attn.v_proj.weight.zero_()

    return evaluation("worse", forget)


SETS = group_sets(CIRCUIT)


def test_the_group_that_differs_closes_the_gap(better, worse):
    result = cmap(better, worse, SETS)
    assert list(result.sets) == ["none", "D", "C", "B", "A", "all"]
    assert (result.source, result.target, result.part) == ("better", "worse", "output")
    assert result.gap.is_clear
    assert result.sets["A"].recovery.value == pytest.approx(1, abs=0.05)
    assert result.sets["all"].accuracy == result.source_accuracy
    for name in ("none", "D", "C", "B"):
        assert abs(result.sets[name].recovery.value) < 0.05
    assert result.sets["A"].n_sites == 2
    values = cmap(better, worse, SETS, Component.v)
    assert values.sets["A"].recovery.value == pytest.approx(1, abs=0.05)
    queries = cmap(better, worse, SETS, Component.q)
    assert abs(queries.sets["all"].recovery.value) < 0.05


def test_the_other_way_round_the_gap_is_closed_downwards(better, worse):
    result = cmap(worse, better, SETS)
    assert result.gap.value < 0
    assert result.sets["A"].recovery.value == pytest.approx(1, abs=0.05)
    assert result.sets["A"].change.value < 0
    assert abs(result.sets["none"].recovery.value) == 0


@pytest.mark.parametrize("part", Component)
def test_source_and_target_the_same_recovers_nothing_that_could_be_said(better, part):
    result = cmap(better, better, SETS, part)
    for outcome in result.sets.values():
        assert outcome.accuracy == result.target_accuracy
        assert outcome.change.value == 0
        assert math.isnan(outcome.recovery.value)


def test_single_heads_on_a_map(better, worse):
    seen = []
    result = head_map(
        better,
        worse,
        ["last", "query_label"],
        progress=lambda *step: seen.append(step),
    )
    assert seen[-1][0] == pytest.approx(seen[-1][1])
    assert [*result.heads] == ["last", "query_label"]
    for position, rows in result.heads.items():
        for layer, row in enumerate(rows):
            for index, outcome in enumerate(row):
                name = f"{position} {layer} {index}"
                alone = cmap(better, worse, {name: {Site(Head(layer, index), position)}})
                assert outcome == alone.sets[name]


def test_recovery_is_a_share_of_the_gap():
    rng = np.random.default_rng(0)
    target, source = rng.random(200) < 0.3, rng.random(200) < 0.9
    patched = np.where(rng.random(200) < 0.5, source, target)
    share = recovery(patched, target, source)
    expected = (patched.mean() - target.mean()) / (source.mean() - target.mean())
    assert share.value == pytest.approx(expected)
    assert share.low < share.value < share.high
    assert recovery(target, target, source).value == 0
    assert recovery(source, target, source).value == 1
    back = recovery(patched, source, target)
    assert back.value == pytest.approx(1 - share.value)
    assert math.isnan(recovery(patched, target, rng.permutation(target)).value)


def test_sets_are_named_in_reading_order():
    assert [*group_sets(CIRCUIT, [("A", "D"), (), tuple(ENTITY_TRACKING.keys)])] == [
        "D + A",
        "none",
        "all",
    ]


def test_models_that_do_not_fit_say_why(better):
    ours = better.loaded
    assert compatible(ours, ours) is None

    def other(**shape):
        return replace(ours, name="other", shape=ours.shape._replace(**shape))

    assert compatible(ours, other(n_layers=5)) == "better has 4 layers, other has 5."
    assert compatible(other(n_heads=2), ours) == "other has 2 heads in a layer, better has 4."
    assert "numbers in a head" in str(compatible(ours, other(d_head=8)))
    assert compatible(ours, other(n_kv_heads=2)) is None
    assert compatible(ours, other(n_kv_heads=2), Component.q) is None
    assert "key-value heads" in str(compatible(ours, other(n_kv_heads=2), Component.v))
    words = replace(ours, name="other", tokenizer=TOKENIZER)
    assert "as other tokens" in str(read_alike(words, ours, better.prompts))
    assert read_alike(ours, ours, better.prompts) is None
    rough = replace(ours, placement=Placement("cpu", Dtype.bfloat16))
    assert compatible(ours, rough) == (
        "better is loaded on cpu in float32, better on cpu in bfloat16."
    )
    with pytest.raises(UserError, match=r"as other tokens\. Choose two models"):
        cmap(better, examine(words, Prompts(ENTITY_TRACKING, 60, 0, (3,))), SETS)


def test_results_are_plain(better, worse):
    assert json.loads(json.dumps(asdict(cmap(better, worse, SETS))))["sets"]["A"]["n_sites"] == 2
