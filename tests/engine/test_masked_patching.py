"""Masks over heads: logits and gradients against plain hooked runs of the whole prompts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from backend.core.heads import Head, Site
from backend.engine.activation_patching import patched_logits, prepare_clean
from backend.engine.masked_patching import masked_logits
from backend.engine.positions import position_head_outputs
from backend.tasks.entity_tracking import sample_prompts
from tests import oracles, tiny

TOKENIZER = tiny.word_tokenizer()
BASE = sample_prompts(TOKENIZER, 5, n_boxes=4)
ALTERNATE = sample_prompts(TOKENIZER, 5, seed=1, n_boxes=3)
"""Of another length: each prompt has its own tokens."""
EXPECTED = torch.tensor(BASE.choice_ids[:, 2])
SITES = (
    Site(Head(2, 0), "last"),
    Site(Head(0, 3), "query_label"),
    Site(Head(2, 3), "last"),
    Site(Head(1, 1), "prev_query_label"),
    Site(Head(3, 2), "last"),
)
MASK = torch.tensor([0.9, 0.2, 0.0, 0.55, 1.0], dtype=torch.float64)
MAKERS = {
    name: tiny.MAKERS[name]
    for name in ("llama", "grouped", "lora", "mistral", "gemma2", "phi3", "neox", "granite")
}


def merged_lora() -> Any:
    return tiny.lora_llama().merge_and_unload()


@pytest.fixture(params=[*MAKERS, "merged lora"])
def model(request: pytest.FixtureRequest) -> Any:
    return tiny.in_float64(MAKERS.get(request.param, merged_lora)())


def plainly(model: Any, mask: Tensor) -> Tensor:
    """Logits [n, vocab], each site's output mixed by hand on its way into the projection."""
    d_head = oracles.sizes(model)[3]
    others = oracles.head_outputs(model, ALTERNATE)

    def change_of(layer: int) -> oracles.Change:
        def change(flat: Tensor) -> None:
            for ((at, index), position), part in zip(SITES, mask.tolist(), strict=True):
                numbers = slice(index * d_head, (index + 1) * d_head)
                for prompt in range(len(BASE)) if at == layer else ():
                    own = flat[prompt, BASE.positions[position][prompt], numbers]
                    token = ALTERNATE.positions[position][prompt]
                    own.copy_(part * own + (1 - part) * others[at, prompt, token, index])

        return change

    return oracles.run(model, BASE, {layer: change_of(layer) for layer in range(4)})[0]


def wanted(logits: Tensor) -> Tensor:
    return logits.gather(-1, EXPECTED[:, None]).mean()


def test_logits_and_gradient_are_those_of_plain_runs(model: Any) -> None:
    values = position_head_outputs(model, ALTERNATE)
    free = MASK.clone().requires_grad_()
    logits = masked_logits(prepare_clean(model, BASE), SITES, free, values)
    torch.testing.assert_close(logits.detach(), plainly(model, MASK), rtol=0, atol=1e-12)
    (gradient,) = torch.autograd.grad(wanted(logits), free)
    step = 1e-5
    differences = torch.stack(
        [
            wanted(plainly(model, MASK + way)) - wanted(plainly(model, MASK - way))
            for way in step * torch.eye(len(SITES), dtype=torch.float64)
        ]
    )
    torch.testing.assert_close(gradient, differences / (2 * step), rtol=1e-6, atol=1e-8)
    assert (gradient.abs() > 1e-5).all(), "every head should do something"


def test_a_rounded_mask_patches_the_heads_at_zero(model: Any) -> None:
    clean, values = prepare_clean(model, BASE), position_head_outputs(model, ALTERNATE)
    for mask in (MASK.round(), torch.zeros_like(MASK), torch.ones_like(MASK)):
        patched = [site for site, part in zip(SITES, mask, strict=True) if part == 0]
        with torch.no_grad():
            logits = masked_logits(clean, SITES, mask, values)
        expected = patched_logits(clean, patched, values)
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-12)


def test_a_mask_may_be_in_other_numbers_than_the_model() -> None:
    model = tiny.llama().bfloat16()
    free = MASK.float().requires_grad_()
    clean, values = prepare_clean(model, BASE), position_head_outputs(model, ALTERNATE)
    (gradient,) = torch.autograd.grad(wanted(masked_logits(clean, SITES, free, values)), free)
    assert gradient.dtype == torch.float32
    assert gradient.isfinite().all()
    assert all(weights.grad is None for weights in model.parameters())
