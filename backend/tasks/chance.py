"""Is a model above chance? A share of right answers means little beside guessing.

Accuracy counts the first answer among all tokens. What can be guessed is which of the answers that
compete is right, so chance is 1 / choices, and what stands against it is the *forced choice*: how
often the right answer is ahead of the others, whatever the model says first. A model that is not
above chance has nothing that a circuit could be faithful to.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

import numpy as np
from numpy.typing import NDArray

from backend.core.estimates import Row, quotient
from backend.core.metrics import Metric
from backend.core.statistics import Estimate, wilson

Right = NDArray[np.bool_]


@dataclass(frozen=True)
class ForcedChoice:
    """How often a model puts the right answer ahead of those it competes with, beside guessing.

    share: of prompts, with its interval; chance: 1 / choices.
    """

    share: Estimate
    chance: float

    @property
    def is_above_chance(self) -> bool:
        """Whether chance lies below the interval."""
        return self.share.low > self.chance


def forced_choice(forced: Right, n_choices: int) -> ForcedChoice:
    """The share of prompts [n] on which the right answer is ahead, beside chance."""
    return ForcedChoice(wilson(forced), 1 / n_choices)


def faithfulness(
    circuit: Row, whole: Row, choice: ForcedChoice, metric: Metric = Metric.accuracy
) -> Estimate:
    """A metric of the circuit over that of the model, both [n] on the same prompts.

    Undefined where the model is not above chance, or its metric is not clearly above zero: where it
    answers hardly any prompt right.
    """
    if not choice.is_above_chance:
        return undefined(len(whole))
    return quotient(metric, circuit, whole)


def undefined(n: int) -> Estimate:
    """A figure that means nothing, on `n` prompts."""
    return Estimate(nan, nan, nan, n)


def against_chance(choice: ForcedChoice) -> str:
    """“right answer ahead of its competitors in 0.16 (0.11 to 0.21), n = 200; chance 0.14”."""
    share = choice.share
    return (
        f"right answer ahead of its competitors in {share.value:.2f} ({share.low:.2f} to "
        f"{share.high:.2f}), n = {share.n}; chance {choice.chance:.2f} ({one_in(choice)})"
    )


def one_in(choice: ForcedChoice) -> str:
    """Chance in words: 1 in 7."""
    return f"1 in {round(1 / choice.chance)}"


def warning(label: str, choice: ForcedChoice) -> str | None:
    """That a model is not above chance, and what that means; None if it is."""
    if choice.is_above_chance:
        return None
    return (
        f"{label} is not above chance on these prompts: {against_chance(choice)}. What is found "
        "in it is not about the task: choose a model that does it, or more prompts."
    )


def why_undefined(choice: ForcedChoice, n_right: int) -> str:
    """Why there is no faithfulness."""
    answered = f"The model answers {n_right} of {choice.share.n} prompts right"
    if choice.is_above_chance:
        return f"{answered}: too few to divide by."
    return f"{answered}, and is not above chance ({one_in(choice)}): there is nothing to compare."
