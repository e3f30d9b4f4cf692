"""Circuits to draw: a tiny one made up with a seed, and the published ones of the 7B models."""

from __future__ import annotations

import json
import random
from pathlib import Path

from backend.core.heads import Head, ModelShape
from backend.tasks.circuit import Circuit
from backend.tasks.entity_tracking import ENTITY_TRACKING
from circuitviz.graph import NodeKey

PUBLISHED = (
    Path(__file__).parents[2] / "cache" / "published",
    Path(__file__).parents[3] / "shared" / "published",
)
WORDS = {"D": "previous “F”", "C": "query “F”", "B": "the", "A": "the"}
TARGETS = {
    "A": "the right object",
    "B": "the query's label",
    "C": "the previous “F”",
    "D": "its own segment",
}
LLAMA = ModelShape(32, 32, 32, 128)
TINY = ModelShape(5, 8, 8, 32)

Sample = tuple[Circuit, ModelShape, dict[NodeKey, float], dict[NodeKey, str]]


def published_names() -> tuple[str, ...]:
    """The models whose circuits are at hand."""
    return tuple(_published()) if _folder() else ()


def sample(name: str) -> Sample:
    """A circuit by name, with scores and attention targets made up where none are published."""
    circuit, shape = (tiny_circuit(), TINY) if name == "tiny" else (published(name), LLAMA)
    rng = random.Random(0)
    scores = {key: -0.4 * rng.random() ** 2 for key in circuit.members}
    return circuit, shape, scores, {key: TARGETS[key[0]] for key in circuit.members}


def tiny_circuit() -> Circuit:
    """32 heads in 5 layers of 8."""
    layers = {"D": {1: 5, 2: 2}, "C": {2: 6, 3: 2}, "B": {3: 7}, "A": {3: 2, 4: 8}}
    rng = random.Random(1)
    return Circuit.of(
        ENTITY_TRACKING,
        {
            group: tuple(
                Head(layer, index)
                for layer, count in counts.items()
                for index in sorted(rng.sample(range(8), count))
            )
            for group, counts in layers.items()
        },
        "tiny",
    )


def published(name: str) -> Circuit:
    """A circuit of the paper."""
    groups = {
        group: tuple(sorted(Head(*pair) for pair in _published()[name][group]))
        for group in ENTITY_TRACKING.keys
    }
    return Circuit.of(ENTITY_TRACKING, groups, name)


def _folder() -> Path | None:
    return next((path for path in PUBLISHED if (path / "circuits.json").exists()), None)


def _published() -> dict[str, dict[str, list[list[int]]]]:
    folder = _folder()
    assert folder, "no published circuits at hand"
    data: dict[str, dict[str, list[list[int]]]] = json.loads((folder / "circuits.json").read_text())
    return data
