"""Attention on one prompt with heads switched, against a run with hooks written out by hand."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from backend.core.errors import UserError
from backend.core.heads import Head, Site
from backend.models.loaded_models import load
from backend.studies.patterns import patterns
from backend.tasks.circuit import Circuit
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.prompts import Prompts
from backend.tasks.setting import Intervention, Mode, Reading, intervention
from tests import oracles, tiny

PROMPTS = Prompts(ENTITY_TRACKING, 6, 0, (3,))
CIRCUIT = Circuit.of(
    ENTITY_TRACKING,
    {"A": (Head(3, 0),), "B": (Head(2, 1),), "C": (Head(1, 3),), "D": (Head(0, 2),)},
)
OFF = frozenset({("C", Head(1, 3)), ("D", Head(0, 2))})
NUMBER = 4


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    places: dict[str, Path] = {name: tmp_path_factory.mktemp(name) for name in ("own", "other")}
    for seed, place in enumerate(places.values()):
        tiny.llama(seed).save_pretrained(place)
        tiny.word_tokenizer().save_pretrained(place)
    wide = tmp_path_factory.mktemp("wide")
    tiny.llama(num_hidden_layers=2).save_pretrained(wide)
    tiny.word_tokenizer().save_pretrained(wide)
    return {name: str(place) for name, place in places.items()} | {"wide": str(wide)}


def asked(reading: Reading, mode: Mode, source: str | None = None) -> Intervention:
    return intervention(CIRCUIT, reading, mode, OFF, source=source)


@torch.no_grad()
def told(model: Any, ids: Any, given: Any) -> Any:
    """Attention of a plain run in which `given` [n_layers, seq, n_heads, d] replaces; NaN: free."""

    def hook_of(layer: int) -> Any:
        def hook(_: Any, inputs: Any) -> Any:
            new = given[layer].flatten(-2)[None].to(inputs[0].dtype)
            return (torch.where(new.isnan(), inputs[0], new),)

        return hook

    with ExitStack() as hooks:
        for layer in range(oracles.sizes(model)[0]):
            out = oracles.parts(model, layer)["o"]
            hooks.enter_context(out.register_forward_pre_hook(hook_of(layer)))
        run = model(input_ids=torch.tensor(ids)[None], output_attentions=True, use_cache=False)
    return torch.cat(run.attentions)


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("reading", Reading)
def test_heads_attend_as_what_is_switched_makes_them(
    folders: dict[str, str], reading: Reading, mode: Mode
) -> None:
    loaded = load(folders["own"])
    drawn = PROMPTS.sample(loaded.tokenizer)
    others = ENTITY_TRACKING.counterfactual(loaded.tokenizer, drawn)
    means = oracles.head_outputs(loaded.model, PROMPTS.reference(loaded.tokenizer, 300)).mean(1)
    resampled = oracles.head_outputs(loaded.model, others)[:, NUMBER]
    anothers = oracles.head_outputs(load(folders["other"]).model, drawn)[:, NUMBER]

    def off_value(layer: int, token: int, head: int, position: str | None) -> Any:
        if mode is Mode.zero:
            return 0.0
        if mode is Mode.counterfactual:
            at = int(others.positions[position][NUMBER]) if position else token
            return resampled[layer, at, head]
        if mode is Mode.other and position and Site(Head(layer, head), position) in off:
            return anothers[layer, token, head]
        return means[layer, token, head]

    off = {Site(head, ENTITY_TRACKING.group(key).position) for key, head in OFF}
    on = CIRCUIT.sites - off
    named = {int(drawn.positions[name][NUMBER]): name for name in ENTITY_TRACKING.position_names}
    given = torch.full_like(means, torch.nan)
    for layer, token, head in np.ndindex(*means.shape[:3]):
        position = named.get(token)
        site = Site(Head(layer, head), position or "")
        replaced = site not in on if reading is Reading.circuit else site in off
        if replaced:
            given[layer, token, head] = off_value(layer, token, head, position)
    expected = told(loaded.model, drawn.input_ids[NUMBER], given)
    source = folders["other"] if mode is Mode.other else None
    found = patterns(folders["own"], PROMPTS, NUMBER, asked(reading, mode, source))
    torch.testing.assert_close(torch.tensor(found.weights), expected, rtol=0, atol=1e-5)
    untouched = patterns(folders["own"], PROMPTS, NUMBER)
    assert np.abs(found.weights - untouched.weights).max() > 1e-3
    assert found.weights[0] == pytest.approx(untouched.weights[0], abs=1e-5)


def test_words_roles_and_places_are_the_prompts(folders: dict[str, str]) -> None:
    loaded = load(folders["own"])
    drawn = PROMPTS.sample(loaded.tokenizer)
    found = patterns(folders["own"], PROMPTS, NUMBER + 6)
    assert [*found.words] == drawn.words(NUMBER)
    assert [*found.roles] == drawn.roles_of(NUMBER)
    assert found.positions["last"] == len(found.words) - 1
    assert found.weights.shape == (4, 4, len(found.words), len(found.words))
    assert found is patterns(folders["own"], PROMPTS, NUMBER + 6)


def test_a_source_of_another_shape_is_explained(folders: dict[str, str]) -> None:
    with pytest.raises(UserError, match="Choose a source"):
        patterns(folders["own"], PROMPTS, 0, asked(Reading.model, Mode.other, folders["wide"]))
