"""Attention knockout: on planted circuits the curves can be told beforehand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from backend.core.errors import UserError
from backend.core.heads import Head
from backend.core.metrics import Metric
from backend.engine.architectures import shape_of
from backend.methods.attention_knockout import (
    AttentionKnockoutRequest,
    _edges,
    attention_knockout,
    edge_words,
)
from backend.methods.registry import METHODS
from backend.models.loading import LoadedModel
from backend.tasks.attention_edges import RANDOM, AttentionEdge
from backend.tasks.edge_tokens import tokens_of, with_random_tokens
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.ioi import IOI
from backend.tasks.prompts import Prompts
from tests import planted, planted_ioi

PROMPTS = Prompts(ENTITY_TRACKING, 60, 0, (3,))
READS = {
    AttentionEdge("last", "correct_object"): 3,
    AttentionEdge("last", "query_label"): 2,
    AttentionEdge("query_label", "prev_query_label"): 1,
}
"""The layer in which the planted circuit reads along each edge."""
CONTROLS = [AttentionEdge("last", RANDOM), AttentionEdge("query_label", RANDOM)]


def loaded() -> LoadedModel:
    model = planted.model()
    model.set_attn_implementation("eager")
    return LoadedModel("planted", model, planted.tokenizer(), shape_of(model))


def asked(**changes) -> AttentionKnockoutRequest:
    return replace(
        AttentionKnockoutRequest(("planted",), PROMPTS, ENTITY_TRACKING.edges), **changes
    )


def values(found):
    return {curve.edge: [each.value for each in curve.by_layer] for curve in found.curves}


def test_cutting_below_where_it_is_read_costs_the_answer_and_above_nothing() -> None:
    found = attention_knockout(loaded(), asked())
    assert found.whole.value == 1
    assert found.whole.n == found.choice.share.n == 60
    curves = values(found)
    for edge, layer in READS.items():
        assert all(share < 0.6 for share in curves[edge][: layer + 1])
        assert curves[edge][layer + 1 :] == [1] * (3 - layer)
    # The lowest layer finds the full stop, which a random token may be.
    assert all(share > 0.9 for edge in CONTROLS for share in curves[edge])
    for curve, clear in zip(found.curves, found.clear, strict=True):
        layer = READS.get(curve.edge, -1)
        assert clear == tuple(number <= layer for number in range(4))
        for after, change in zip(curve.by_layer, curve.change, strict=True):
            assert change.value == pytest.approx(after.value - 1)
            assert after.low <= after.value <= after.high


def test_a_window_of_one_layer_hits_that_layer_only() -> None:
    curves = values(attention_knockout(loaded(), asked(window=1)))
    for edge, layer in READS.items():
        assert [share < 1 for share in curves[edge]] == [n == layer for n in range(4)]


def test_only_the_chosen_heads_are_cut() -> None:
    fetchers = frozenset(planted.CIRCUIT["A"])
    others = frozenset(Head(3, index) for index in range(4)) - fetchers
    edge = AttentionEdge("last", "correct_object")
    of_fetchers, of_others = (
        values(attention_knockout(loaded(), asked(heads=heads)))[edge]
        for heads in (fetchers, others)
    )
    assert all(share < 0.6 for share in of_fetchers)
    assert of_others == [1] * 4


def test_another_metric_moves_where_accuracy_does() -> None:
    found = attention_knockout(loaded(), asked(metric=Metric.logit_difference))
    first = {curve.edge: curve.change[0] for curve in found.curves}
    assert all(first[edge].high < 0 for edge in READS)


def test_a_planted_ioi_circuit_needs_its_edges() -> None:
    model = planted_ioi.model()
    model.set_attn_implementation("eager")
    small = LoadedModel("planted", model, planted_ioi.tokenizer(), shape_of(model))
    request = AttentionKnockoutRequest(("planted",), Prompts(IOI, 40, 0), IOI.edges)
    found = attention_knockout(small, request)
    first = {curve.edge: curve.by_layer[0].value for curve in found.curves}
    assert found.whole.value == 1
    for edge in (AttentionEdge("end", "io"), AttentionEdge("end", "s2")):
        assert first[edge] < 0.8
    assert first[AttentionEdge("end", RANDOM)] == 1


@pytest.mark.parametrize("task", [ENTITY_TRACKING, IOI], ids=["boxes", "ioi"])
def test_random_keys_are_earlier_tokens_without_a_name(task) -> None:
    tokenizer = planted.tokenizer() if task == ENTITY_TRACKING else planted_ioi.tokenizer()
    drawn = with_random_tokens(Prompts(task, 200, 3).sample(tokenizer), task.edges)
    few = with_random_tokens(Prompts(task, 20, 3).sample(tokenizer), task.edges)
    names = {*task.edge_tokens}
    for edge in (edge for edge in task.edges if edge.key == RANDOM):
        query, key = tokens_of(drawn, edge)
        assert (key < query).all()
        assert all((key != drawn.positions[name]).all() for name in names)
        np.testing.assert_array_equal(tokens_of(few, edge)[1], key[:20])
        allowed = [
            {*range(q)} - {int(drawn.positions[name][row]) for name in names}
            for row, q in enumerate(query)
        ]
        assert len(set(key.tolist())) >= 0.7 * max(map(len, allowed))


def test_tasks_name_the_tokens_of_their_edges() -> None:
    assert ENTITY_TRACKING.edge_tokens == (
        "last", "correct_object", "query_label", "prev_query_label",
    )  # fmt: skip
    assert edge_words(ENTITY_TRACKING, CONTROLS[0]) == "last token → a random earlier token"
    prompts = Prompts(IOI, 3, 0).sample(planted_ioi.tokenizer())
    assert {*IOI.edge_tokens} <= prompts.positions.keys()
    with pytest.raises(KeyError):
        IOI.token_words("nothing")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"edges": ()}, "No pair of tokens"),
        ({"edges": (AttentionEdge("last", "last"),)}, "two different tokens"),
        ({"edges": (AttentionEdge("end", "last"),)}, "has no token “end”"),
        ({"edges": (AttentionEdge(RANDOM, "last"),)}, "has no token “random”"),
        ({"edges": (AttentionEdge("last", "io"),)}, "has no token “io”"),
        ({"window": 0}, "not 0"),
    ],
)
def test_what_there_cannot_be_is_refused(changes, message) -> None:
    with pytest.raises(UserError, match=message):
        asked(**changes)


def test_what_looks_forward_has_nothing_to_cut() -> None:
    request = asked(edges=(AttentionEdge("prev_query_label", "last"),))
    with pytest.raises(UserError, match=r"nothing to cut.*Swap"):
        attention_knockout(loaded(), request)


def test_heads_that_the_model_lacks_are_told() -> None:
    with pytest.raises(UserError, match=r"no head L9\.0"):
        attention_knockout(loaded(), asked(heads=frozenset({Head(9, 0)})))


def test_no_earlier_token_is_told() -> None:
    drawn = Prompts(ENTITY_TRACKING, 3, 0).sample(planted.tokenizer())
    at_start = replace(drawn, positions={**drawn.positions, "last": np.zeros(3, dtype=np.int64)})
    with pytest.raises(UserError, match="Choose another pair"):
        with_random_tokens(at_start, CONTROLS)


def test_the_command_reads_pairs() -> None:
    assert _edges("last:random,query_label:last") == (
        AttentionEdge("last", RANDOM),
        AttentionEdge("query_label", "last"),
    )
    method = METHODS["attention-knockout"]
    request = asked(heads=frozenset({Head(3, 1)}), window=2)
    assert "heads L3.1" in method.settings(request)
    assert "window of 2 layers" in method.settings(request)
    assert [site.head for site in method.sites(request)] == [Head(3, 1)]
