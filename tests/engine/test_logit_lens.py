"""The logit lens against the model's own norm and unembedding on a hooked run, in float64."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from backend.core.errors import UserError
from backend.core.kept import Folder
from backend.engine import logit_lens
from backend.engine.logit_lens import lens_reading
from backend.tasks.entity_tracking import sample_prompts
from tests import oracles, tiny
from tests.circuits import TOKENIZER

PROMPTS = sample_prompts(TOKENIZER, 4, n_boxes=3)
NAMES = PROMPTS.task.position_names
TOKENS = np.stack([PROMPTS.positions[name] for name in NAMES], 1)


@torch.no_grad()
def entering(model: Any) -> list[Tensor]:
    """What enters each layer and leaves the last one, [n, seq, d_model] each, of a hooked run."""
    base, seen = oracles.base_of(model), []
    inner = base.get_decoder()
    blocks = inner.h if hasattr(inner, "h") else inner.layers
    final = next(
        getattr(inner, name)
        for name in ("norm", "ln_f", "final_layer_norm")
        if hasattr(inner, name)
    )

    def keep(_: Any, given: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
        seen.append(given[0] if given else named["hidden_states"])

    with ExitStack() as hooks:
        for module in (*blocks, final):
            hooks.enter_context(module.register_forward_pre_hook(keep, with_kwargs=True))
        base(input_ids=torch.tensor(PROMPTS.input_ids), use_cache=False)
    return [base.get_output_embeddings()(final(each)) for each in seen]


@pytest.mark.parametrize("name", ["llama", "lora", "gemma2", "gpt2", "neox", "olmo2"])
def test_every_layer_at_every_token(name: str) -> None:
    model = tiny.in_float64(tiny.MAKERS[name]())
    found = lens_reading(model, PROMPTS, TOKENS)
    cap = getattr(oracles.base_of(model).config, "final_logit_softcapping", None)
    for layer, logits in enumerate(entering(model)):
        for row, (tokens, answer) in enumerate(zip(TOKENS, PROMPTS.answer_ids, strict=True)):
            for place, token in enumerate(tokens):
                read = logits[row, token]
                chances = (torch.tanh(read / cap) * cap if cap else read).softmax(-1)
                others = [other for other in PROMPTS.choice_ids[row] if other != answer]
                at = row, place, layer
                assert float(found.probability[at]) == pytest.approx(float(chances[answer]))
                assert int(found.rank[at]) == 1 + int((read > read[answer]).sum())
                assert float(found.competitor[at]) == pytest.approx(float(chances[others].mean()))
                ranks = [1 + int((read > read[other]).sum()) for other in others]
                assert float(found.competitor_rank[at]) == pytest.approx(sum(ranks) / len(ranks))
                assert bool(found.forced[at]) == bool((read[answer] > read[others]).all())


def test_the_last_reading_is_the_models_answer() -> None:
    model = tiny.in_float64(tiny.grouped_llama())
    found, (logits, _) = lens_reading(model, PROMPTS, TOKENS), oracles.run(model, PROMPTS)
    place = NAMES.index("last")
    right = oracles.answer_probabilities(logits, PROMPTS)
    torch.testing.assert_close(found.probability[:, place, -1], right)


@pytest.mark.parametrize("name", tiny.STRANGERS)
def test_a_model_that_cannot_be_taken_apart_is_told_so(name: str) -> None:
    with pytest.raises(UserError, match=r"run whole.*choose another model"):
        lens_reading(tiny.MAKERS[name](), PROMPTS, TOKENS)


def test_batches_are_kept_and_taken_from_there(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIRCUIT_EXPLORER_CHUNK", "3")
    model, told = tiny.llama(), []
    first = lens_reading(model, PROMPTS, TOKENS, lambda *step: told.append(step), Folder(tmp_path))
    assert told == [(0, 4), (3, 4), (4, 4)]
    monkeypatch.setattr(logit_lens, "full_run", None)
    again = lens_reading(model, PROMPTS, TOKENS, kept_in=Folder(tmp_path))
    for one, other in zip(vars(first).values(), vars(again).values(), strict=True):
        assert (one == other).all()
