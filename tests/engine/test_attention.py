"""Attention mass against a loop over prompts, heads and tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from backend.core.heads import Head
from backend.engine.attention import attention_mass, clean_with_attention
from backend.tasks.entity_tracking import ENTITY_TRACKING, sample_prompts
from tests.tiny import MAKERS, llama, word_tokenizer


def what_is_at(words: list[str], token: int, answer: str, label: str) -> str:
    """The target class of a token, read off the words alone."""
    if token == 0:
        return "the first token"
    if token == len(words) - 3:
        return "the label in the question"
    if words[token - 1].lower() == "the" and token < len(words) - 1:
        return "the right object" if words[token] == answer else "other objects"
    if words[token - 1] == "Box":
        here = words[token] == label
        return "the label asked for, in the context" if here else "other labels"
    return "other words"


def test_mass_is_what_a_loop_adds_up() -> None:
    model, prompts = llama(), sample_prompts(word_tokenizer(), 5, n_boxes=3)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        patterns = model(torch.tensor(prompts.input_ids), output_attentions=True).attentions
    ours = attention_mass(model, prompts)
    for position in ("last", "query_label", "prev_query_label"):
        for layer, heads in enumerate(patterns):
            for head in range(heads.shape[1]):
                mass = dict.fromkeys(ENTITY_TRACKING.targets, 0.0)
                for i in range(5):
                    words = prompts.words(i)
                    answer = prompts.drawn["objects"][i][prompts.drawn["query"][i]]
                    row = heads[i, head, prompts.positions[position][i]]
                    for token, looks in enumerate(row.tolist()):
                        target = what_is_at(words, token, answer, prompts.drawn["query_labels"][i])
                        mass[target] += looks / 5
                found = ours.mass[position][layer, head]
                np.testing.assert_allclose(found, list(mass.values()), atol=1e-5)
                assert found.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("maker", MAKERS)
def test_mass_seen_in_the_clean_run_is_that_of_a_run_of_its_own(maker: str) -> None:
    model, prompts = MAKERS[maker](), sample_prompts(word_tokenizer(), 5, n_boxes=3)
    model.set_attn_implementation("eager")
    clean, found = clean_with_attention(model, prompts)
    alone = attention_mass(model, prompts)
    assert (found.n, found.targets, clean.positions) == (5, alone.targets, tuple(alone.mass))
    for position, mass in alone.mass.items():
        np.testing.assert_allclose(found.mass[position], mass, atol=1e-5)


def test_the_strongest_target_is_named() -> None:
    model, prompts = llama(), sample_prompts(word_tokenizer(), 5, n_boxes=3)
    model.set_attn_implementation("eager")
    ours = attention_mass(model, prompts)
    target, mass = ours.strongest("query_label", Head(1, 2))
    assert mass == ours.mass["query_label"][1, 2].max()
    assert mass == ours.mass["query_label"][1, 2][ENTITY_TRACKING.targets.index(target)]
