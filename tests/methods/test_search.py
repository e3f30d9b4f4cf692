"""Circuit search: it finds the heads that we planted, and says so where there is no circuit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from backend.core.errors import UserError
from backend.core.heads import Head
from backend.core.metrics import Ablation, Metric, Score, Tokens
from backend.core.serialize import from_json, to_json
from backend.engine.architectures import shape_of
from backend.engine.path_patching.run_pairs import RunPairs
from backend.methods.compare import N_RANDOM
from backend.methods.discovery import discover, summarised
from backend.methods.evaluation import Evaluation
from backend.methods.pruning import Growth, candidates, n_tried, pruning
from backend.methods.search import (
    Search,
    SearchRequest,
    Selected,
    Way,
    caution,
    members_of,
    reported,
    searched_circuit,
    selected,
    why_no_circuit,
)
from backend.methods.stage import Stage
from backend.methods.stages import Criteria
from backend.models.loading import LoadedModel
from backend.tasks.circuit import Circuit, Node
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.ioi import IOI
from backend.tasks.prompts import MAX_SEED, Prompts
from backend.tasks.task import Task
from tests import oracles, planted, planted_ioi
from tests.circuits import CIRCUIT, Examined


@dataclass(frozen=True)
class Planted:
    """A planted model, what it is asked, and under which ablation each of its heads matters."""

    of: ModuleType
    task: Task
    options: tuple[int, ...]
    ablation: Ablation
    tokens: Tokens = Tokens.every

    @property
    def prompts(self) -> Prompts:
        return Prompts(self.task, 40, 0, self.options)


BOXES = Planted(planted, ENTITY_TRACKING, (3,), Ablation.resample)
"""By its mean, D gives what it gives anyway: the ordinal of the token."""
NAMES = Planted(planted_ioi, IOI, (), Ablation.mean)
AT_NAMED = replace(BOXES, tokens=Tokens.named)


@cache
def stages(of: Planted) -> tuple[Stage, ...]:
    prompts = of.prompts.sample(of.of.tokenizer())
    counterfactual = of.task.counterfactual(of.of.tokenizer(), prompts)
    return discover(RunPairs(of.of.model(), prompts, counterfactual), Criteria()).stages


def evaluation(of: Planted, prompts: Prompts, model: Any = None) -> Evaluation:
    model, tokenizer = model or of.of.model(), of.of.tokenizer()
    loaded = LoadedModel("planted", model, tokenizer, shape_of(model))
    reference = prompts.reference(tokenizer, 60)
    return Evaluation(loaded, prompts.sample(tokenizer), reference, of.ablation)


def searched(of: Planted, request: SearchRequest) -> tuple[Selected, Search]:
    found = selected(request, evaluation(of, request.selection))
    return found, reported(request, evaluation(of, request.reported), found)


def request_of(
    of: Planted, growth: Growth, metric: Metric = Metric.logit_difference
) -> SearchRequest:
    heads = candidates(of.task, stages(of), growth)
    score = Score.probability
    return SearchRequest(
        "planted", heads, of.prompts, growth, score, metric, of.ablation, of.tokens
    )


@pytest.mark.parametrize("growth", Growth)
@pytest.mark.parametrize("of", [BOXES, NAMES, AT_NAMED], ids=["boxes", "names", "at named"])
def test_it_finds_exactly_the_planted_heads_among_decoys(of: Planted, growth: Growth) -> None:
    request = request_of(of, growth)
    assert len(request.candidates) > 2 * sum(map(len, of.of.CIRCUIT.values()))
    _, found = searched(of, request)
    point = found.within(0.05)
    assert point
    expected = Circuit.of(of.task, of.of.CIRCUIT)
    assert {*members_of(request, found, point)} == expected.nodes
    assert point.n_heads == len(expected.nodes)
    assert why_no_circuit(found, point) is None
    # Without the negative name mover, which has a positive score, the others do more.
    assert ("more than the model" in (caution(found, point) or "")) == (of is NAMES)
    assert point.faithfulness.low > 0.95
    beside = found.random_beside(point)
    assert beside
    assert len(beside.draws) == N_RANDOM
    assert abs(beside.faithfulness.value) < 0.2
    circuit = searched_circuit(request, found, point, replace(expected, provenance={"method": "m"}))
    assert circuit == expected
    assert Circuit.from_json(circuit.to_json()).provenance["search"]["reported_seed"] == 2


def test_by_accuracy_one_of_two_heads_that_do_the_same_is_enough() -> None:
    request = request_of(NAMES, Growth.relative, Metric.accuracy)
    _, found = searched(NAMES, request)
    point = found.within(0.05)
    assert point
    kept = request.circuit_of(members_of(request, found, point))
    assert {key: len(kept.heads(key)) for key in IOI.keys} == {"NM": 1, "SI": 1, "IN": 1, "PT": 1}
    assert all({*kept.heads(key)} <= {*planted_ioi.CIRCUIT[key]} for key in IOI.keys)


def test_a_model_that_guesses_has_no_circuit_and_that_is_said() -> None:
    few = tuple((key, head) for key, heads in planted.CIRCUIT.items() for head in heads)
    request = SearchRequest("planted", few, BOXES.prompts)
    blind = planted.guessing()
    found = selected(request, evaluation(BOXES, request.selection, blind))
    assert found == Selected((), (), (), found.forced_choice)
    curve = reported(request, evaluation(BOXES, request.reported, blind), found)
    assert curve.points == curve.random == ()
    assert curve.within(0.05) is None
    assert "not above chance" in (why_no_circuit(curve, None) or "")


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_random_model_has_no_circuit_and_that_is_said(seed: int) -> None:
    """Its right answers are its own, so it is above chance; no heads of it belong together."""
    examined = Examined("llama")
    rng = np.random.default_rng(seed)
    order = [CIRCUIT.members[place] for place in rng.permutation(len(CIRCUIT.members))]
    request = SearchRequest("random", tuple(order), Prompts(ENTITY_TRACKING, 30, 0, (3,)))
    found = selected(request, examined.evaluation)
    curve = reported(request, examined.evaluation, found)
    said = why_no_circuit(curve, curve.within(0.05)) or ""
    assert "they are no circuit" in said or "no sign of a circuit" in said


@pytest.mark.parametrize("kind", ["llama", "granite"])
def test_every_figure_is_that_of_a_whole_run(kind: str) -> None:
    examined = Examined(kind)
    heads = CIRCUIT.members
    request = SearchRequest("random", heads, Prompts(ENTITY_TRACKING, 30, 0, (3,)))
    found = selected(request, examined.evaluation)
    curve = reported(request, examined.evaluation, found)
    whole = examined.accuracy(lambda *of: oracles.run(*of[:2])[0], ())

    def alone(members: Sequence[Node]) -> float:
        sites = request.circuit_of(members).sites
        return examined.accuracy(oracles.circuit_alone, sites) / whole

    grown = [alone(heads[:k]) for k in range(len(heads) + 1)]
    assert found.grown == pytest.approx(grown)
    left, pruned = [*heads], []
    for gone in found.removed:
        left.remove(gone)
        pruned.append(alone(left))
    assert found.pruned == pytest.approx(pruned)
    assert [each.n_heads for each in curve.points] == [*range(13), *range(11, 0, -1)]
    for point in curve.points:
        expected = pruned[11 - point.n_heads] if point.way is Way.pruned else grown[point.n_heads]
        assert point.selected == pytest.approx(expected)
        assert point.faithfulness.value == pytest.approx(expected)
        members = members_of(request, curve, point)
        assert len(members) == point.n_heads
        assert alone(members) == pytest.approx(expected)
    assert [each.n_heads for each in curve.random] == [1, 2, 4, 8, 12]
    for each in curve.random:
        assert each.faithfulness.value == pytest.approx(np.mean(each.draws))


def values_of(weights: dict[Node, float], twins: Sequence[set[Node]]) -> Any:
    """What circuits of a made-up model do: weights add up, and of twins one is enough."""

    def measure(circuits: Sequence[Sequence[Node]]) -> list[float]:
        alike = [{*each} for each in circuits]
        return [
            sum(weights[m] for m in each if not any(m in pair for pair in twins))
            + sum(max((weights[m] for m in pair & each), default=0.0) for pair in twins)
            for each in alike
        ]

    return measure


def slowly(members: Sequence[Node], measure: Any) -> list[Node]:
    """Greedy elimination that tries every head each time; of equal ones the later goes."""
    left, gone = [*reversed(members)], []
    while left:
        values = measure([[m for m in left if m != each] for each in left])
        gone.append(left[int(np.argmax(values))])
        left.remove(gone[-1])
    return gone


@pytest.mark.parametrize("n", [1, 7, 8, 9, 40])
def test_pruning_takes_what_costs_least(n: int) -> None:
    rng = np.random.default_rng(n)
    members = [("A", Head(layer, 0)) for layer in range(n)]
    weights = dict(zip(members, rng.uniform(0.1, 1, n).tolist(), strict=True))
    for pairs in ([], [{members[0], members[-1]}, {members[n // 2], members[n // 3]}]):
        twins = [pair for pair in pairs if len(pair) == 2]
        measure = values_of(weights, twins)
        (whole,) = measure([members])
        steps = [*pruning(members, whole, measure)]
        assert [gone for gone, _ in steps] == slowly(members, measure)
        left = [*members]
        for gone, value in steps:
            left.remove(gone)
            assert value == pytest.approx(measure([left])[0])


def test_of_heads_that_cost_nothing_the_last_that_was_grown_goes_first() -> None:
    members = [("A", Head(layer, 0)) for layer in range(30)]
    steps = [*pruning(members, 1.0, lambda circuits: [1.0] * len(circuits))]
    assert [gone for gone, _ in steps] == members[::-1]


def test_pruning_a_real_circuit_costs_far_less_than_trying_every_head() -> None:
    assert n_tried(8) == [8, 7, 6, 5, 4, 3, 2, 1]
    assert n_tried(40, 40) == [*range(40, 0, -1)]
    assert sum(n_tried(60)) < 60 * 61 / 2 / 2
    assert sum(n_tried(200)) < 200 * 201 / 2 / 6
    for k in (0, 1, 9, 60):
        left = range(k, 0, -1)
        assert all(0 < n <= most for n, most in zip(n_tried(k), left, strict=True))


def stage_of(key: str, means: dict[Head, float]) -> Stage:
    scores = torch.zeros(50, 3, 4)
    for head, mean in means.items():
        scores[:, head.layer, head.index] = mean + 0.01 * torch.arange(50).sin()
    return replace(summarised(key, scores, ()), score=Score.logit_difference)


def test_heads_are_grown_in_the_order_that_is_asked_for() -> None:
    of_a = stage_of("A", {Head(2, 0): -4.0, Head(2, 1): -1.0, Head(1, 1): -0.5, Head(0, 0): 3.0})
    of_b = stage_of("B", {Head(1, 1): -0.2, Head(1, 2): -0.1})
    stages_found = ENTITY_TRACKING, [of_a, of_b]
    order = {
        growth: [f"{key} {head}" for key, head in candidates(*stages_found, growth)]
        for growth in Growth
    }
    assert order[Growth.relative] == ["A L2.0", "B L1.1", "B L1.2", "A L2.1"]
    assert order[Growth.score] == ["A L2.0", "A L2.1", "A L1.1", "B L1.2"]
    assert order[Growth.in_turn] == ["A L2.0", "B L1.1", "A L2.1", "B L1.2"]
    two = candidates(*stages_found, most=2)
    assert two == (("A", Head(2, 0)), ("B", Head(1, 1)))


def test_three_sets_of_prompts_share_nothing() -> None:
    request = SearchRequest("base", (), Prompts(IOI, 30, MAX_SEED))
    assert (request.selection.seed, request.reported.seed) == (0, 1)
    texts = [
        {*prompts.sample(planted_ioi.tokenizer()).texts}
        for prompts in (request.prompts, request.selection, request.reported)
    ]
    assert not texts[0] & texts[1] | texts[0] & texts[2] | texts[1] & texts[2]


def test_a_request_survives_its_file_and_a_wrong_group_is_refused() -> None:
    request = SearchRequest("base", CIRCUIT.members, Prompts(ENTITY_TRACKING, 9, 0), Growth.in_turn)
    assert from_json(SearchRequest, to_json(request)) == request
    with pytest.raises(UserError, match="has no group X"):
        replace(request, candidates=(("X", Head(0, 0)),))
