"""The adapters of SmolLM2: what each is trained on, for how long, and from where."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from backend.bundled.smollm2.texts import TRAINING_SEED, Texts, arithmetic, boxes

Draw = Callable[[Any, int, int], Texts]
"""The texts of a step: of a tokenizer, the step and the training's seed."""


@dataclass(frozen=True)
class Recipe:
    """An adapter and how it is trained.

    counterpart, data: what it is for and what it is trained on, in whole sentences; base: the
    adapter that it goes on from, None for the bare model; wanted: where accuracy with seven boxes
    has to be when training stops, None to train all steps; rate: after `warmup` steps, and held if
    training stops early, else falling to zero.
    """

    name: str
    label: str
    finetuned_on: str
    counterpart: str
    data: str
    draw: Draw
    steps: int
    rate: float
    warmup: int = 10
    base: str | None = None
    wanted: tuple[float, float] | None = None

    def rate_at(self, step: int) -> float:
        """The rate of a step, the first of which is 1."""
        left = 1.0 if self.wanted else 1 - (step - 1) / self.steps
        return self.rate * left * min(1.0, step / self.warmup)


def _boxes(tokenizer: Any, step: int, seed: int) -> Texts:
    """Two boxes first, one more every five steps up to seven, then from two to seven in turn."""
    first, most = step // 5 + 2, 7
    n_boxes = min(first, most) if step % 2 else 2 + step * 5 % min(first - 1, 6)
    return boxes(tokenizer, 8, _step_seed(seed, step), n_boxes)


def _arithmetic(tokenizer: Any, step: int, seed: int) -> Texts:
    return arithmetic(tokenizer, 24, _step_seed(seed, step))


def _step_seed(seed: int, step: int) -> int:
    return TRAINING_SEED + 100_000 * seed + step


_SUMS = "sums and differences of numbers below 1,000"
_EXERCISES = (
    "24 exercises a step, generated: numbers of one to three digits, added or subtracted (never "
    "below zero), asked for in eight forms such as `214 + 38 = ` and `The difference of 90 and 7 "
    "is `; one pair of numbers in eleven is held out."
)
BOXES = Recipe(
    "smollm2-boxes",
    "SmolLM2, boxes",
    "objects in boxes (entity tracking), stopped early",
    "A small real base that does the paper’s task, as Llama-7B does, and not perfectly.",
    "8 prompts of entity tracking a step, as this tool writes them and with its own words: two "
    "boxes first, one more every five steps, then from two to seven. Seeds from "
    f"{TRAINING_SEED:,} on. Training stops when accuracy with seven boxes is between 0.64 and "
    "0.76 on 200 prompts of another seed.",
    _boxes,
    steps=300,
    rate=2e-3,
    wanted=(0.64, 0.76),
)
ARITHMETIC = Recipe(
    "smollm2-arithmetic",
    "SmolLM2, arithmetic",
    _SUMS,
    "The counterpart, in miniature, of the paper’s Goat-7B, on a base that cannot do its task.",
    _EXERCISES,
    _arithmetic,
    steps=160,
    rate=2e-3,
)
BOXES_ARITHMETIC = Recipe(
    "smollm2-boxes-arithmetic",
    "SmolLM2, boxes then arithmetic",
    f"objects in boxes, then {_SUMS}",
    "The paper’s question in miniature: a base that does the task, fine-tuned on something else.",
    f"{_EXERCISES} No boxes any more.",
    _arithmetic,
    steps=160,
    rate=2e-3,
    base=BOXES.name,
)
RECIPES = (BOXES, ARITHMETIC, BOXES_ARITHMETIC)
