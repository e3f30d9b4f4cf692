"""The engine on a device that is not the CPU: everything is there that has to be, and equal."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from backend.core import devices
from backend.core.components import Component
from backend.core.devices import Device
from backend.core.heads import Head
from backend.core.placement import Placement
from backend.core.serialize import to_json
from backend.engine.activation_patching import patched_logits, prepare_clean
from backend.engine.architectures import shape_of
from backend.engine.attention import attention_mass
from backend.engine.masked_patching import masked_logits
from backend.engine.path_patching.attribution_patching import attributions_of
from backend.engine.path_patching.run_pairs import RunPairs
from backend.engine.path_patching.scores import scores_of
from backend.engine.positions import position_head_outputs
from backend.engine.validation import can_take_apart
from backend.methods.cmap import cmap, group_sets
from backend.methods.compare import compare
from backend.methods.completeness import completeness
from backend.methods.copying import copying
from backend.methods.edges import edges
from backend.methods.evaluation import Evaluation
from backend.methods.logit_attribution import logit_attribution
from backend.methods.logit_lens import logit_lens
from backend.methods.minimality import minimality
from backend.models import catalogue
from backend.models.loading import LoadedModel, load_model
from backend.studies import session
from backend.tasks.circuit import Circuit
from backend.tasks.entity_tracking import (
    ENTITY_TRACKING,
    counterfactual_prompts,
    reference_prompts,
    sample_prompts,
)
from backend.tasks.prompts import Prompts
from backend.tasks.setting import Mode, Reading, Setting, intervention
from tests import tiny
from tests.second_device import SECOND, second_device, spread
from tests.second_device import moved as moved_there

CIRCUIT = Circuit.of(
    ENTITY_TRACKING,
    {
        "A": (Head(3, 0), Head(2, 3)),
        "B": (Head(2, 1),),
        "C": (Head(1, 0), Head(1, 2)),
        "D": (Head(0, 0), Head(0, 1)),
    },
    "any",
)
RECEIVERS = {"A": "A", "B": "A", "C": "B", "D": "C"}
FAMILIES = ("llama", "lora", "gemma2", "neox", "granite")


def memory(monkeypatch: pytest.MonkeyPatch, free: int, chunk: str) -> None:
    there = Device(str(SECOND), "Second", free, free)
    monkeypatch.setattr(devices, "gpus", lambda: (there,))
    monkeypatch.setenv("CIRCUIT_EXPLORER_CHUNK", chunk)


def methods(model: Any) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Each method by its name, on few prompts."""
    tokenizer = tiny.word_tokenizer()
    loaded = LoadedModel("any", model, tokenizer, shape_of(model))
    prompts = sample_prompts(tokenizer, 6, 0, 3)
    counterfactual = counterfactual_prompts(tokenizer, prompts)
    pairs = RunPairs(model, prompts, counterfactual)
    for group in ENTITY_TRACKING.keys:
        receivers = CIRCUIT.heads(RECEIVERS[group])
        yield f"stage {group}", partial(scores_of, pairs, group, receivers)
        yield f"attributions {group}", partial(attributions_of, pairs, group, receivers, steps=1)

    @cache
    def evaluation() -> Evaluation:
        return Evaluation(loaded, prompts, reference_prompts(tokenizer, 6, 1, 3))

    def click() -> Tensor:
        values = position_head_outputs(model, counterfactual)
        return patched_logits(prepare_clean(model, prompts), CIRCUIT.sites, values).cpu()

    def mask() -> Tensor:
        values, clean = position_head_outputs(model, counterfactual), prepare_clean(model, prompts)
        sites = sorted(CIRCUIT.sites)
        with torch.no_grad():
            return masked_logits(clean, sites, torch.linspace(0, 1, len(sites)), values).cpu()

    yield "click", click
    yield "mask", mask
    if can_take_apart(model):
        prompts_of = Prompts(ENTITY_TRACKING, 6, 0, (3,))
        yield "logit attribution", lambda: logit_attribution(loaded, prompts_of).heads
        yield "logit lens", lambda: logit_lens(loaded, prompts_of)
        yield "copying", lambda: copying(loaded, prompts_of)
    yield "edges", lambda: edges(pairs, CIRCUIT, "any")
    yield "minimality", lambda: minimality(evaluation(), CIRCUIT)
    yield "completeness", lambda: completeness(evaluation(), CIRCUIT, 2)
    yield "compare", lambda: compare([evaluation(), evaluation()], CIRCUIT, n_random=2)
    sets = group_sets(CIRCUIT, [("B",)])
    for part in Component:
        yield f"cmap {part.name}", lambda part=part: cmap(evaluation(), evaluation(), sets, part)


def figures(result: Any) -> np.ndarray:
    """All numbers of a result, in order."""

    def numbers(data: Any) -> Iterator[float]:
        if isinstance(data, dict):
            data = list(data.values())
        if isinstance(data, list):
            for each in data:
                yield from numbers(each)
        elif isinstance(data, int | float) or data is None:
            yield np.nan if data is None else data

    return np.array([*numbers(result.tolist() if isinstance(result, Tensor) else to_json(result))])


def compare_devices(family: str) -> None:
    model = tiny.MAKERS[family]()
    as_it_was = copy.deepcopy(model)
    here = {name: figures(ask()) for name, ask in methods(as_it_was)}
    with second_device():
        # A complaint about devices must not pass for a model that cannot be taken apart.
        assert (
            can_take_apart(moved_there(model))
            == can_take_apart(as_it_was)
            == (family not in tiny.STRANGERS)
        )
        for name, ask in methods(model):
            np.testing.assert_allclose(figures(ask()), here[name], atol=2e-3, err_msg=name)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_method_is_the_same_on_another_device(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory(monkeypatch, 10**9, chunk="")
    compare_devices(family)


def test_batches_wait_on_the_cpu_while_the_device_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    memory(monkeypatch, 10**4, chunk="4")
    compare_devices("llama")


def test_every_method_is_the_same_on_a_model_that_is_spread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    memory(monkeypatch, 10**9, chunk="")
    model = tiny.llama()
    as_it_was = copy.deepcopy(model)
    # The other stages and parts go the same ways.
    asked = ("stage B", "click", "mask", "completeness", "compare", "cmap v")
    here = {name: figures(ask()) for name, ask in methods(as_it_was) if name in asked}
    with second_device():
        assert len({weights.device for weights in spread(model).parameters()}) == 2
        assert not can_take_apart(model), "it is run whole"
        for name, ask in methods(model):
            if name in asked:
                np.testing.assert_allclose(figures(ask()), here[name], atol=2e-3, err_msg=name)


@pytest.mark.parametrize("put", [moved_there, spread])
def test_clicks_are_the_same_on_another_device(
    monkeypatch: pytest.MonkeyPatch, put: Callable[[Any], Any]
) -> None:
    memory(monkeypatch, 10**9, chunk="")
    models = {name: load_model(name, Placement("cpu")) for name in ("base", "chat")}
    monkeypatch.setattr(session, "load", models.__getitem__)
    circuit = catalogue.circuit("base")
    clicks = [
        intervention(circuit, reading, mode, frozenset(circuit.members[::5]), source=source)
        for reading in Reading
        for mode, source in ((Mode.mean, None), (Mode.counterfactual, None), (Mode.other, "chat"))
    ]

    def probabilities() -> list[np.ndarray]:
        ready = session.prepare(
            Setting("base", Prompts(ENTITY_TRACKING, 10, 0, (3,))), lambda stage, share: None
        )
        return [session.answers(ready, click).probability for click in clicks]

    here = probabilities()
    with second_device():
        for loaded in models.values():
            put(loaded.model)
        np.testing.assert_allclose(probabilities(), here, atol=1e-5)


@pytest.mark.parametrize("put", [moved_there, spread])
def test_attention_is_the_same_on_another_device(put: Callable[[Any], Any]) -> None:
    model = tiny.llama(attn_implementation="eager")
    prompts = sample_prompts(tiny.word_tokenizer(), 6, 0, 3)
    here = attention_mass(copy.deepcopy(model), prompts)
    with second_device():
        there = attention_mass(put(model), prompts)
    np.testing.assert_allclose(figures(there), figures(here), atol=1e-5)
    assert len(figures(here)) > 0


def test_tensors_of_two_devices_do_not_meet() -> None:
    with second_device():
        there = torch.ones(2, 2, device=SECOND)
        assert (there + 1).device == SECOND
        assert there[[1]].cpu().device.type == "cpu"
        with pytest.raises(RuntimeError, match="same device"):
            there + torch.ones(2, 2)
        with pytest.raises(RuntimeError, match="same device"):
            torch.ones(2)[there[0].long()]
        with pytest.raises(TypeError, match="cpu"):
            there.numpy()
        with pytest.raises(TypeError, match="cpu"):
            np.asarray(there)
