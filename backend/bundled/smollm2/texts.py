"""What the adapters of SmolLM2 are trained on: boxes, and arithmetic, with what is to be answered.

Only answers are learned. Texts are padded at their end, which a causal model never sees from
before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.tasks.entity_tracking import sample_prompts
from backend.tasks.prompts import Ints, generators
from backend.tasks.vocabulary import tokenized

TRAINING_SEED = 1_500_000_000
"""The first seed of training prompts; each step has its own. Far from those that users choose."""
LARGEST = 999
FORMS = (
    ("{a} + {b} = ", 1),
    ("{a} plus {b} is ", 1),
    ("The sum of {a} and {b} is ", 1),
    ("What is {a} + {b}? ", 1),
    ("{a} - {b} = ", -1),
    ("{a} minus {b} is ", -1),
    ("The difference of {a} and {b} is ", -1),
    ("What is {a} - {b}? ", -1),
)
"""How a sum or a difference is asked for, and the sign of its second number."""


@dataclass(frozen=True, eq=False)
class Texts:
    """Texts as tokens, and which of them are to be predicted from those before.

    input_ids [n, seq]; is_answer [n, seq].
    """

    input_ids: Ints
    is_answer: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.input_ids)


def boxes(tokenizer: Any, n: int, seed: int, n_boxes: int) -> Texts:
    """`n` prompts of entity tracking, each with its answer."""
    prompts = sample_prompts(tokenizer, n, seed, n_boxes)
    input_ids = np.hstack([prompts.input_ids, prompts.answer_ids[:, None]])
    is_answer = np.zeros(input_ids.shape, dtype=np.bool_)
    is_answer[:, -1] = True
    return Texts(input_ids, is_answer)


def arithmetic(tokenizer: Any, n: int, seed: int) -> Texts:
    """`n` sums and differences of numbers from 1 to 999, each with its answer and a full stop."""
    (rng,) = generators(seed, "arithmetic", 1)
    drawn = [_exercise(rng, held_out=False) for _ in range(n)]
    return _texts(tokenizer, [(question, f"{answer}.") for question, answer in drawn])


def held_out_arithmetic(tokenizer: Any, n: int, seed: int) -> Texts:
    """The same of the pairs of numbers that are never trained on, one in eleven; digits alone.

    Without the full stop, so that a model that ends otherwise is not wrong for that.
    """
    (rng,) = generators(seed, "held-out arithmetic", 1)
    return _texts(tokenizer, [_exercise(rng, held_out=True) for _ in range(n)])


def is_held_out(a: int, b: int) -> bool:
    """Whether a pair of numbers is kept from training; its digits do not tell."""
    return (a + 3 * b) % 11 == 0


def _exercise(rng: np.random.Generator, held_out: bool) -> tuple[str, str]:
    """A question and its answer; as many digits are as likely in each number."""
    form, sign = FORMS[rng.integers(len(FORMS))]
    while True:
        a, b = (int(rng.integers(10 ** int(rng.integers(1, 4)))) for _ in range(2))
        if sign < 0 and a < b:
            a, b = b, a
        if a and b and is_held_out(a, b) == held_out:
            return form.format(a=a, b=b), str(a + sign * b)


def _texts(tokenizer: Any, drawn: Sequence[tuple[str, str]]) -> Texts:
    """Questions, each with its answer, padded to the longest."""
    rows = tokenized(tokenizer, [question + answer for question, answer in drawn])
    shape = len(rows), max(len(ids) for ids, _ in rows)
    input_ids = np.full(shape, tokenizer.eos_token_id, dtype=np.int64)
    is_answer = np.zeros(shape, dtype=np.bool_)
    for row, ((ids, spans), (question, _)) in enumerate(zip(rows, drawn, strict=True)):
        input_ids[row, : len(ids)] = ids
        is_answer[row, : len(ids)] = [start >= len(question) for start, _ in spans]
    return Texts(input_ids, is_answer)
