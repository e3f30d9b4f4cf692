"""Knock-outs: every state, written out with one run of the whole prompts for each."""

from __future__ import annotations

from itertools import combinations
from math import comb
from typing import Any

import pytest
import torch

from backend.core.errors import UserError
from backend.core.heads import Head, Site
from backend.methods.knockouts import MOST_HEADS, knockouts, removal_name, removals
from backend.tasks.circuit import Circuit
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.setting import Reading
from tests import oracles, tiny
from tests.circuits import CIRCUIT, TOKENIZER, Examined


@pytest.fixture(scope="module", params=tiny.LLAMAS)
def examined(request: Any) -> Examined:
    return Examined(request.param)


def sites_of(nodes: Any) -> frozenset[Site]:
    return frozenset(Site(head, ENTITY_TRACKING.group(key).position) for key, head in nodes)


def test_each_head_group_and_pair_is_there_once() -> None:
    found, members = removals(CIRCUIT), CIRCUIT.members
    groups = {frozenset(n for n in members if n[0] == key) for key in ENTITY_TRACKING.keys}
    pairs = {frozenset(pair) for pair in combinations(members, 2)}
    singles = {frozenset([node]) for node in members}
    assert {*found} == {frozenset()} | singles | pairs | groups
    assert len({*found}) == len(found)
    # D has two heads: that group is a pair.
    assert len(found) == 1 + len(members) + comb(len(members), 2) + 3
    assert found[0] == frozenset()
    names = [removal_name(CIRCUIT, off) for off in found]
    assert len({*names}) == len(names)
    assert {"everything on", "without A", "without D", "without A L3.0"} <= {*names}


@pytest.mark.parametrize("reading", Reading)
def test_every_state_is_what_one_plain_run_gives(examined: Examined, reading: Reading) -> None:
    found = knockouts(examined.evaluation, CIRCUIT, reading)
    n_whole = int(examined.evaluation.whole.sum())
    # Every fourth, and the groups: one run of everything for each is slow.
    for place in [*range(0, len(found.states), 4), *range(13, 17)]:
        off, state = removals(CIRCUIT)[place], found.states[place]
        if reading is Reading.circuit:
            asked, runner = CIRCUIT.sites - sites_of(off), oracles.circuit_alone
        else:
            asked, runner = sites_of(off), oracles.model_without
        logits = runner(examined.model, examined.prompts, examined.reference, asked)
        answers = torch.tensor(examined.prompts.answer_ids)
        n_right = int((logits.argmax(-1) == answers).sum())
        assert state.accuracy.value == pytest.approx(n_right / 30)
        assert state.accuracy.n == 30
        if found.forced_choice.is_above_chance and n_right:
            assert state.faithfulness.value == pytest.approx(n_right / n_whole)
        probability = oracles.answer_probabilities(logits, examined.prompts)
        assert state.probability.value == pytest.approx(float(probability.mean()))
        for i, example in enumerate(found.examples):
            likeliest = example.states[place]
            shares = logits[i].softmax(-1)
            words = [example.tokens[token] for token in likeliest.tokens]
            assert words[0] == TOKENIZER.decode([int(logits[i].argmax())]).strip()
            assert likeliest.probabilities[0] == pytest.approx(float(shares.max()))
            assert example.answer in words


def test_a_circuit_that_is_too_large_is_refused() -> None:
    heads = {"A": [Head(layer, index) for layer in range(9) for index in range(9)]}
    large = Circuit.of(ENTITY_TRACKING, heads, "large")
    assert len(large.members) > MOST_HEADS
    with pytest.raises(UserError, match="Choose a smaller circuit"):
        knockouts(Examined("llama").evaluation, large)
