"""Mean attention by role: against whole patterns, and on a planted circuit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from backend.core.errors import UserError
from backend.core.heads import Head
from backend.engine.architectures import shape_of, unwrapped
from backend.engine.attention import attention_patterns
from backend.engine.positions import input_ids
from backend.methods.attention import attention
from backend.models.loading import LoadedModel
from backend.tasks.circuit import Circuit
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.prompts import Prompts
from tests import planted, tiny

PROMPTS = Prompts(ENTITY_TRACKING, 12, 0, (3,))
EAGER = {name: maker for name, maker in tiny.MAKERS.items() if name not in tiny.STRANGERS}


def eager(kind: str) -> LoadedModel:
    model = tiny.MAKERS[kind]()
    unwrapped(model).set_attn_implementation("eager")
    return LoadedModel(kind, model, tiny.word_tokenizer(), shape_of(model))


@pytest.mark.parametrize("kind", tiny.MAKERS)
def test_patterns_are_what_the_model_tells(kind: str) -> None:
    loaded = eager(kind)
    ids = input_ids(loaded.model, PROMPTS.sample(loaded.tokenizer))
    with torch.no_grad():
        told = loaded.model(input_ids=ids, output_attentions=True, use_cache=False).attentions
    found = attention_patterns(loaded.model, ids)
    torch.testing.assert_close(found, torch.stack(told))
    torch.testing.assert_close(found.sum(-1), torch.ones_like(found[..., 0]))
    assert not found.triu(1).any()


@pytest.mark.parametrize("kind", ["grouped", "gemma2", "neox", "lora"])
def test_means_are_those_of_patterns_added_up_by_hand(kind: str) -> None:
    loaded = eager(kind)
    circuit = Circuit.of(
        ENTITY_TRACKING, {"A": (Head(3, 1),), "C": (Head(1, 2),), "D": (Head(0, 3),)}
    )
    found = attention(loaded, circuit, PROMPTS)
    drawn = PROMPTS.sample(loaded.tokenizer)
    patterns = attention_patterns(loaded.model, input_ids(loaded.model, drawn))
    targets = {role.name: role.target or "other words" for role in ENTITY_TRACKING.roles}
    for each in found.heads:
        position = ENTITY_TRACKING.group(each.group).position
        rows = np.zeros((len(drawn), len(found.targets)))
        for prompt, row in enumerate(rows):
            query = int(drawn.positions[position][prompt])
            weights = patterns[each.head.layer, prompt, each.head.index, query].tolist()
            for token, weight in enumerate(weights):
                role = drawn.roles_of(prompt)[token]
                target = "the first token" if token == 0 else targets.get(role or "", "other words")
                row[found.targets.index(target)] += weight
        for estimate, values in zip(each.by_target, rows.T, strict=True):
            assert estimate.value == pytest.approx(values.mean(), abs=1e-6)
            assert estimate.low <= estimate.value <= estimate.high
            assert estimate.n == 12


def test_planted_heads_attend_where_they_were_made_to() -> None:
    model = planted.model()
    model.set_attn_implementation("eager")
    loaded = LoadedModel("planted", model, planted.tokenizer(), shape_of(model))
    circuit = Circuit.of(ENTITY_TRACKING, planted.CIRCUIT)
    made_for = {
        "A": "the right object",
        "B": "the label in the question",
        "C": "the label asked for, in the context",
    }
    found = attention(loaded, circuit, PROMPTS)
    for each in found.heads:
        if each.group in made_for:
            mass = each.by_target[found.targets.index(made_for[each.group])]
            assert mass.value > 0.9


def test_heads_that_the_model_lacks_are_told() -> None:
    with pytest.raises(UserError, match="has only 4 layers"):
        attention(eager("llama"), Circuit.of(ENTITY_TRACKING, {"A": (Head(9, 0),)}), PROMPTS)
