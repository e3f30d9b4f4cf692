"""The phases of training: which documents, how large, how much knocked out, at which rate.

A curriculum of sub-skills: read the ordinal of a segment at its label; carry it to the last token;
fetch the item of a given ordinal; only then the task. It makes so small a model learn the task at
all, and gives the paper's positional mechanism rather than carrying the object through the label.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from backend.bundled.documents import (
    DIALOGUE,
    NUMBERS_IN_BOXES,
    NUMBERS_IN_VARIABLES,
    OBJECTS_IN_BOXES,
    OBJECTS_IN_VARIABLES,
    SUMS_IN_BOXES,
    Documents,
    Kind,
    Query,
    additions,
    entity_documents,
)

T = TypeVar("T")


@dataclass(frozen=True)
class Ramp:
    """A number that goes from `start` to `end` in `steps` steps and then stays."""

    start: float
    end: float
    steps: int = 1

    def at(self, step: int) -> float:
        """The number at a step, counted from zero."""
        return self.start + (self.end - self.start) * min(1.0, step / self.steps)


@dataclass(frozen=True)
class Mixture:
    """What documents are drawn from; weights need not sum to one.

    kinds: kind of document -> weight; additions: the weight of plain additions;
    queries: query -> weight; sizes: number of segments -> weight.
    """

    kinds: Mapping[Kind, float]
    additions: float
    queries: Mapping[Query, float]
    sizes: Mapping[int, float]

    def draw(self, batch: int, rng: np.random.Generator) -> Documents:
        """A batch of documents of one kind, one size and one query."""
        size = _choose(self.sizes, rng)
        kind = _choose({**self.kinds, None: self.additions}, rng)
        if kind is None:
            return additions(size, batch, rng)
        return entity_documents(kind, _choose(self.queries, rng), size, batch, rng)


@dataclass(frozen=True)
class Phase:
    """A stretch of training; `goal`, once answered well, ends it before its `steps` are over.

    `name_size` shrinks the embeddings of the names of boxes and variables, in powers of ten.
    """

    name: str
    steps: int
    mixture: Mixture
    rate: Ramp
    ablated_share: Ramp
    goal: Query | None = None
    name_size: Ramp | None = None


@dataclass(frozen=True)
class FineTune:
    """How a model is made out of the base; training stops early once the task's accuracy has
    risen by `gain`, because it would saturate."""

    name: str
    label: str
    finetuned_on: str
    paper_counterpart: str
    phase: Phase
    lora: bool
    gain: float | None


def _choose(weights: Mapping[T, float], rng: np.random.Generator) -> T:
    options, chances = list(weights), np.array(list(weights.values()))
    return options[int(rng.choice(len(options), p=chances / chances.sum()))]


def _queries(ordinal: float, index: float) -> dict[Query, float]:
    """Weights of queries: `index` of all read the ordinal at the label; `ordinal` of the rest ask
    for or by an ordinal, half each; what is left is the task itself."""
    return {
        Query.index: index,
        Query.label_to_number: (1 - index) * ordinal / 2,
        Query.number_to_item: (1 - index) * ordinal / 2,
        Query.lookup: (1 - index) * (1 - ordinal),
    }


def _kinds(boxes: float, others: float) -> dict[Kind, float]:
    transfer = (NUMBERS_IN_VARIABLES, NUMBERS_IN_BOXES, OBJECTS_IN_VARIABLES)
    return {OBJECTS_IN_BOXES: boxes} | {kind: others / len(transfer) for kind in transfer}


_FULL_RATE = Ramp(2e-3, 2e-3)
_NEVER = Ramp(0.0, 0.0)
_SIMPLE = {OBJECTS_IN_BOXES: 0.87, NUMBERS_IN_VARIABLES: 0.13}


def _ordinals(name: str, steps: int, largest: int, goal: Query | None = None) -> Phase:
    sizes = dict.fromkeys(range(2, largest + 1), 1.0)
    return Phase(
        name, steps, Mixture(_SIMPLE, 0, _queries(0.8, 0.25), sizes), _FULL_RATE, _NEVER, goal
    )


_BROAD = Mixture(
    _kinds(0.60, 0.34),
    0.06,
    _queries(0.4, 0.05),
    {2: 1, 3: 1, 4: 1, 5: 1, 6: 0.8, 7: 0.6},
)


CURRICULUM = (
    Phase(
        "1: ordinal at the label",
        150,
        Mixture(_SIMPLE, 0, _queries(0, 1), {2: 1}),
        Ramp(0.0, 2e-3, 50),
        _NEVER,
    ),
    _ordinals("2a: by ordinal, 2 boxes", 150, 2),
    _ordinals("2b: by ordinal, 2-3 boxes", 300, 3),
    _ordinals("2c: by ordinal, 2-4 boxes", 800, 4, Query.label_to_number),
    Phase(
        "3: the task",
        800,
        Mixture(
            {OBJECTS_IN_BOXES: 0.80, NUMBERS_IN_VARIABLES: 0.17},
            0.03,
            _queries(0.5, 0.1),
            {2: 1, 3: 1, 4: 1, 5: 1},
        ),
        _FULL_RATE,
        _NEVER,
        Query.lookup,
    ),
    Phase(
        "3.5: other kinds, up to 7 boxes",
        50,
        Mixture(
            _kinds(0.70, 0.25),
            0.05,
            _queries(0.4, 0.05),
            {2: 1, 3: 1, 4: 1, 5: 1, 6: 0.6, 7: 0.4},
        ),
        _FULL_RATE,
        _NEVER,
    ),
    Phase(
        "4a: with most heads knocked out",
        700,
        _BROAD,
        Ramp(2e-3, 1e-3, 600),
        Ramp(0.21, 0.65, 200),
    ),
    Phase(
        "4b: and names to be read by heads",
        1400,
        _BROAD,
        Ramp(1e-3, 3e-4, 800),
        Ramp(0.65, 0.65),
        name_size=Ramp(0.0, -3.0, 200),
    ),
)
"""The base model's training, in order."""


_ARITHMETIC = Mixture(
    {SUMS_IN_BOXES: 0.5, OBJECTS_IN_VARIABLES: 0.4},
    0.1,
    {Query.lookup: 1},
    {5: 1, 6: 1, 7: 1, 8: 1},
)
_HALF = Ramp(0.5, 0.5)

FINE_TUNES = (
    FineTune(
        "arithmetic-lora",
        "Arithmetic (LoRA)",
        "additions, sums of numbers in boxes, objects in variables; never an object in a box",
        "Goat-7B",
        Phase("arithmetic", 400, _ARITHMETIC, Ramp(1e-3, 0.0, 400), _HALF),
        lora=True,
        gain=0.15,
    ),
    FineTune(
        "arithmetic-full",
        "Arithmetic (full)",
        "additions, sums of numbers in boxes, objects in variables; never an object in a box",
        "FLoat-7B",
        Phase("arithmetic", 600, _ARITHMETIC, Ramp(4e-4, 0.0, 600), _HALF),
        lora=False,
        gain=0.15,
    ),
    FineTune(
        "chat",
        "Chat",
        "questions and answers about boxes in a dialogue, among plain statements about boxes",
        "Vicuna-7B",
        Phase(
            "dialogue",
            300,
            Mixture(
                {DIALOGUE: 0.6, OBJECTS_IN_BOXES: 0.4},
                0,
                {Query.lookup: 1},
                dict.fromkeys(range(2, 8), 1),
            ),
            Ramp(3e-4, 0.0, 300),
            _HALF,
        ),
        lora=False,
        gain=None,
    ),
)
"""The models made out of the base."""
