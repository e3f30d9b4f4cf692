"""Means over reference prompts: made once for a model, and never those of others."""

from __future__ import annotations

import pytest
import torch

from backend.engine.architectures import shape_of
from backend.engine.positions import mean_head_outputs
from backend.methods.reference_means import reference_means
from backend.models import loaded_models
from backend.models.loading import LoadedModel
from backend.tasks.entity_tracking import reference_prompts
from tests.tiny import llama, word_tokenizer


def loaded(seed: int) -> LoadedModel:
    model = llama(seed)
    return LoadedModel("any", model, word_tokenizer(), shape_of(model))


def test_they_are_made_once_for_a_model_that_is_kept_and_its_prompts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second, held = map(loaded, (1, 2, 3))
    told: list[float] = []

    def keep(model: LoadedModel) -> None:
        monkeypatch.setattr(loaded_models, "loaded", lambda: {"any": model})

    def asked(by: LoadedModel, seed: int = 0) -> int:
        reference = reference_prompts(word_tokenizer(), 5, n_boxes=3, seed=seed)
        found = reference_means(by, reference, lambda done, _: told.append(done))
        assert torch.equal(found, mean_head_outputs(by.model, reference))
        n_told = len(told)
        told.clear()
        return n_told

    keep(first)
    assert asked(first) > 0
    assert asked(first) == 0
    assert asked(first, seed=1) > 0
    keep(second)
    assert asked(second) > 0
    keep(first)
    assert asked(first) == 0

    assert asked(held) > 0
    with torch.no_grad():
        held.model.lm_head.weight.mul_(2)
        held.model.model.embed_tokens.weight.mul_(2)
    assert asked(held) > 0
