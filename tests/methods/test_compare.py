"""One circuit in many models: against counting by hand, and what must not change."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import torch

from backend.core.errors import UserError
from backend.core.heads import Head, ModelShape
from backend.core.statistics import wilson
from backend.engine.activation_patching import patched_logits_plainly
from backend.engine.architectures import shape_of
from backend.engine.mean_ablation import circuit_logits_plainly
from backend.engine.memory import chunks
from backend.engine.positions import position_means
from backend.methods.compare import compare, overlap, random_circuits
from backend.methods.evaluation import examine
from backend.methods.faithfulness import faithfulness_report
from backend.models.loading import LoadedModel
from backend.tasks.circuit import Circuit
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.prompts import Prompts
from tests import planted, tiny

CIRCUIT = Circuit.of(ENTITY_TRACKING, planted.CIRCUIT, "planted")


def loaded(name: str, model: Any, tokenizer: Any) -> LoadedModel:
    return LoadedModel(name, model, tokenizer, shape_of(model))


@pytest.fixture(scope="module")
def evaluations():
    """The planted model, and one that has half lost a fetcher and its transmitter."""
    worse = planted.model().requires_grad_(False)
    worse.model.layers[3].self_attn.o_proj.weight[:, planted.D_HEAD * 3 :] = 0
    worse.model.layers[2].self_attn.v_proj.weight[: planted.D_HEAD] *= 0.75
    models = {"planted": planted.model(), "worse": worse}
    return [
        examine(loaded(name, model, planted.tokenizer()), Prompts(ENTITY_TRACKING, 40, 0, (3,)))
        for name, model in models.items()
    ]


@pytest.fixture(scope="module")
def comparison(evaluations):
    return compare(evaluations, CIRCUIT, n_random=4)


def right(evaluation, logits):
    return (logits.argmax(-1) == torch.tensor(evaluation.prompts.answer_ids)).numpy()


def test_every_figure_is_what_plain_runs_give(evaluations, comparison):
    for evaluation, row in zip(evaluations, comparison.models, strict=True):
        model, prompts = evaluation.loaded.model, evaluation.prompts
        assert row.name == evaluation.loaded.name
        alone = circuit_logits_plainly(model, prompts, evaluation.means, CIRCUIT.sites)
        assert row.circuit == wilson(right(evaluation, alone))
        assert row.faithfulness.value == row.circuit.value / row.model.value
        for group in ENTITY_TRACKING.keys:
            sites = CIRCUIT.sites_of([group])
            means = position_means(evaluation.means, prompts)
            without = right(evaluation, patched_logits_plainly(model, prompts, sites, means))
            rest = circuit_logits_plainly(model, prompts, evaluation.means, CIRCUIT.sites - sites)
            knockout = row.groups[group]
            assert knockout.model == wilson(without)
            assert knockout.circuit == wilson(right(evaluation, rest))
            change = knockout.model.value - row.model.value
            assert knockout.model_change.value == pytest.approx(change)
        drawn = random_circuits(CIRCUIT, evaluation.loaded.shape, 4, seed=0)
        shares = [
            right(
                evaluation, circuit_logits_plainly(model, prompts, evaluation.means, sites)
            ).mean()
            for sites in drawn
        ]
        assert row.random.accuracies == pytest.approx(shares)
        assert row.random.mean.value == pytest.approx(np.mean(shares))
        assert row.random.spread == pytest.approx(np.std(shares, ddof=1))
        assert (row.model.n, row.faithfulness.n, row.random.mean.n) == (40, 40, 40)


def test_the_difference_of_two_models(comparison):
    first, second = comparison.models
    (difference,) = comparison.differences
    assert (difference.first, difference.second) == ("planted", "worse")
    assert difference.model.value == pytest.approx(second.model.value - first.model.value)
    assert difference.model.value < -0.2, "the second model should be worse"
    assert difference.model.is_clear
    gain = second.faithfulness.value - first.faithfulness.value
    assert difference.faithfulness.value == pytest.approx(gain)


def test_a_model_does_not_differ_from_itself(evaluations):
    (difference,) = compare([evaluations[1]] * 2, CIRCUIT, n_random=2).differences
    for estimate in (difference.model, difference.circuit, difference.faithfulness):
        assert estimate.low < estimate.value == 0 < estimate.high
        assert not estimate.is_clear


def test_the_faithfulness_report_is_the_same_figure(evaluations):
    report = faithfulness_report(evaluations[0], CIRCUIT)
    row = compare(evaluations[:1], CIRCUIT, n_random=2).models[0]
    assert report.faithfulness == row.faithfulness
    assert (report.model, report.circuit) == (row.model, row.circuit)


def test_random_circuits_have_the_same_sizes_and_no_head_twice():
    shape = ModelShape(3, 4, 4, 8)
    circuit = Circuit.of(
        ENTITY_TRACKING,
        {
            "A": tuple(Head(0, i) for i in range(4)),
            "B": (Head(0, 3), *(Head(1, i) for i in range(4))),
            "D": (Head(2, 1),),
        },
    )
    drawn = random_circuits(circuit, shape, 50, seed=3)
    for sites in drawn:
        tokens = [site.position for site in sites]
        assert tokens.count("last") == 8
        assert tokens.count("query_label") == 0
        assert tokens.count("prev_query_label") == 1
    assert len({*drawn}) > 40
    assert drawn == random_circuits(circuit, shape, 50, seed=3)
    everything = Circuit.of(
        ENTITY_TRACKING, {"C": tuple(Head(i, j) for i in range(3) for j in range(4))}
    )
    assert random_circuits(everything, shape, 1, seed=0) == [everything.sites]


def test_progress_can_cancel(evaluations):
    seen = []

    def progress(done, total):
        seen.append(done / total)
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(evaluations, CIRCUIT, n_random=3, progress=progress)
    assert seen == sorted(seen)
    assert 0.5 < seen[-1] < 0.9


def test_models_that_cannot_be_asked_the_same_are_refused(evaluations):
    other = replace(evaluations[0].loaded, name="other", tokenizer=tiny.word_tokenizer("BCDEFG"))
    with pytest.raises(UserError, match="planted and other write different words"):
        compare([evaluations[0], examine(other, Prompts(ENTITY_TRACKING, 40, 0, (3,)))], CIRCUIT)
    with pytest.raises(UserError, match=r"L9\.0 in group A"):
        compare(evaluations, Circuit.of(ENTITY_TRACKING, {"A": (Head(9, 0),)}))


def test_overlap_counts_heads():
    found = Circuit.of(ENTITY_TRACKING, {"A": (Head(0, 0), Head(0, 1)), "B": (Head(1, 1),)})
    expected = Circuit.of(
        ENTITY_TRACKING, {"A": (Head(0, 1), Head(2, 2), Head(2, 3)), "C": (Head(1, 1),)}
    )
    shared = overlap(found, expected)
    assert shared["A"].shared == (Head(0, 1),)
    assert shared["A"].only_found == (Head(0, 0),)
    assert shared["A"].only_expected == (Head(2, 2), Head(2, 3))
    assert (shared["A"].precision, shared["A"].recall) == (1 / 2, 1 / 3)
    assert shared["B"].precision == 0
    assert math.isnan(shared["B"].recall)
    assert math.isnan(shared["D"].precision)


def test_results_are_plain(comparison):
    read = json.loads(json.dumps(asdict(comparison)))
    assert read["models"][0]["groups"]["C"]["model"]["n"] == 40


def test_batches_change_nothing(evaluations, comparison, monkeypatch):
    monkeypatch.setattr("backend.engine.memory._NUMBERS_AT_ONCE", 60_000)
    monkeypatch.setattr("backend.engine.memory._LEAST_ON_CPU", 1)
    again = [
        examine(evaluation.loaded, Prompts(ENTITY_TRACKING, 40, 0, (3,)))
        for evaluation in evaluations
    ]
    assert chunks(again[0].loaded.model, *again[0].prompts.input_ids.shape).size < 20
    assert compare(again, CIRCUIT, n_random=4) == comparison


def test_faithfulness_to_a_model_at_chance_is_undefined(evaluations):
    """It answers a third of the prompts right, with three boxes: there is nothing to explain."""
    guessing = planted.model().requires_grad_(False)
    guessing.model.layers[2].self_attn.v_proj.weight[: planted.D_HEAD] *= 0.6
    guessing.model.layers[3].self_attn.o_proj.weight[:, planted.D_HEAD * 3 :] = 0
    evaluation = examine(
        loaded("guessing", guessing, planted.tokenizer()), Prompts(ENTITY_TRACKING, 40, 0, (3,))
    )
    found = compare([evaluations[0], evaluation], CIRCUIT, n_random=2)
    choices = [row.forced_choice for row in found.models]
    assert [choice.is_above_chance for choice in choices] == [True, False]
    assert found.models[1].model.value > 0.2, "a ratio could be computed"
    assert math.isnan(found.models[1].faithfulness.value)
    assert math.isnan(found.differences[0].faithfulness.value)
    assert not math.isnan(found.models[0].faithfulness.value)
    report = faithfulness_report(evaluation, CIRCUIT)
    assert math.isnan(report.faithfulness.value)
    assert report.forced_choice == choices[1]
    objects = torch.tensor(evaluation.prompts.choice_ids)
    with torch.no_grad():
        logits = guessing(torch.tensor(evaluation.prompts.input_ids)).logits[:, -1]
    first = objects.gather(1, logits.gather(1, objects).argmax(1, keepdim=True))[:, 0]
    assert choices[1].share == wilson(first.numpy() == evaluation.prompts.answer_ids)
    assert choices[1].chance == 1 / 3
