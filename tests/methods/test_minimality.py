"""Minimality and completeness: the paper's procedures, written out with one run for everything."""

from __future__ import annotations

import json
from math import ceil, isnan

import pytest

from backend.core.errors import UserError
from backend.core.heads import Head, Site
from backend.core.serialize import to_json
from backend.core.statistics import Estimate
from backend.methods.completeness import completeness, random_sets
from backend.methods.minimality import HeadContribution, minimal_circuit, minimality
from backend.tasks.circuit import Circuit
from backend.tasks.entity_tracking import ENTITY_TRACKING
from tests import oracles, tiny
from tests.circuits import CIRCUIT, Examined


@pytest.fixture(scope="module", params=tiny.LLAMAS)
def examined(request):
    return Examined(request.param)


def alone_without(examined, members):
    removed = {Site(head, ENTITY_TRACKING.group(group).position) for group, head in members}
    return examined.accuracy(oracles.circuit_alone, CIRCUIT.sites - removed)


def test_minimality_is_the_papers_procedure(examined):
    found = minimality(examined.evaluation, CIRCUIT)
    assert [(each.group, each.head) for each in found.heads] == [*CIRCUIT.members]
    assert found.accuracy.value == pytest.approx(alone_without(examined, []))
    for each in found.heads:
        group = each.group
        v = group, each.head
        cost = {}
        for other in CIRCUIT.heads(group):
            u = group, other
            if u != v:
                cost[other] = alone_without(examined, [u]) - alone_without(examined, [u, v])
        removed = []
        for _ in range(ceil(0.3 * len(CIRCUIT.heads(group)))):
            best = max(cost, key=lambda head: round(cost[head], 9), default=None)
            if best is not None and cost.pop(best) > 1e-9:
                removed.append(best)
        k = [(group, other) for other in removed]
        before, after = alone_without(examined, k), alone_without(examined, [*k, v])
        assert each.removed == tuple(removed)
        assert each.before.value == pytest.approx(before)
        assert each.after.value == pytest.approx(after)
        assert each.adds(0.01) == (before > 0 and (after == 0 or before / after - 1 >= 0.01))
        if round(after * each.after.n) >= 6:
            assert each.gain.value == pytest.approx(before / after - 1)
        else:
            assert isnan(each.gain.value)
        assert each.gain.p is None or each.gain.is_clear <= (each.gain.p <= 0.05)
    assert any(each.removed for each in found.heads), "some heads should be redundant"
    assert len({each.adds(0.01) for each in found.heads}) == 2, "some heads should add, some not"


def test_the_minimal_circuit_has_the_heads_that_add(examined):
    found = minimality(examined.evaluation, CIRCUIT)
    smaller = minimal_circuit(CIRCUIT, found, least=0.05)
    expected = [(each.group, each.head) for each in found.heads if each.adds(0.05)]
    assert list(smaller.members) == expected
    assert smaller.provenance["minimality"]["least_gain"] == 0.05
    assert Circuit.from_json(smaller.to_json()) == smaller
    everything = minimal_circuit(CIRCUIT, found, least=-1)
    assert len(everything.members) >= len(smaller.members)


@pytest.mark.parametrize(
    ("before", "after", "adds"),
    [(101, 100, True), (100, 100, False), (1, 0, True), (0, 0, False), (50, 60, False)],
)
def test_a_head_adds_if_at_least_one_percent_is_lost(before, after, adds):
    def share(right):
        return Estimate(right / 200, 0, 1, 200)

    each = HeadContribution("A", Head(0, 0), (), share(before), share(after), share(0))
    assert each.adds(0.01) is adds


def test_completeness_is_the_papers_procedure(examined):
    found = completeness(examined.evaluation, CIRCUIT, n_random=3, seed=5)
    sets = [CIRCUIT.sites_of([group]) for group in ENTITY_TRACKING.keys] + random_sets(
        CIRCUIT, 3, seed=5
    )
    removals = [*found.groups, *found.random]
    names = ["A", "B", "C", "D", "random 1", "random 2", "random 3"]
    assert [removal.name for removal in removals] == names
    for removal, sites in zip(removals, sets, strict=True):
        of_circuit = examined.accuracy(oracles.circuit_alone, CIRCUIT.sites - sites)
        of_model = examined.accuracy(oracles.model_without, sites)
        assert removal.circuit.value == pytest.approx(of_circuit)
        assert removal.model.value == pytest.approx(of_model)
        assert removal.difference.value == pytest.approx(of_circuit - of_model)
        assert removal.n_removed == len(sites)
    gaps = [abs(removal.circuit.value - removal.model.value) for removal in found.random]
    mean = found.mean_incompleteness
    assert mean.value == pytest.approx(sum(gaps) / 3)
    assert 0 <= mean.low < mean.value < mean.high <= 1
    assert mean.n == 3


def test_random_sets_hold_half_of_the_circuit():
    drawn = random_sets(CIRCUIT, 400, seed=0)
    for site in CIRCUIT.sites:
        share = sum(site in sites for sites in drawn) / 400
        likely = 0.75 if site.head == Head(2, 1) else 0.5
        assert share == pytest.approx(likely, abs=0.1)
    assert drawn == random_sets(CIRCUIT, 400, seed=0)
    assert drawn != random_sets(CIRCUIT, 400, seed=1)


def test_without_random_sets_there_is_no_mean():
    found = completeness(Examined("llama").evaluation, CIRCUIT, n_random=0)
    assert found.random == ()
    assert isnan(found.mean_incompleteness.value)
    assert json.loads(json.dumps(to_json(found)))["mean_incompleteness"]["value"] is None


@pytest.mark.parametrize("method", [minimality, completeness])
def test_progress_counts_up_and_can_cancel(method):
    evaluation, seen = Examined("llama").evaluation, []
    method(evaluation, CIRCUIT, progress=lambda *step: seen.append(step))
    assert [step[0] for step in seen] == sorted(step[0] for step in seen)
    assert seen[-1][0] == seen[-1][1]

    def cancel(done, total):
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        method(evaluation, CIRCUIT, progress=cancel)


@pytest.mark.parametrize("method", [minimality, completeness])
def test_edge_cases_of_circuits(method):
    evaluation = Examined("llama").evaluation
    with pytest.raises(UserError, match=r"L9\.0 in group A"):
        method(evaluation, Circuit.of(ENTITY_TRACKING, {"A": (Head(9, 0),)}))
    empty = method(evaluation, Circuit.of(ENTITY_TRACKING, {}))
    assert empty.model == "llama"


def test_results_do_not_depend_on_the_batches(monkeypatch):
    expected = minimality(Examined("llama").evaluation, CIRCUIT)
    monkeypatch.setattr("backend.engine.memory._NUMBERS_AT_ONCE", 60_000)
    monkeypatch.setattr("backend.engine.memory._LEAST_ON_CPU", 1)
    assert minimality(Examined("llama").evaluation, CIRCUIT) == expected
