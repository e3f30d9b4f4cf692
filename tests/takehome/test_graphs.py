"""GraphML is read back by networkx, the attribution graph checked against the published schema."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

import jsonschema
import networkx as nx
import pytest

from backend.core.errors import UserError
from backend.core.heads import Head, ModelShape
from backend.core.serialize import to_json
from backend.core.statistics import Estimate
from backend.methods.edges import Edge, Edges
from backend.models import catalogue
from backend.models.loaded_models import load
from backend.tasks.circuit import Circuit
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.prompts import Prompts
from circuitviz.graph import circuit_graph
from circuitviz.provenance import scores_of
from takehome.citations import Subject
from takehome.graphs import attribution_graph, graphml, worked

SHAPE = ModelShape(5, 8, 8, 16)
PROMPTS = Prompts(ENTITY_TRACKING, 10, 0, (3,))
SUBJECT = Subject(catalogue.circuit("base"), "Base <&>\x00", PROMPTS, "path patching", "2026-11-27")
# What graph-schema.json 1.0.0 of hijohnnylin/neuronpedia (commit b8efe84) requires, in our words.
TEXT, NUMBER, WHOLE = {"type": "string"}, {"type": "number"}, {"type": "integer"}
SCHEMA: dict[str, Any] = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "type": "object",
    "required": ["metadata", "qParams", "nodes", "links"],
    "properties": {
        "metadata": {
            "type": "object",
            "required": ["slug", "scan", "prompt_tokens", "prompt"],
            "properties": {
                **dict.fromkeys(("slug", "scan", "prompt"), TEXT),
                "prompt_tokens": {"type": "array", "items": TEXT},
                "info": {
                    "type": "object",
                    "properties": {
                        "description": TEXT,
                        "generator": {
                            "type": "object",
                            "properties": dict.fromkeys(("name", "version", "url", "email"), TEXT),
                        },
                    },
                },
                "generation_settings": {"type": "object"},
            },
        },
        "qParams": {
            "type": "object",
            "properties": {
                "pinnedIds": {"type": "array", "items": TEXT},
                "supernodes": {"type": "array"},
                **dict.fromkeys(("linkType", "clickedId", "sg_pos"), TEXT),
            },
        },
        "nodes": {
            "type": "array",
            "items": {
                "type": "object",
                "required": [
                    *("node_id", "feature", "layer", "ctx_idx", "feature_type"),
                    *("jsNodeId", "clerp"),
                ],
                "properties": {
                    **dict.fromkeys(("node_id", "feature_type", "jsNodeId", "clerp"), TEXT),
                    "feature": {"type": ["integer", "null"]},
                    "layer": {"type": ["string", "integer"]},
                    "ctx_idx": WHOLE,
                    "influence": {"type": ["number", "null"]},
                    "activation": {"type": ["number", "null"]},
                },
            },
        },
        "links": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["source", "target", "weight"],
                "properties": {"source": TEXT, "target": TEXT, "weight": NUMBER},
            },
        },
    },
}


def read_back(subject: Subject) -> nx.DiGraph:
    return nx.read_graphml(io.BytesIO(graphml(subject, SHAPE).encode()))


def test_graphml_is_the_circuit() -> None:
    circuit = SUBJECT.circuit
    found, drawn = read_back(SUBJECT), circuit_graph(circuit, SHAPE)
    scores = scores_of(circuit, circuit.members)
    assert found.number_of_nodes() == len(circuit.members) + 1
    assert found.number_of_edges() == drawn.number_of_edges()
    for (key, head), score in scores.items():
        node = found.nodes[f"{key} {head}"]
        assert (node["group"], node["layer"], node["head"]) == (key, head.layer, head.index)
        assert node["score"] == score
        for _, target, edge in found.out_edges(f"{key} {head}", data=True):
            assert edge["score"] == score
            assert edge["weight"] == abs(score)
            assert edge["kind"] == ENTITY_TRACKING.group(key).component
            assert target == "logits" or found.nodes[target]["layer"] > head.layer
    assert found.graph["model"] == "Base <&>\N{REPLACEMENT CHARACTER}"
    assert found.graph["circuit"] == "base"


def test_a_circuit_without_scores_has_edges_of_one_weight() -> None:
    bare = Circuit.of(ENTITY_TRACKING, {"A": [Head(4, 0)], "B": [Head(2, 0)]}, "bare")
    found = read_back(replace(SUBJECT, circuit=bare))
    assert {edge["weight"] for *_, edge in found.edges(data=True)} == {1.0}
    assert "score" not in found.nodes["A L4.0"]


def test_measured_edges_are_the_only_ones_and_have_their_own_scores(prompt: Any) -> None:
    a, b = Head(4, 0), Head(2, 0)
    edges = [
        Edge("B", b, a, Estimate(-0.4, -0.5, -0.3, 9, p=1e-6)),
        Edge("A", a, None, Estimate(0.1, 0.05, 0.15, 9, p=1e-6)),
    ]
    heads = {"A": [a, Head(4, 1)], "B": [b]}
    provenance = {"edges": to_json(Edges("base", "few", tuple(edges)))}
    circuit = Circuit.of(ENTITY_TRACKING, heads, "few", provenance)
    subject = replace(SUBJECT, circuit=circuit)
    found = read_back(subject)
    assert {(*pair, edge["score"], edge["weight"]) for *pair, edge in found.edges(data=True)} == {
        ("B L2.0", "A L4.0", -0.4, 0.4),
        ("A L4.0", "logits", 0.1, 0.1),
    }
    links = json.loads(attribution_graph(subject, SHAPE, prompt[0]))["links"]
    assert [link["weight"] for link in links] == [0.4, -0.1]


@pytest.fixture(scope="module")
def prompt() -> Any:
    tokenizer = load("base").tokenizer
    return worked(PROMPTS.sample(tokenizer), 2, tokenizer.decode), tokenizer


def test_the_attribution_graph_fits_the_schema_and_is_the_circuit(prompt: Any) -> None:
    shown, _ = prompt
    circuit = SUBJECT.circuit
    data = json.loads(attribution_graph(SUBJECT, SHAPE, shown))
    jsonschema.validate(data, SCHEMA)
    nodes = {node["node_id"]: node for node in data["nodes"]}
    assert len(nodes) == len(data["nodes"]) == len(circuit.sites) + 1
    scores = scores_of(circuit, circuit.members)
    drawn = circuit_graph(circuit, SHAPE)
    assert len(data["links"]) == drawn.number_of_edges()
    for link in data["links"]:
        source, target = nodes[link["source"]], nodes[link["target"]]
        assert int(source["layer"]) < int(target["layer"])
        head = Head(int(source["layer"]), source["feature"])
        assert any(link["weight"] == -scores[key, head] for key in "ABCD" if (key, head) in scores)
    assert {name for group in data["qParams"]["supernodes"] for name in group[1:]} < {*nodes}


def test_its_prompt_is_one_of_the_tasks(prompt: Any) -> None:
    shown, tokenizer = prompt
    data = json.loads(attribution_graph(SUBJECT, SHAPE, shown))
    drawn = PROMPTS.sample(tokenizer)
    assert data["metadata"]["prompt"] == drawn.texts[2]
    assert len(data["metadata"]["prompt_tokens"]) == drawn.input_ids.shape[1]
    last = drawn.input_ids.shape[1] - 1
    (logit,) = [node for node in data["nodes"] if node["feature_type"] == "logit"]
    assert (logit["feature"], logit["ctx_idx"]) == (int(drawn.answer_ids[2]), last)
    of_a = [node for node in data["nodes"] if node["clerp"].startswith("A: ")]
    assert {node["ctx_idx"] for node in of_a} == {int(drawn.positions["last"][2])}


def test_a_head_of_two_groups_at_one_token_is_one_node(prompt: Any) -> None:
    both = Circuit.of(ENTITY_TRACKING, {"A": [Head(4, 0), Head(2, 1)], "B": [Head(2, 1)]}, "both")
    data = json.loads(attribution_graph(replace(SUBJECT, circuit=both), SHAPE, prompt[0]))
    jsonschema.validate(data, SCHEMA)
    assert [node["clerp"].count("L2.1") for node in data["nodes"]].count(2) == 1
    assert len(data["nodes"]) == 3


def test_heads_that_the_model_lacks_are_refused(prompt: Any) -> None:
    small = ModelShape(2, 2, 2, 8)
    with pytest.raises(UserError):
        graphml(SUBJECT, small)
    with pytest.raises(UserError):
        attribution_graph(SUBJECT, small, prompt[0])
