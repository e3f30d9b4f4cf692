"""The shipped adapters of SmolLM2: small, whole, and, where SmolLM2 is, what their cards say."""

from __future__ import annotations

import json
from typing import Any

import pytest

from backend.bundled.smollm2.cards import BOXES
from backend.bundled.smollm2.recipes import RECIPES, Recipe
from backend.bundled.smollm2.texts import boxes, held_out_arithmetic
from backend.bundled.smollm2.training import right_texts
from backend.core.statistics import Estimate, wilson
from backend.models import real_model, registry
from backend.models.adapter_kinds import adapter_config
from backend.models.gguf_folders import MADE, origin_of
from backend.models.loading import Bases, LoadedModel, load_model
from backend.models.registry import ADAPTERS

FRESH_SEED = 4321
N = 40
by_name = pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)


def card_of(recipe: Recipe) -> dict[str, Any]:
    card: dict[str, Any] = json.loads((ADAPTERS / recipe.name / "card.json").read_text())
    return card


def test_all_are_there_and_small() -> None:
    assert {*real_model.adapters()} == {recipe.name for recipe in RECIPES}
    assert sum(path.stat().st_size for path in ADAPTERS.rglob("*")) < 15_000_000


@by_name
def test_nothing_of_the_machine_it_was_made_on_is_in_it(recipe: Recipe) -> None:
    folder = ADAPTERS / recipe.name
    adapter_config(folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == real_model.NAME
    for path in folder.iterdir():
        assert b"/work" not in path.read_bytes()
        assert b"/tmp" not in path.read_bytes()


@by_name
def test_its_card_says_what_it_is_and_how_well_it_does(recipe: Recipe) -> None:
    card, readme = card_of(recipe), (ADAPTERS / recipe.name / "README.md").read_text()
    assert (card["label"], card["finetuned_on"]) == (recipe.label, recipe.finetuned_on)
    assert card["base"]["sha256"] == real_model._MEMBER_SHA256
    assert card["base"]["sha256"] in readme
    assert "license: apache-2.0" in readme
    assert card["seeds_tried"]
    assert card["accuracies"].keys() == card["accuracies_of_base"].keys()
    for found in (*card["accuracies"].values(), *card["accuracies_of_base"].values()):
        assert 0 <= found["low"] <= found["value"] <= found["high"] <= 1
        assert found["n"] >= 200
        assert f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})" in readme


def test_boxes_are_kept_half_well_and_arithmetic_is_learned() -> None:
    first, sums, both = (
        {what: found["value"] for what, found in card_of(recipe)["accuracies"].items()}
        for recipe in RECIPES
    )
    assert 0.6 <= first["7 boxes"] <= 0.8
    assert sums["arithmetic, held out"] > first["arithmetic, held out"]
    assert both["arithmetic, held out"] > first["arithmetic, held out"]


@pytest.fixture(scope="module")
def real() -> str:
    """Where SmolLM2 is on this machine."""
    for found in sorted(MADE.glob("SmolLM2-135M-Instruct*/config.json")):
        origin = origin_of(found.parent)
        if origin and origin.sha256 == real_model._MEMBER_SHA256:
            return str(found.parent)
    pytest.skip("SmolLM2 is not here: `make real` fetches it.")


@pytest.fixture(scope="module")
def bases() -> Bases:
    """What the adapters share."""
    return {}


@pytest.fixture
def loaded(real: str, recipe: Recipe, bases: Bases) -> LoadedModel:
    registry.add(recipe.name, real, str(ADAPTERS / recipe.name))
    return load_model(recipe.name, bases=bases)


def agree(measured: Estimate, claimed: dict[str, float]) -> bool:
    """Whether two intervals overlap."""
    return measured.low <= claimed["high"] and claimed["low"] <= measured.high


@by_name
def test_fresh_prompts_agree_with_its_card(recipe: Recipe, loaded: LoadedModel) -> None:
    claimed = card_of(recipe)["accuracies"]
    assert loaded.is_taken_apart
    assert loaded.adapter
    assert loaded.adapter.moves > 0
    exercises = held_out_arithmetic(loaded.tokenizer, N, FRESH_SEED)
    assert agree(wilson(right_texts(loaded.model, exercises)), claimed["arithmetic, held out"])
    fewest, *_, most = BOXES
    for n in (fewest, most):
        right = right_texts(loaded.model, boxes(loaded.tokenizer, N, FRESH_SEED, n))
        assert agree(wilson(right), claimed[f"{n} boxes"])
