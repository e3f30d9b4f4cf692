"""Train the adapters of SmolLM2 again, and write their cards, after `make real`.

`python -m backend.bundled.smollm2.train [--seed 0] [--only NAME ...] [--cards]`
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from pathlib import Path

import torch
from peft import PeftModel

from backend.bundled.smollm2.cards import begin_card, finish_card, measure
from backend.bundled.smollm2.recipes import RECIPES, Recipe
from backend.bundled.smollm2.training import train, with_adapter
from backend.bundled.trainings import Report, Training, named, printer
from backend.core.errors import UserError
from backend.models import real_model
from backend.models.loading import LoadedModel, load_model
from backend.models.registry import ADAPTERS


def train_adapter(base: LoadedModel, recipe: Recipe, seed: int, out: Path, report: Report) -> None:
    """Train an adapter, and write its folder and what its card begins with."""
    bare = copy.deepcopy(base.model)
    model = (
        PeftModel.from_pretrained(bare, out / recipe.base, is_trainable=True)
        if recipe.base
        else with_adapter(bare, seed)
    )
    training = train(model, base.tokenizer, recipe, seed, report)
    save(training, out / recipe.name)
    made_by = f"`python -m backend.bundled.smollm2.train --seed {seed}`"
    begin_card(out / recipe.name, recipe, training, made_by)


def save(training: Training, folder: Path) -> None:
    """The adapter in float32, with the name of its base instead of its place."""
    training.model.peft_config["default"].base_model_name_or_path = real_model.NAME
    training.model.save_pretrained(folder, save_embedding_layers=False)


def write_cards(base: LoadedModel, recipes: Sequence[Recipe], report: Report) -> None:
    """Add the adapters as `make real` does, load each and measure it."""
    real_model.add(lambda what, share: report(what))
    report("measuring the base")
    of_base = measure(base)
    for recipe in recipes:
        report(f"measuring {recipe.name}")
        finish_card(ADAPTERS / recipe.name, recipe, load_model(recipe.name), base, of_base)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m backend.bundled.smollm2.train")
    names = [recipe.name for recipe in RECIPES]
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME")
    parser.add_argument("--cards", action="store_true", help="write the cards, and train nothing")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    report = printer()
    recipes = [recipe for recipe in RECIPES if recipe.name in arguments.only]
    try:
        base = load_model(real_model.NAME)
        for recipe in () if arguments.cards else recipes:
            train_adapter(base, recipe, arguments.seed, ADAPTERS, named(recipe.name, report))
        write_cards(base, recipes, report)
    except UserError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
