"""A circuit as graphs that other tools read: GraphML, and the JSON of attribution graphs.

The latter is Neuronpedia's published schema, version 1.0.0 (`apps/webapp/app/api/graph/
graph-schema.json` of github.com/hijohnnylin/neuronpedia), with attention heads as nodes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import networkx as nx

from backend.core.heads import ModelShape
from backend.tasks.circuit import Circuit
from backend.tasks.prompts import PromptSet
from circuitviz.graph import LOGITS, circuit_graph
from circuitviz.picture import node_id
from circuitviz.provenance import scores_of
from takehome.citations import VERSION, Subject
from takehome.edges import edge_weights
from takehome.names import plain

ATTRIBUTION_SCHEMA = "1.0.0"
_WEIGHTS = (
    "Nodes are attention heads, each at one token of this prompt, the first of those that were "
    "drawn. A link’s weight is its path-patching score with the sign turned, so that a positive "
    "one works for the right answer: of the edge where edges were measured, else of the head that "
    "it comes from; 1 where no score came with the circuit."
)


@dataclass(frozen=True)
class Worked:
    """One prompt: its tokens as text, at which of them each group works, and the right answer."""

    text: str
    tokens: tuple[str, ...]
    at: Mapping[str, int]
    answer_id: int
    answer: str


def worked(prompts: PromptSet, number: int, decode: Callable[[list[int]], str]) -> Worked:
    """One of the prompts, as text."""
    ids = prompts.input_ids[number].tolist()
    answer_id = int(prompts.answer_ids[number])
    return Worked(
        prompts.texts[number],
        tuple(decode([token]) for token in ids),
        {
            group.key: int(prompts.positions[group.position][number])
            for group in prompts.task.groups
        },
        answer_id,
        decode([answer_id]).strip(),
    )


def graphml(subject: Subject, shape: ModelShape) -> str:
    """Heads with group, token and score, edges with how they are read and their score.

    `weight` is the size of the score, as tools want weights that are not negative; where edges were
    not measured, both are those of the head that an edge comes from. Raises UserError if the model
    lacks a head.
    """
    drawn = _graph(subject.circuit, shape)
    graph: nx.DiGraph = nx.DiGraph(
        circuit=_text(subject.circuit.name),
        model=_text(subject.model),
        task=_text(subject.prompts.task.name),
        prompts=_text(subject.prompts),
        measured=_text(subject.date),
        tool=f"Circuit explorer {VERSION}",
        scores="path patching; negative: the answer needs it",
    )
    for node, found in drawn.nodes.items():
        if node == LOGITS:
            graph.add_node(LOGITS, label=LOGITS)
            continue
        group, head = node
        graph.add_node(
            node_id(node),
            label=str(head),
            group=group,
            group_name=_text(subject.circuit.task.group(group).name),
            layer=head.layer,
            head=head.index,
            token=found["position"],
            **_score(found["score"]),
        )
    for (source, target), kind, score in _edges(drawn):
        graph.add_edge(
            node_id(source),
            target if target == LOGITS else node_id(target),
            kind=kind,
            **_score(score),
            weight=1.0 if score is None else abs(score),
        )
    return "\n".join(nx.generate_graphml(graph)) + "\n"


def attribution_graph(subject: Subject, shape: ModelShape, prompt: Worked) -> str:
    """The circuit on one prompt, in the JSON of attribution graphs.

    A head of two groups that work at one token is one node. Raises UserError if the model lacks a
    head.
    """
    circuit = subject.circuit
    drawn = _graph(circuit, shape)
    last = len(prompt.tokens) - 1
    names = {
        node: f"{node[1].layer}_{node[1].index}_{prompt.at[node[0]]}" for node in circuit.members
    }
    logit = f"{shape.n_layers}_{prompt.answer_id}_{last}"
    nodes: dict[str, dict[str, Any]] = {}
    for (group, head), name in names.items():
        label = f"{group}: {circuit.task.group(group).name} {head}"
        if name in nodes:
            nodes[name]["clerp"] += f"; {label}"
            continue
        nodes[name] = {
            "node_id": name,
            "feature": head.index,
            "layer": str(head.layer),
            "ctx_idx": prompt.at[group],
            "feature_type": "attention head",
            "jsNodeId": f"{head.layer}_{head.index}-{prompt.at[group]}",
            "clerp": label,
            "influence": None,
            "activation": None,
        }
    nodes[logit] = {
        "node_id": logit,
        "feature": prompt.answer_id,
        "layer": str(shape.n_layers),
        "ctx_idx": last,
        "feature_type": "logit",
        "jsNodeId": f"{shape.n_layers}_{prompt.answer_id}-{last}",
        "clerp": f"Output “{prompt.answer}”",
        "influence": None,
        "activation": None,
    }
    links = {
        (names[source], logit if target == LOGITS else names[target]): score
        for (source, target), _, score in _edges(drawn)
    }
    found = {
        "metadata": {
            "slug": plain(f"{circuit.name}-of-{subject.model}").lower() or "circuit",
            "scan": subject.model,
            "prompt_tokens": prompt.tokens,
            "prompt": prompt.text,
            "info": {
                "description": f"Circuit “{circuit.name}” for {circuit.task.title.lower()}. "
                f"{_WEIGHTS}",
                "generator": {"name": "Circuit explorer", "version": VERSION},
            },
            "generation_settings": {
                "method": subject.how,
                "task": circuit.task.name,
                "prompts": subject.prompts.n,
                "seed": subject.prompts.seed,
                "schema": ATTRIBUTION_SCHEMA,
            },
        },
        "qParams": {
            "linkType": "both",
            "pinnedIds": [*nodes],
            "clickedId": "",
            "supernodes": [
                [circuit.task.group(key).name, *(names[key, head] for head in circuit.heads(key))]
                for key in circuit.task.keys
                if circuit.heads(key)
            ],
            "sg_pos": "",
        },
        "nodes": [*nodes.values()],
        "links": [
            {"source": source, "target": target, "weight": 1.0 if score is None else -score}
            for (source, target), score in links.items()
        ],
    }
    return json.dumps(found, indent=1, ensure_ascii=False)


def _graph(circuit: Circuit, shape: ModelShape) -> nx.DiGraph:
    scores = scores_of(circuit, circuit.members)
    return circuit_graph(circuit, shape, scores, weights=edge_weights(circuit))


def _edges(drawn: nx.DiGraph) -> Iterator[tuple[tuple[Any, Any], str, float | None]]:
    """Each edge, how it is read, and its score; once some are measured, the others are no edges."""
    is_measured = any(found["weight"] is not None for found in drawn.edges.values())
    for (source, target), found in drawn.edges.items():
        score = found["weight"] if is_measured else drawn.nodes[source]["score"]
        if score is not None or not is_measured:
            yield (source, target), found["kind"], score


def _score(score: float | None) -> Mapping[str, float]:
    return {} if score is None else {"score": score}


def _text(words: object) -> str:
    """Words that XML can hold."""
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in str(words)
    )
