"""Results as JSON: they come back as they were, or are refused."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from backend.core import serialize
from backend.core.components import Component
from backend.core.errors import UserError
from backend.core.heads import Head, Site
from backend.core.statistics import Estimate
from backend.methods.cmap import Cmap, CmapRequest, HeadMap, Transplanted
from backend.methods.edges import Edge, Edges
from backend.methods.minimality import HeadContribution, Minimality, MinimalityRequest
from backend.methods.stage import Stage
from backend.tasks.circuit import Circuit
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.prompts import Prompts
from backend.tasks.task import Task

HALF = Estimate(0.5, 0.4, 0.6, 100)
UNDEFINED = Estimate(math.nan, math.nan, math.nan, 100)
OUTCOME = Transplanted(2, HALF, HALF, HALF)
VALUES = [
    Cmap("a", "b", "output", HALF, HALF, HALF, {"none": OUTCOME, "D + A": OUTCOME}),
    HeadMap("a", "b", "q", HALF, {"last": ((OUTCOME, OUTCOME), (OUTCOME, OUTCOME))}),
    Edges("a", "c", (Edge("A", Head(3, 1), None, HALF), Edge("B", Head(2, 0), Head(3, 1), HALF))),
    Minimality(
        "a", "c", HALF, (HeadContribution("C", Head(1, 2), (Head(0, 0),), HALF, HALF, HALF),)
    ),
    CmapRequest(
        "a",
        "b",
        Circuit(ENTITY_TRACKING, frozenset({("A", Head(3, 1)), ("B", Head(2, 0))}), "c"),
        Component.k,
        Prompts(ENTITY_TRACKING, 5, 0, (3,)),
        (("mine", frozenset({Site(Head(3, 1), "last")})),),
    ),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_value_comes_back_from_json(value):
    data = json.loads(json.dumps(serialize.to_json(value), allow_nan=False))
    assert serialize.from_json(type(value), data) == value


def test_a_stage_comes_back_exactly():
    scores = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32).astype(float)
    stage = Stage("A", scores, abs(scores), (Head(1, 0),))
    back = serialize.from_json(Stage, json.loads(json.dumps(serialize.to_json(stage))))
    np.testing.assert_array_equal(back.mean, stage.mean)
    np.testing.assert_array_equal(back.standard_error, stage.standard_error)
    assert back.receivers == stage.receivers


def test_sets_are_written_in_one_order():
    sites = [Site(Head(layer, 0), "last") for layer in range(20)]
    texts = {str(serialize.to_json(frozenset(order))) for order in (sites, sites[::-1])}
    assert len(texts) == 1


def test_undefined_figures_are_null_and_come_back():
    text = json.dumps(
        serialize.to_json({"figure": UNDEFINED, "infinite": [math.inf]}), allow_nan=False
    )
    data = json.loads(text)
    assert data["figure"]["value"] is None
    assert data["infinite"] == [None]
    back = serialize.from_json(Estimate, data["figure"])
    assert math.isnan(back.value)
    assert back.n == 100


@pytest.mark.parametrize(
    "data", [None, 3, [], {}, {"value": "x", "low": 0, "high": 0, "n": 1}, {"value": 1}]
)
def test_anything_else_is_refused(data):
    with pytest.raises(UserError, match="Compute it again"):
        serialize.from_json(Estimate, data)


@pytest.mark.parametrize("head", [[1], [1, "2"], [1, True], "L1.2", {}])
def test_other_things_are_not_heads(head):
    with pytest.raises(UserError, match="Compute it again"):
        serialize.from_json(Head, head)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (Component, "o"),
        (Component, ["q"]),
        (Site, [[1, 2]]),
        (Site, [[1, 2], 3]),
        (Circuit, {"task": "entity-tracking", "nodes": [["E", [1, 2]]], "name": "c"}),
        (Task, "no such task"),
        (tuple[int, str], [1]),
        (tuple[int, ...], [1, True]),
        (int, 1.0),
        (float, False),
        (Stage, {"group": "A", "mean": [[0], [0, 1]], "standard_error": [[0]], "receivers": []}),
        (Stage, {"group": "A", "mean": [], "standard_error": [[0]], "receivers": []}),
    ],
)
def test_other_kinds_are_refused(kind, data):
    with pytest.raises(UserError, match=r"(Compute it again|Choose)"):
        serialize.from_json(kind, data)


def test_what_an_earlier_version_did_not_know_has_its_default():
    data = serialize.to_json(
        MinimalityRequest(
            "a", Circuit(ENTITY_TRACKING, frozenset(), "c"), Prompts(ENTITY_TRACKING, 5, 0, (3,))
        )
    )
    del data["removed"]
    assert serialize.from_json(MinimalityRequest, data).removed == 0.3
