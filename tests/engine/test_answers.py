"""Answers against loops that anyone can read."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from backend.core.errors import UserError
from backend.engine.answers import N_TOP, log_probability, logit_difference, read_answers
from backend.engine.answers import right as answers_right


@given(st.integers(0, 2**32 - 1), st.sampled_from([9, 128, 700]))
def test_answers_are_what_a_loop_reads(seed: int, vocab: int) -> None:
    rng = np.random.default_rng(seed)
    n, n_boxes = 6, 3
    # Few different values, so that ties happen.
    logits = rng.integers(0, 4, size=(n, vocab)).astype(float)
    objects = np.stack([rng.permutation(vocab)[:n_boxes] for _ in range(n)])
    right = objects[:, 1]
    answers = read_answers(torch.tensor(logits).split(4), _Boxes(right, objects))
    decided = answers_right(torch.tensor(logits), torch.tensor(right))
    twice = torch.tensor(logits)[:, None].expand(-1, 2, -1)
    differences = logit_difference(twice, torch.tensor(right), torch.tensor(objects))
    for i in range(n):
        row = logits[i].tolist()
        order = sorted(range(vocab), key=lambda token: (-row[token], token))
        exponentials = [np.exp(value) for value in row]
        probabilities = [each / sum(exponentials) for each in exponentials]
        others = [row[token] for token in objects[i] if token != right[i]]
        assert answers.correct[i] == decided[i] == (order[0] == right[i])
        assert answers.forced[i] == (min(objects[i], key=order.index) == right[i])
        assert answers.rank[i] == order.index(right[i]) + 1
        assert answers.probability[i] == pytest.approx(probabilities[right[i]])
        assert answers.logit_difference[i] == pytest.approx(row[right[i]] - np.mean(others))
        assert answers.logit_difference[i] == differences[i, 0] == differences[i, 1]
        kept = order[: min(N_TOP, vocab)]
        assert answers.top_ids[i].tolist() == kept
        assert answers.top[i] == pytest.approx([probabilities[token] for token in kept])
        for token in (*kept, *objects[i]):
            assert answers.probability_of(i, token) == pytest.approx(probabilities[token])
        if unkept := set(order) - {*kept, *objects[i]}:
            token = unkept.pop()
            assert np.isnan(answers.probability_of(i, token))
            assert probabilities[token] <= answers.top[i, -1] * (1 + 1e-9)


def test_large_vocabularies_are_read_as_exactly_as_in_float64() -> None:
    """Logits far from zero, where float32 has few digits after the point, and very sure answers."""
    rng = np.random.default_rng(0)
    n, vocab = 12, 50_000
    logits = torch.tensor(rng.normal(60, 3, size=(n, vocab)), dtype=torch.float32)
    objects = np.stack([rng.permutation(vocab)[:7] for _ in range(n)])
    for i in range(n):
        logits[i, objects[i, 2]] += 2 * i
    prompts = _Boxes(objects[:, 2], objects)
    answers = read_answers([logits], prompts)
    exact = logits.double().softmax(-1)
    rows = np.arange(n)
    np.testing.assert_allclose(answers.probability, exact[rows, objects[:, 2]], atol=1e-6, rtol=0)
    np.testing.assert_allclose(answers.top, exact.topk(N_TOP).values, atol=1e-6, rtol=0)
    assert answers.correct.any()
    assert not answers.correct.all()
    assert answers.top_ids.tolist() == exact.topk(N_TOP).indices.tolist()
    counted = 1 + (exact > exact[rows, objects[:, 2], None]).sum(-1)
    assert answers.rank.tolist() == counted.tolist()
    ids = torch.tensor(prompts.answer_ids)
    wanted = exact[rows, objects[:, 2]].log()[:, None].expand(-1, 2)
    read = log_probability(logits[:, None].expand(-1, 2, -1), ids)
    np.testing.assert_allclose(read, wanted, atol=1e-6, rtol=0)


def test_what_is_kept_of_a_click_does_not_grow_with_the_vocabulary() -> None:
    def kept(vocab: int) -> int:
        objects = np.arange(14).reshape(2, 7)
        answers = read_answers([torch.rand(2, vocab)], _Boxes(objects[:, 0], objects))
        return sum(getattr(answers, field.name).nbytes for field in fields(answers))

    assert kept(100) == kept(10_000)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_what_is_not_finite_is_nobodys_answer(bad: float, dtype: torch.dtype) -> None:
    """Wherever it stands: comparisons with NaN are false, and argmax takes it for the highest."""
    objects = np.arange(21).reshape(3, 7)
    prompts = _Boxes(objects[:, 0], objects)
    ids = torch.tensor(prompts.answer_ids)
    logits = torch.rand(3, 300).to(dtype)
    logits[1, 299] = bad
    cure = "float32" if dtype is torch.float16 else "weights"
    for read in (
        lambda: read_answers([logits], prompts),
        lambda: answers_right(torch.stack([logits, logits]), ids),
        lambda: log_probability(torch.stack([logits, logits], 1), ids),
        lambda: logit_difference(torch.stack([logits, logits], 1), ids, torch.tensor(objects)),
    ):
        with pytest.raises(UserError, match=rf"not finite .* 1 of 3 prompts .*{cure}"):
            read()


class _Boxes(NamedTuple):
    """As much of a prompt set as answers are read with."""

    answer_ids: Any
    choice_ids: Any

    @property
    def n_choices(self) -> int:
        return self.choice_ids.shape[1]

    def __len__(self) -> int:
        return len(self.answer_ids)
