"""Training a LoRA adapter on answers: a step, all steps, and how right a model is about texts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from backend.bundled.smollm2.recipes import Recipe
from backend.bundled.smollm2.texts import Texts, boxes
from backend.bundled.trainings import Report, Training
from backend.bundled.validation import VALIDATION_SEED
from backend.core.errors import UserError
from backend.engine.architectures import decoder, unembed

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")
RANK = 8
CHECK_EVERY = 5
N_CHECKED, N_BOXES = 200, 7
_AT_ONCE = 16
_NEAR = 0.2
"""How far below the wanted accuracy the training's own may be for a check to be worth its time."""


def with_adapter(model: nn.Module, seed: int) -> Any:
    """The model with a new adapter on attention's projections, which does nothing yet."""
    torch.manual_seed(seed)
    config = LoraConfig(
        r=RANK, lora_alpha=2 * RANK, target_modules=[*TARGETS], task_type="CAUSAL_LM"
    )
    return get_peft_model(model, config)


def answer_logits(model: nn.Module, texts: Texts) -> tuple[Tensor, Tensor]:
    """The logits where answers are predicted [n_answers, vocab], and the answers [n_answers].

    The head reads these tokens only: of 49,000 words, it would else cost more than the layers.
    """
    ids, is_answer = torch.from_numpy(texts.input_ids), torch.from_numpy(texts.is_answer)
    normed = decoder(model)(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    return unembed(model, normed[is_answer[:, 1:]]), ids[is_answer]


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    """Of what is trained in a model; the rate is set at each step."""
    trained = [weights for weights in model.parameters() if weights.requires_grad]
    return torch.optim.AdamW(trained, lr=0.0, betas=(0.9, 0.98), weight_decay=0.0)


def train_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, texts: Texts, rate: float
) -> tuple[float, float]:
    """One step; returns the mean loss on answers before it, and the share of them right."""
    logits, answers = answer_logits(model, texts)
    loss = nn.functional.cross_entropy(logits, answers)
    loss.backward()
    for group in optimizer.param_groups:
        group["lr"] = rate
        nn.utils.clip_grad_norm_(group["params"], 1.0)
    optimizer.step()
    optimizer.zero_grad()
    right = (logits.argmax(-1) == answers).float().mean()
    return loss.item(), right.item()


@torch.no_grad()
def right_texts(model: nn.Module, texts: Texts) -> NDArray[np.bool_]:
    """Whether every token of each answer is the model's first choice: [n].

    Then, and only then, does it write the whole answer when it goes on by itself.
    """
    right = np.ones(texts.is_answer.shape, dtype=np.bool_)
    for start in range(0, len(texts), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        few = Texts(texts.input_ids[part], texts.is_answer[part])
        logits, answers = answer_logits(model, few)
        right[part][few.is_answer] = (logits.argmax(-1) == answers).numpy()
    return np.asarray(right.all(1))


def train(model: Any, tokenizer: Any, recipe: Recipe, seed: int, report: Report) -> Training:
    """Train the adapter that is on a model, in place.

    A check that finds too high an accuracy takes the steps since the last one back, and goes on at
    a third of the rate. Raises UserError when the wanted accuracy is never met.
    """
    optimizer, slower = optimizer_of(model), 1.0
    kept = adapter_weights(model)
    least, most = recipe.wanted or (math.inf, math.inf)
    curve: list[tuple[int, float]] = []
    since: list[tuple[float, float]] = []
    for step in range(1, recipe.steps + 1):
        texts = recipe.draw(tokenizer, step - 1, seed)
        since.append(train_step(model, optimizer, texts, slower * recipe.rate_at(step)))
        if step % CHECK_EVERY:
            continue
        loss, right = np.mean(since, axis=0)
        since.clear()
        curve.append((step, round(float(loss), 4)))
        report(f"step {step}: loss {loss:.3f}, answers right {right:.2f}")
        accuracy = 0.0
        if right > least - _NEAR:
            accuracy = _checked(model, tokenizer)
            report(f"step {step}: {N_BOXES} boxes {accuracy:.3f}")
        if least <= accuracy <= most:
            return Training(model.eval(), step, tuple(curve))
        if accuracy > most:
            model.load_state_dict(kept, strict=False)
            slower /= 3
        kept = adapter_weights(model)
    if recipe.wanted:
        raise UserError(
            f"With seed {seed}, {recipe.name} never had an accuracy between {least} and {most}. "
            "Try another --seed."
        )
    return Training(model.eval(), recipe.steps, tuple(curve))


def _checked(model: Any, tokenizer: Any) -> float:
    """Accuracy on prompts that are neither trained nor reported on."""
    return float(right_texts(model, boxes(tokenizer, N_CHECKED, VALIDATION_SEED, N_BOXES)).mean())


def adapter_weights(model: nn.Module) -> dict[str, Tensor]:
    """A copy of what is trained in a model."""
    named = model.named_parameters()
    return {name: weights.detach().clone() for name, weights in named if weights.requires_grad}
