"""Edges: against two plain float64 runs for every pair of heads, and what must not change."""

from __future__ import annotations

import pytest
import torch

from backend.core.heads import Head
from backend.engine.path_patching.run_pairs import RunPairs
from backend.engine.path_patching.scores import scores_of
from backend.methods.edges import edges
from backend.tasks.circuit import Circuit
from backend.tasks.entity_tracking import ENTITY_TRACKING, counterfactual_prompts, sample_prompts
from tests import oracles, planted, tiny
from tests.circuits import CIRCUIT, TOKENIZER

PROMPTS = sample_prompts(TOKENIZER, 5, n_boxes=3)
COUNTERFACTUAL = counterfactual_prompts(TOKENIZER, PROMPTS)
NEXT = {"D": "C", "C": "B", "B": "A"}


@pytest.fixture(scope="module", params=tiny.MAKERS)
def model(request):
    return tiny.in_float64(tiny.MAKERS[request.param]())


def test_every_edge_against_the_oracle(model):
    clean, other = (oracles.run(model, prompts) for prompts in (PROMPTS, COUNTERFACTUAL))
    found = edges(RunPairs(model, PROMPTS, COUNTERFACTUAL), CIRCUIT, "tiny")
    assert (found.model, found.circuit) == ("tiny", "random")
    weights = {(edge.group, edge.sender, edge.receiver): edge.weight for edge in found.edges}
    expected = 0
    for group in ("D", "C", "B", "A"):
        for receiver in CIRCUIT.heads(NEXT[group]) if group in NEXT else [None]:
            for sender in CIRCUIT.heads(group):
                if receiver and sender.layer >= receiver.layer:
                    continue
                score = oracles.path_patching_score(
                    model, PROMPTS, COUNTERFACTUAL, group, [receiver], sender, clean, other
                )
                weight = weights[group, sender, receiver]
                assert weight.value == pytest.approx(float(score.mean()), abs=1e-9)
                assert weight.low <= weight.value <= weight.high
                expected += 1
    assert len(found.edges) == len(weights) == expected
    assert max(abs(weight.value) for weight in weights.values()) > 1e-3


def test_heads_that_share_values_have_the_same_weights():
    model = tiny.in_float64(tiny.grouped_llama())
    circuit = Circuit.of(
        ENTITY_TRACKING, {"C": (Head(0, 3),), "B": (Head(2, 0), Head(2, 1), Head(2, 2))}
    )
    found = edges(RunPairs(model, PROMPTS, COUNTERFACTUAL), circuit, "grouped")
    first, second, third = (edge.weight for edge in found.edges if edge.group == "C")
    assert first == second
    assert first != third


def test_the_planted_edges_carry_the_answer_and_decoys_nothing():
    model, tokenizer = planted.model(), planted.tokenizer()
    prompts = sample_prompts(tokenizer, 20, n_boxes=3)
    decoy = Head(1, 0)
    circuit = Circuit.of(ENTITY_TRACKING, {**planted.CIRCUIT, "C": (decoy, *planted.CIRCUIT["C"])})
    pairs = RunPairs(model, prompts, counterfactual_prompts(tokenizer, prompts))
    for edge in edges(pairs, circuit, "planted").edges:
        if decoy in (edge.sender, edge.receiver):
            assert abs(edge.weight.value) < 1e-3
        else:
            assert edge.weight.value < -0.1


def test_senders_narrow_the_heads_and_change_no_score():
    pairs = RunPairs(tiny.llama(), PROMPTS, COUNTERFACTUAL)
    everyone = scores_of(pairs, "A")
    some = scores_of(pairs, "A", senders=[Head(1, 0), Head(3, 2)])
    for head in (Head(1, 0), Head(3, 2)):
        torch.testing.assert_close(some[:, *head], everyone[:, *head])
    assert int((some != 0).any(0).sum()) == 2
    assert not scores_of(pairs, "A", senders=[]).any()


def test_progress_counts_up_and_can_cancel():
    pairs, seen = RunPairs(tiny.llama(), PROMPTS, COUNTERFACTUAL), []
    edges(pairs, CIRCUIT, "tiny", lambda *step: seen.append(step))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1][0] == pytest.approx(seen[-1][1])

    def cancel(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        edges(pairs, CIRCUIT, "tiny", cancel)


def test_a_circuit_without_heads_has_no_edges():
    pairs = RunPairs(tiny.llama(), PROMPTS, COUNTERFACTUAL)
    assert edges(pairs, Circuit.of(ENTITY_TRACKING, {}), "tiny").edges == ()
