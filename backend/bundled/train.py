"""Train the bundled family: `python -m backend.bundled.train [--seed 0] [--out FOLDER]`."""

from __future__ import annotations

import argparse
import copy
import json
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from backend.bundled.cards import TRAINING_LOG, write_cards
from backend.bundled.curriculum import CURRICULUM, FINE_TUNES, FineTune, Phase, Ramp
from backend.bundled.documents import Documents, Query
from backend.bundled.regulariser import mean_ablated
from backend.bundled.selection import choose_circuit
from backend.bundled.trainings import Report, Training, named, printer
from backend.bundled.validation import Validation, skill
from backend.bundled.vocabulary import (
    END,
    LABELS,
    PADDING,
    START,
    VARIABLES,
    make_tokenizer,
    word_ids,
    words,
)
from backend.core.errors import UserError
from backend.engine.architectures import decoder
from backend.models.catalogue import BUNDLED
from backend.models.loading import load_model

DOCUMENTS_PER_BATCH = 32
BATCHES_PER_STEP = 2
CHECK_EVERY = 50
CHECK_FINE_TUNE_EVERY = 10
OTHER_TOKENS_WEIGHT = 0.1
WEIGHT_DEVIATION = 0.15
WRITING_SCALE = 0.3
"""Of the initial weights through which heads and MLPs write into the residual stream."""
GOAL = 0.9
ENOUGH_FAITHFUL = 0.97
"""A checkpoint is kept for this share of its accuracy left when all but the vital tokens are
knocked out; of several with as much or more, the latest."""
WANTED_ACCURACY = (0.62, 0.78)
"""Where a checkpoint of the base may be kept: inside the claimed 0.6 to 0.8."""


@dataclass
class Checkpoint:
    """The best state of the base so far: the share of its accuracy left when knocked out."""

    share: float = 0.0
    step: int = 0
    weights: dict[str, Tensor] | None = None
    done: bool = False


class Run:
    """A model being trained: its optimizer, its random numbers and what it has seen so far."""

    def __init__(self, model: nn.Module, seed: int) -> None:
        self.model = model
        self.rng = np.random.default_rng(seed)
        self.step = 0
        self.losses: list[float] = []
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._embedding = decoder(model).embed_tokens.weight
        self._is_name = _is_name()
        self._names = self._embedding[self._is_name].detach().clone()
        self._optimizer = torch.optim.AdamW(
            self._parameters, lr=0.0, betas=(0.9, 0.98), weight_decay=0.01, fused=True
        )

    def train(self, phase: Phase, step_in_phase: int) -> None:
        """One optimizer step."""
        for group in self._optimizer.param_groups:
            group["lr"] = phase.rate.at(step_in_phase)
        losses = [self._backward(phase, step_in_phase) for _ in range(BATCHES_PER_STEP)]
        torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad()
        if phase.name_size:
            self._shrink_names(phase.name_size, step_in_phase)
        self.losses.append(float(np.mean(losses)))
        self.step += 1

    @torch.no_grad()
    def _shrink_names(self, size: Ramp, step_in_phase: int) -> None:
        """Hold the embeddings of names as they were when the phase began, but smaller."""
        if step_in_phase == 0:
            self._names = self._embedding[self._is_name].clone()
        self._embedding[self._is_name] = self._names * 10 ** size.at(step_in_phase)

    def _backward(self, phase: Phase, step_in_phase: int) -> float:
        documents = phase.mixture.draw(DOCUMENTS_PER_BATCH, self.rng)
        ablated = self.rng.random() < phase.ablated_share.at(step_in_phase)
        with mean_ablated(self.model, documents.parts) if ablated else nullcontext():
            on_answers, on_others = losses_of(self.model, documents)
        ((on_answers + OTHER_TOKENS_WEIGHT * on_others) / BATCHES_PER_STEP).backward()
        return on_answers.item()

    def curve(self) -> tuple[tuple[int, float], ...]:
        """(step, mean loss on answers over the steps since the point before)."""
        starts = range(0, self.step, CHECK_EVERY)
        ends = [min(start + CHECK_EVERY, self.step) for start in starts]
        return tuple(
            (end, round(float(np.mean(self.losses[start:end])), 4))
            for start, end in zip(starts, ends, strict=True)
        )


def losses_of(model: nn.Module, documents: Documents) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy on answers and on all other tokens, as two scalars."""
    ids = torch.from_numpy(documents.input_ids)
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    each = nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
    is_answer = torch.from_numpy(documents.is_answer[1:])
    return each[:, is_answer].mean(), each[:, ~is_answer].mean()


def new_model(seed: int) -> LlamaForCausalLM:
    """An untrained base: 316k parameters. A head size of 8 was never seen to learn the task.

    Embeddings are large beside what heads and MLPs add to them. Otherwise the identity of an
    object lives on in what the heads of the first layer write, and nothing can be read off the
    object once those are knocked out.
    """
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(words()),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=5,
            num_attention_heads=8,
            num_key_value_heads=8,
            head_dim=16,
            max_position_embeddings=256,
            rope_parameters={"rope_type": "default", "rope_theta": 1e4},
            initializer_range=WEIGHT_DEVIATION,
            tie_word_embeddings=False,
            bos_token_id=word_ids()[START],
            eos_token_id=word_ids()[END],
            pad_token_id=word_ids()[PADDING],
        )
    )
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(1 / WEIGHT_DEVIATION)
        for block in model.model.layers:
            block.self_attn.o_proj.weight.mul_(WRITING_SCALE)
            block.mlp.down_proj.weight.mul_(WRITING_SCALE)
    return model


def _is_name() -> Tensor:
    """True for the names of boxes and variables: [vocab]."""
    names = {*LABELS, *VARIABLES}
    return torch.tensor([word in names for word in words()])


def train_base(seed: int, validation: Validation, report: Report) -> Training:
    """The base, by the curriculum; raises UserError when this seed never gets there."""
    run, kept = Run(new_model(seed), seed), Checkpoint()
    for phase in CURRICULUM:
        for step_in_phase in range(phase.steps):
            run.train(phase, step_in_phase)
            if run.step % CHECK_EVERY:
                continue
            skills = {query: skill(run.model, query) for query in Query}
            told = [f"{query.value} {share:.2f}" for query, share in skills.items()]
            if phase.name_size and step_in_phase >= phase.name_size.steps:
                told += _consider(run, validation, kept)
            loss = run.curve()[-1][1]
            report(f"step {run.step}, {phase.name}: loss {loss:.2f}, {', '.join(told)}")
            if kept.done or (phase.goal and skills[phase.goal] >= GOAL):
                break
    if kept.weights is None:
        raise UserError(
            f"With seed {seed} the base never reached an accuracy between {WANTED_ACCURACY[0]} "
            f"and {WANTED_ACCURACY[1]}. Not every seed learns the task: try another --seed."
        )
    run.model.load_state_dict(kept.weights)
    return Training(run.model.eval(), kept.step, run.curve()[: kept.step // CHECK_EVERY])


def _consider(run: Run, validation: Validation, kept: Checkpoint) -> list[str]:
    """Keep the model as it is now if it is the best so far; says what was measured."""
    accuracy = validation.accuracy(run.model)
    told = [f"7 boxes {accuracy:.3f}"]
    kept.done = accuracy > WANTED_ACCURACY[1] and kept.share == ENOUGH_FAITHFUL
    if WANTED_ACCURACY[0] <= accuracy <= WANTED_ACCURACY[1]:
        left = validation.knocked_out_accuracy(run.model) / accuracy
        told.append(f"{left:.3f} of it left with all but the vital tokens knocked out")
        share = min(left, ENOUGH_FAITHFUL)
        if share >= kept.share:
            kept.share, kept.step = share, run.step
            kept.weights = copy.deepcopy(run.model.state_dict())
    return told


def fine_tune(
    base: nn.Module, recipe: FineTune, seed: int, validation: Validation, report: Report
) -> Training:
    """A model made out of a copy of the base."""
    torch.manual_seed(seed)
    model: Any = copy.deepcopy(base)
    if recipe.lora:
        targets = ["q_proj", "k_proj", "v_proj", "o_proj"]
        model = get_peft_model(
            model,
            LoraConfig(r=16, lora_alpha=32, target_modules=targets, task_type="CAUSAL_LM"),
        )
        model.peft_config["default"].base_model_name_or_path = "base"
    enough = validation.accuracy(base) + recipe.gain if recipe.gain else 1.0
    run = Run(model, seed)
    for step in range(recipe.phase.steps):
        run.train(recipe.phase, step)
        if run.step % CHECK_FINE_TUNE_EVERY:
            continue
        accuracy = validation.accuracy(model)
        report(f"step {run.step}: loss {np.mean(run.losses[-10:]):.2f}, 7 boxes {accuracy:.3f}")
        if accuracy >= enough:
            break
    return Training(model.eval(), run.step, run.curve())


def save(training: Training, folder: Path, made_by: str) -> None:
    """Weights in float32, the tokenizer, and the log that the cards are written from."""
    training.model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    log = {"steps": training.steps, "losses": training.losses, "made_by": made_by}
    (folder / TRAINING_LOG).write_text(json.dumps(log) + "\n", encoding="utf-8")


def train_family(seed: int, out: Path, report: Report) -> None:
    """Train the base and what is made out of it, and write their folders."""
    validation = Validation.sample()
    base = train_base(seed, validation, lambda line: report(f"base, {line}"))
    made_by = f"`python -m backend.bundled.train --seed {seed}`"
    save(base, out / "base", made_by)
    for recipe in FINE_TUNES:
        training = fine_tune(base.model, recipe, seed, validation, named(recipe.name, report))
        save(training, out / recipe.name, made_by)
    loaded = replace(load_model(str(out / "base")), name="base")
    circuit = choose_circuit(loaded)
    (out / "circuit.json").write_text(circuit.to_json(), encoding="utf-8")
    report(f"circuit: {len(circuit.members)} heads")
    write_cards(out, seed)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m backend.bundled.train", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=BUNDLED)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    try:
        train_family(arguments.seed, arguments.out, printer())
    except UserError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
