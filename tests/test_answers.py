"""Answers against loops that anyone can read."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.answers import read_answers


@given(st.integers(0, 2**32 - 1))
def test_answers_are_what_a_loop_reads(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, vocab, n_boxes = 6, 9, 3
    # Few different values, so that ties happen.
    logits = rng.integers(0, 4, size=(n, vocab)).astype(float)
    objects = np.stack([rng.permutation(vocab)[:n_boxes] for _ in range(n)])
    right = objects[:, 1]
    answers = read_answers(logits, _Boxes(right, objects))
    for i in range(n):
        row = logits[i].tolist()
        order = sorted(range(vocab), key=lambda token: (-row[token], token))
        exponentials = [np.exp(value) for value in row]
        others = [row[token] for token in objects[i] if token != right[i]]
        assert answers.correct[i] == (int(np.argmax(logits[i])) == right[i])
        assert answers.rank[i] == order.index(right[i]) + 1
        assert answers.probability[i] == pytest.approx(exponentials[right[i]] / sum(exponentials))
        assert answers.logit_difference[i] == pytest.approx(row[right[i]] - np.mean(others))
        assert answers.top(i, 3).tolist() == order[:3]


class _Boxes(NamedTuple):
    """As much of a prompt set as answers are read with."""

    answer_ids: Any
    object_ids: Any

    @property
    def n_boxes(self) -> int:
        return self.object_ids.shape[1]

    def __len__(self) -> int:
        return len(self.answer_ids)
