"""Discovery finds a planted circuit for another task than boxes, with composition through keys."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch

from backend.engine.activation_patching import clean_logits, prepare_clean
from backend.engine.mean_ablation import prepare_ablated_run
from backend.engine.path_patching.run_pairs import RunPairs
from backend.engine.positions import mean_head_outputs
from backend.methods.discovery import discover
from backend.methods.stages import Criteria, Discovery
from backend.tasks.circuit import Circuit
from backend.tasks.ioi import IOI
from tests import planted, planted_ioi
from tests.circuits import accuracies_alone

CRITERIA = Criteria({key: len(heads) for key, heads in planted_ioi.CIRCUIT.items()})
CIRCUIT = Circuit.of(IOI, planted_ioi.CIRCUIT)


@cache
def runs(n: int = 40) -> Any:
    """The model, prompts and counterfactuals."""
    tokenizer = planted_ioi.tokenizer()
    prompts = IOI.sample(tokenizer, n)
    return planted_ioi.model(), prompts, IOI.counterfactual(tokenizer, prompts)


@cache
def found() -> Discovery:
    """What discovery finds in it."""
    return discover(RunPairs(*runs()), CRITERIA)


def test_the_planted_model_identifies_indirect_objects() -> None:
    model, prompts, _ = runs(300)
    assert planted.accuracy(clean_logits(prepare_clean(model, prompts)), prompts.answer_ids) == 1


def test_discovery_finds_the_planted_circuit_exactly() -> None:
    stages = {stage.group: stage for stage in found().stages}
    assert found().circuit(CRITERIA, "found", {}).nodes == CIRCUIT.nodes
    # Two heads of a group do the same: only rounding says which is first.
    assert {key: tuple(sorted(stage.receivers)) for key, stage in stages.items()} == {
        "NM": (),
        "SI": planted_ioi.CIRCUIT["NM"],
        "IN": planted_ioi.CIRCUIT["SI"],
        "PT": planted_ioi.CIRCUIT["IN"],
    }
    for key, heads in planted_ioi.CIRCUIT.items():
        others = stages[key].mean.copy()
        for head in heads:
            assert others[head] < -0.3
            others[head] = 0
        if key == "NM":
            others[planted_ioi.NEGATIVE] = 0
        assert abs(others).max() < 5e-3


def test_a_negative_name_mover_has_a_positive_score_and_is_not_kept() -> None:
    (movers, *_) = found().stages
    assert movers.mean[planted_ioi.NEGATIVE] > 0.3
    assert planted_ioi.NEGATIVE not in found().circuit(CRITERIA, "found", {}).heads("NM")
    everyone = Criteria({"NM": 20})
    assert planted_ioi.NEGATIVE not in everyone.kept(IOI.group("NM"), movers)


@pytest.mark.parametrize("seed", [1, 2])
def test_heads_that_do_nothing_are_not_found_whatever_their_weights(seed: int) -> None:
    _, prompts, counterfactual = runs()
    pairs = RunPairs(planted_ioi.model(seed), prompts, counterfactual)
    assert discover(pairs, CRITERIA).circuit(CRITERIA, "found", {}).nodes == CIRCUIT.nodes


def test_the_planted_circuit_is_enough_and_each_group_is_needed() -> None:
    model, prompts, _ = runs()
    reference = IOI.reference(planted_ioi.tokenizer(), 60)
    ablated_run = prepare_ablated_run(model, prompts, mean_head_outputs(model, reference))
    lost = [
        CIRCUIT.keep(member for member in CIRCUIT.members if member[0] != key) for key in IOI.keys
    ]
    circuits = [CIRCUIT.sites, *(each.sites for each in lost)]
    answers = torch.tensor(prompts.answer_ids)
    whole, *broken = accuracies_alone(ablated_run, circuits, answers)
    assert whole == 1
    movers, inhibition, *_ = broken
    assert movers < 0.5
    assert inhibition < 0.5
