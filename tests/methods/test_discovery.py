"""Discovery finds a circuit that we planted, and pruning keeps what the answer needs."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from backend.engine.activation_patching import clean_logits, prepare_clean
from backend.engine.architectures import shape_of
from backend.engine.mean_ablation import prepare_ablated_run
from backend.engine.path_patching.run_pairs import RunPairs
from backend.engine.path_patching.scores import path_patching_scores
from backend.engine.positions import mean_head_outputs
from backend.methods.answering import correctly_answered, whole_answers
from backend.methods.discovery import discover
from backend.methods.stage import NO_TEST
from backend.methods.stages import Criteria
from backend.models.loading import load_model
from backend.tasks.circuit import Circuit
from backend.tasks.entity_tracking import (
    ENTITY_TRACKING,
    counterfactual_prompts,
    reference_prompts,
    sample_prompts,
)
from backend.tasks.prompts import Prompts
from tests import planted, tiny
from tests.circuits import accuracies_alone

SIZES = {group: len(heads) for group, heads in planted.CIRCUIT.items()}
CRITERIA = Criteria(SIZES)
TOKENIZER = planted.tokenizer()


@cache
def planted_runs(n_boxes):
    model = planted.model()
    prompts = sample_prompts(TOKENIZER, 40, n_boxes=n_boxes)
    return model, prompts, counterfactual_prompts(TOKENIZER, prompts)


def by_group(found):
    return {stage.group: stage for stage in found.stages}


def planted_ablated_run():
    model, prompts, _ = planted_runs(3)
    reference = reference_prompts(TOKENIZER, 30, n_boxes=3)
    ablated_run = prepare_ablated_run(model, prompts, mean_head_outputs(model, reference))
    return ablated_run, torch.tensor(prompts.answer_ids)


@pytest.mark.parametrize("n_boxes", [2, 3])
def test_the_planted_model_tracks_entities(n_boxes):
    model, prompts, _ = planted_runs(n_boxes)
    assert planted.accuracy(clean_logits(prepare_clean(model, prompts)), prompts.answer_ids) == 1


@pytest.mark.parametrize("n_boxes", [2, 3])
def test_discovery_finds_the_planted_circuit_exactly(n_boxes):
    found = discover(RunPairs(*planted_runs(n_boxes)), CRITERIA)
    assert found.circuit(CRITERIA, "found", {}) == Circuit.of(
        ENTITY_TRACKING, planted.CIRCUIT, "found"
    )
    # Two heads of a group do the same: only rounding says which is first.
    assert {stage.group: tuple(sorted(stage.receivers)) for stage in found.stages} == {
        "A": (),
        "B": planted.CIRCUIT["A"],
        "C": planted.CIRCUIT["B"],
        "D": planted.CIRCUIT["C"],
    }
    for group, heads in planted.CIRCUIT.items():
        others = by_group(found)[group].mean.copy()
        for head in heads:
            assert others[head] < -0.3
            others[head] = 0
        assert abs(others).max() < 1e-3


def test_stages_are_the_scores_of_path_patching():
    runs = planted_runs(3)
    stage = by_group(discover(RunPairs(*runs), CRITERIA))["C"]
    scores = path_patching_scores(*runs, "C", planted.CIRCUIT["B"])
    np.testing.assert_allclose(stage.mean, scores.mean(0), rtol=1e-6)
    np.testing.assert_allclose(stage.standard_error, scores.std(0) / 40**0.5, rtol=1e-6)


def test_a_circuit_survives_its_file_with_where_it_came_from():
    found = discover(RunPairs(*planted_runs(3)), CRITERIA)
    circuit = found.circuit(CRITERIA, "found", {"model": "planted", "seed": 0})
    read = Circuit.from_json(circuit.to_json())
    assert read == circuit
    read.check(shape_of(planted.model()), "planted")
    assert read.provenance["model"] == "planted"
    assert read.provenance["n_prompts"] == 40
    assert read.provenance["scores"]["D"][0][1] < -0.3


def test_a_head_in_a_and_b_counts_as_b():
    prompts = sample_prompts(tiny.word_tokenizer(), 6, n_boxes=3)
    counterfactual = counterfactual_prompts(tiny.word_tokenizer(), prompts)
    everyone = Criteria(dict.fromkeys(ENTITY_TRACKING.keys, 16), fdr=NO_TEST)
    found = discover(RunPairs(tiny.llama(), prompts, counterfactual), everyone)
    circuit = found.circuit(everyone, "all", {})
    both = {*by_group(found)["A"].strongest(16)} & {*circuit.heads("B")}
    assert both
    assert not both & {*circuit.heads("A")}


def test_heads_without_the_least_effect_receive_nothing():
    found = discover(RunPairs(*planted_runs(3)), Criteria(fdr=NO_TEST, least_effect=0.1))
    # Two heads of a group do the same: only rounding says which is first.
    assert {stage.group: tuple(sorted(stage.receivers)) for stage in found.stages} == {
        "A": (),
        "B": planted.CIRCUIT["A"],
        "C": planted.CIRCUIT["B"],
        "D": planted.CIRCUIT["C"],
    }


def test_prompts_that_fit_into_memory_run_once_for_all_stages():
    model, *prompts = planted_runs(3)
    runs = []
    with model.model.embed_tokens.register_forward_hook(lambda *_: runs.append(1)):
        discover(RunPairs(model, *prompts), CRITERIA)
    assert len(runs) == len(["clean", "counterfactual"])


def test_progress_goes_on_from_stage_to_stage():
    shares = []
    discover(
        RunPairs(*planted_runs(3)),
        CRITERIA,
        progress=lambda done, total: shares.append(done / total),
    )
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0, 1)
    # Every stage ends where the next one begins.
    n = len(ENTITY_TRACKING.groups)
    assert {place / n for place in range(n + 1)} <= {*shares}


def test_the_planted_circuit_is_as_accurate_as_the_model():
    ablated_run, answers = planted_ablated_run()
    circuit = Circuit.of(ENTITY_TRACKING, planted.CIRCUIT)
    lost = ["A", "B", "C"]
    without = [circuit.keep(m for m in circuit.members if m[0] != group) for group in lost]
    circuits = [circuit.sites, *(each.sites for each in without)]
    whole, *broken = accuracies_alone(ablated_run, circuits, answers)
    assert whole == 1
    assert max(broken) < 0.5


def test_prompts_are_chosen_as_if_all_were_asked_at_once():
    loaded, told = load_model("base"), []
    chosen = correctly_answered(
        loaded,
        Prompts(ENTITY_TRACKING, 30, 5, (7,)),
        lambda done, total: told.append((done, total)),
    )
    prompts = sample_prompts(loaded.tokenizer, 300, 5, 7)
    right = whole_answers(loaded, prompts).correct
    assert chosen.texts == tuple(np.array(prompts.texts)[right][:30])
    assert 1 < len(told) < 10
    assert told[-1] == (30, 30)
    assert told == sorted(told)
