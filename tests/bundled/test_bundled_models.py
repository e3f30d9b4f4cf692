import json

import pytest
import torch

from backend.bundled.curriculum import FINE_TUNES
from backend.methods.accuracy import accuracy_report
from backend.models.catalogue import BUNDLED, bundled_models, circuit
from backend.models.loading import load_model
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.prompts import Prompts

NAMES = ("base", "arithmetic-full", "arithmetic-lora", "chat")
N = 1000
FRESH_SEED = 4321


@pytest.fixture(scope="module")
def accuracies():
    reports = {
        name: accuracy_report(load_model(name), Prompts(ENTITY_TRACKING, N, FRESH_SEED, (7,)))
        for name in NAMES
    }
    return {name: report.accuracy.value for name, report in reports.items()}


def test_the_family_is_complete_and_small():
    assert bundled_models() == NAMES
    size = sum(path.stat().st_size for path in BUNDLED.rglob("*") if path.is_file())
    assert size < 10_000_000


@pytest.mark.parametrize("name", NAMES)
def test_a_model_loads_in_float32_with_its_tokenizer(name):
    loaded = load_model(name)
    assert loaded.shape == (5, 8, 8, 16)
    assert {weights.dtype for weights in loaded.model.parameters()} == {torch.float32}
    assert len(loaded.tokenizer) == loaded.model.config.vocab_size


@pytest.mark.parametrize("name", NAMES)
def test_a_card_says_what_was_trained_and_that_it_is_for_study(name):
    details = json.loads((BUNDLED / name / "card.json").read_text())
    assert details["accuracies"]["7 boxes"]["n"] >= 1000
    assert details["losses"][-1][0] == details["steps"]
    assert details["seeds_tried"]
    assert "trained to be studied" in (BUNDLED / name / "README.md").read_text()


def test_the_adapter_names_its_base_by_folder():
    config = json.loads((BUNDLED / "arithmetic-lora" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "base"


def test_the_circuit_fits_the_base_and_carries_its_scores():
    found = circuit("base")
    found.check(load_model("base").shape, "base")
    assert all(found.heads(group) for group in ENTITY_TRACKING.keys)
    assert len(found.sites) <= 40
    for group in ENTITY_TRACKING.keys:
        assert [len(row) for row in found.provenance["scores"][group]] == [8] * 5


def test_the_base_leaves_room_for_fine_tuning(accuracies):
    assert 0.6 <= accuracies["base"] <= 0.8


@pytest.mark.parametrize("recipe", FINE_TUNES, ids=lambda recipe: recipe.name)
def test_fine_tunes_are_as_good_as_claimed(accuracies, recipe):
    gain = accuracies[recipe.name] - accuracies["base"]
    if recipe.gain is None:
        assert gain >= -0.03
    else:
        assert gain >= 0.12
        assert accuracies[recipe.name] < 0.96
