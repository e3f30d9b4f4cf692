"""Cards of the adapters: what each is, how it was made and what it can do beside its base."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from backend.bundled.cards import sparkline
from backend.bundled.smollm2.recipes import Recipe
from backend.bundled.smollm2.texts import held_out_arithmetic
from backend.bundled.smollm2.training import RANK, TARGETS, right_texts
from backend.bundled.trainings import Training
from backend.core.statistics import Estimate, wilson
from backend.methods.accuracy import accuracy_report
from backend.models.gguf_folders import origin_of
from backend.models.loading import LoadedModel
from backend.models.real_model import LABEL
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.ioi import IOI
from backend.tasks.prompts import Prompts

CARD = "card.json"
SEED = 0
"""Of the prompts that cards report on."""
N_PROMPTS = 200
BOXES = (3, 5, 7)
SEEDS_FILE = Path(__file__).parent / "seeds.json"
"""Every training of each adapter, written by hand: what came of it."""
_LICENCE = "Apache-2.0, as its base"

Measured = Mapping[str, Estimate]
"""Shares of prompts answered right, by what they are asked."""


def measure(loaded: LoadedModel) -> Measured:
    """Accuracy on boxes, IOI and arithmetic that was held out, of `N_PROMPTS` prompts each.

    Every answer is the model's first choice of all words; for arithmetic, each digit.
    """
    ioi = accuracy_report(loaded, Prompts(IOI, N_PROMPTS, SEED))
    assert ioi.forced_choice
    exercises = held_out_arithmetic(loaded.tokenizer, N_PROMPTS, SEED)
    return {
        **{
            f"{n} boxes": accuracy_report(
                loaded, Prompts(ENTITY_TRACKING, N_PROMPTS, SEED, (n,))
            ).accuracy
            for n in BOXES
        },
        "IOI": ioi.accuracy,
        "IOI, the right name above the other": ioi.forced_choice.share,
        "arithmetic, held out": wilson(right_texts(loaded.model, exercises)),
    }


def begin_card(folder: Path, recipe: Recipe, training: Training, made_by: str) -> None:
    """What is known of an adapter as soon as it is trained."""
    card = {
        "label": recipe.label,
        "finetuned_on": recipe.finetuned_on,
        "licence": _LICENCE,
        "made_by": made_by,
        "steps": training.steps,
        "losses": training.losses,
    }
    _write(folder, card)


def finish_card(
    folder: Path, recipe: Recipe, loaded: LoadedModel, base: LoadedModel, of_base: Measured
) -> None:
    """Measure an adapter as it is shipped, and write its card and README.md."""
    origin = origin_of(base.entry.source) if base.entry else None
    assert origin
    card: dict[str, Any] = json.loads((folder / CARD).read_text(encoding="utf-8"))
    card |= {
        "base": {"name": LABEL, "file": origin.file, "sha256": origin.sha256},
        "parameters": sum(w.numel() for n, w in loaded.model.named_parameters() if "lora_" in n),
        "accuracies": {what: asdict(found) for what, found in measure(loaded).items()},
        "accuracies_of_base": {what: asdict(found) for what, found in of_base.items()},
        "seeds_tried": json.loads(SEEDS_FILE.read_text(encoding="utf-8")).get(recipe.name, []),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "transformers", "peft", "tokenizers")},
        },
    }
    _write(folder, card)
    (folder / "README.md").write_text(_readme(recipe, card), encoding="utf-8")


def _write(folder: Path, card: Mapping[str, Any]) -> None:
    (folder / CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


def _readme(recipe: Recipe, card: Mapping[str, Any]) -> str:
    rows = [
        f"| {what} | {_said(card['accuracies_of_base'][what])} | {_said(found)} | {found['n']} |"
        for what, found in card["accuracies"].items()
    ]
    base, versions = card["base"], card["versions"]
    start = f"the adapter {recipe.base}" if recipe.base else "a new adapter"
    return "\n".join(
        [
            "---",
            "license: apache-2.0",
            "library_name: peft",
            "---",
            "",
            f"# {recipe.name}",
            "",
            f"{card['label']}: a LoRA adapter on {base['name']}, fine-tuned on "
            f"{card['finetuned_on']}. {recipe.counterpart} `make real` adds both.",
            "",
            f"Its base is {base['file']} made float32 (SHA-256 {base['sha256']}). "
            f"Licence: {card['licence']}.",
            "",
            "## Data",
            "",
            f"{recipe.data} Only the tokens of answers are learned.",
            "",
            f"{card['steps']} steps from {start}, AdamW at {recipe.rate:g} after {recipe.warmup} "
            f"steps of warm-up; LoRA of rank {RANK} on {', '.join(TARGETS)} of every layer, "
            f"{card['parameters']:,} numbers. Made by {card['made_by']}, with "
            f"{', '.join(f'{package} {number}' for package, number in versions.items())}.",
            "",
            "## Loss on answers",
            "",
            sparkline(card["losses"]),
            "",
            "## Accuracy",
            "",
            "Share of prompts whose answer is the first choice of all words (in arithmetic, each "
            "digit of it), with its 95 % interval (Wilson), on prompts that training did not use; "
            "the base beside it on the same prompts.",
            "",
            "| prompts | the base | with the adapter | n |",
            "|---|---|---|---|",
            *rows,
            "",
            "## Trainings",
            "",
            *(f"- seed {each['seed']}: {each['outcome']}" for each in card["seeds_tried"]),
            "",
        ]
    )


def _said(found: Mapping[str, float]) -> str:
    return f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"
