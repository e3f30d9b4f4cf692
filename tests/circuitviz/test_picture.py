"""The picture's data: plain JSON, and true to the graph."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.core.heads import ModelShape
from backend.core.statistics import Estimate
from backend.tasks.circuit import Circuit
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.task import Group
from circuitviz.graph import NodeKey, circuit_graph, outside_heads
from circuitviz.layout import circuit_layout
from circuitviz.palette import SHAPES, ink_on
from circuitviz.picture import Contribution, Picture, circuit_picture, node_id, score_text
from tests.circuitviz.samples import TINY, WORDS, tiny_circuit
from tests.circuitviz.strategies import circuits

ORDER = ("D", "C", "B", "A")


def picture_of(
    circuit: Circuit, shape: ModelShape, scores: dict[NodeKey, float] | None = None
) -> Picture:
    graph = circuit_graph(circuit, shape, scores)
    return circuit_picture(graph, circuit_layout(graph, shape), WORDS)


@given(circuits())
@settings(deadline=None, max_examples=25)
def test_the_data_is_plain_json_and_holds_every_edge(drawn: tuple[Circuit, ModelShape]) -> None:
    graph = circuit_graph(*drawn)
    picture = circuit_picture(graph, circuit_layout(graph, drawn[1]))
    data = json.loads(json.dumps(picture.data, allow_nan=False))
    assert len(data["nodes"]) == len(drawn[0].members) == len(picture.members)
    assert sum(len(node["to"]) for node in data["nodes"]) == graph.number_of_edges()


def test_sizes_compare_across_groups() -> None:
    circuit = tiny_circuit()
    scores = {key: -(4.0 ** -ORDER.index(key[0])) for key in circuit.members}
    sizes = {node["id"]: node["size"] for node in picture_of(circuit, TINY, scores).data["nodes"]}
    for key in circuit.members:
        assert sizes[node_id(key)] == 2.0 ** -ORDER.index(key[0])


def test_a_head_outside_does_not_shrink_those_inside() -> None:
    circuit, (outside, *_) = tiny_circuit(), outside_heads(tiny_circuit(), TINY)
    scores = dict.fromkeys(circuit.members, -0.1) | {outside: -0.9}
    graph = circuit_graph(circuit, TINY, scores, extra=[outside])
    data = circuit_picture(graph, circuit_layout(graph, TINY)).data
    assert {node["size"] for node in data["nodes"]} == {1.0}


def test_heads_that_hinder_are_marked_inside_and_outside_and_noise_is_not() -> None:
    circuit, (outside, noise, *_) = tiny_circuit(), outside_heads(tiny_circuit(), TINY)
    inside = circuit.members[0]
    scores = dict.fromkeys(circuit.members, -0.5) | {inside: 0.3, outside: 0.4, noise: 0.01}
    graph = circuit_graph(circuit, TINY, scores, extra=[outside, noise])
    nodes = circuit_picture(graph, circuit_layout(graph, TINY)).data["nodes"]
    hindering = [node for node in nodes if node["hinders"]]
    assert [node["id"] for node in hindering] == [node_id(inside), node_id(outside)]
    assert all("hinders the answer" in node["spoken"] for node in hindering)


def test_how_sure_a_score_is_goes_with_it() -> None:
    circuit = tiny_circuit()
    key, other = circuit.members[:2]
    graph = circuit_graph(circuit, TINY, {key: -0.4}, evidence={key: "z −7.1, n = 100"})
    nodes = circuit_picture(graph, circuit_layout(graph, TINY)).data["nodes"]
    said = {node["id"]: node["evidence"] for node in nodes}
    assert said[node_id(key)] == "z −7.1, n = 100"
    assert said[node_id(other)] is None


def test_contributions_colour_what_is_clear_and_leave_the_rest_an_outline() -> None:
    circuit = tiny_circuit()
    first, second, third = circuit.members[:3]
    contributions = {
        first: Contribution(Estimate(2.0, 1.5, 2.5, 50), True),
        second: Contribution(Estimate(-1.0, -1.5, -0.5, 50), True),
        third: Contribution(Estimate(9.0, -9.0, 27.0, 50), False),
    }
    graph = circuit_graph(circuit, TINY)
    layout = circuit_layout(graph, TINY)
    plain = circuit_picture(graph, layout, WORDS).data
    data = circuit_picture(graph, layout, WORDS, contributions=contributions).data
    nodes = {node["id"]: node for node in json.loads(json.dumps(data, allow_nan=False))["nodes"]}
    assert [nodes[node_id(key)]["share"] for key in contributions] == [1.0, -0.5, None]
    assert nodes[node_id(first)]["adds"] == "adds directly +2.00, 95 %: 1.50 to 2.50, n = 50"
    assert nodes[node_id(third)]["adds"].endswith("not clear")
    others = [node for name, node in nodes.items() if name not in map(node_id, contributions)]
    assert others
    for node in others:
        assert (node["share"], node["adds"][:21]) == (None, "adds nothing directly")
    assert data["contributions"] == "−2.0 – +2.0"
    assert plain["contributions"] is None
    assert "share" not in plain["nodes"][0]


def test_columns_carry_the_prompts_own_words() -> None:
    columns = picture_of(tiny_circuit(), TINY).data["columns"]
    assert [column["group"] for column in columns] == ["D", "C", "B", "A"]
    assert columns[0]["word"] == "previous “F”"


def test_a_screen_reader_hears_head_name_group_and_score() -> None:
    circuit = tiny_circuit()
    key = circuit.members[0]
    node = picture_of(circuit, TINY, {key: -0.412}).data["nodes"][0]
    assert node["spoken"] == f"{key[1]}, Structure Reader, group D, score −0.41"


def test_a_picture_to_be_looked_at_says_nothing_of_switches() -> None:
    graph = circuit_graph(tiny_circuit(), TINY)
    data = circuit_picture(graph, circuit_layout(graph, TINY), switchable=False).data
    assert not data["switchable"]
    assert "switch" not in data["title"]
    assert "switch" in picture_of(tiny_circuit(), TINY).data["title"]


def test_outside_heads_are_told_apart() -> None:
    circuit = tiny_circuit()
    graph = circuit_graph(circuit, TINY, extra=outside_heads(circuit, TINY))
    picture = circuit_picture(graph, circuit_layout(graph, TINY))
    assert picture.members == set(circuit.members)
    assert picture.outside == set(outside_heads(circuit, TINY))


@pytest.mark.parametrize(
    ("score", "text"),
    [(None, "not measured"), (-0.4123, "−0.41"), (0.5, "+0.50"), (-0.0021, "−0.0021")],
)
def test_score_text(score: float | None, text: str) -> None:
    assert score_text(score) == text


@given(st.sampled_from(ENTITY_TRACKING.groups))
def test_ink_can_be_read_on_its_colour(group: Group) -> None:
    assert contrast(group.colour, ink_on(group.colour)) >= 4.5


def test_groups_differ_in_shape_and_colour() -> None:
    groups = ENTITY_TRACKING.groups
    looks = {SHAPES[group.shape] for group in groups}
    assert len(looks) == len({group.colour for group in groups}) == len(groups)


def contrast(first: str, second: str) -> float:
    """The contrast ratio of two colours, after WCAG 2."""
    lighter, darker = sorted((luminance(first), luminance(second)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(weight * p for weight, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
