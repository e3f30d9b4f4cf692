"""On a real GPU: every method gives what the CPU gives, and a full memory leaves the model usable.

Skipped where there is none; there, `tests/engine/test_second_device.py` finds what would not even
run.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from backend.core.errors import UserError
from backend.core.heads import Head
from backend.core.placement import Placement
from backend.core.runtime import at_work
from backend.engine.architectures import shape_of
from backend.engine.path_patching.run_pairs import RunPairs
from backend.engine.path_patching.scores import scores_of
from backend.engine.positions import all_sites
from backend.engine.validation import can_take_apart
from backend.methods.evaluation import Evaluation
from backend.methods.mask_learning import loss_of
from backend.methods.pairs_patched import examined_pairs
from backend.models import catalogue
from backend.models.loading import LoadedModel, load_model
from backend.studies import session
from backend.tasks.desiderata import Pairs
from backend.tasks.entity_tracking import (
    ENTITY_TRACKING,
    counterfactual_prompts,
    reference_prompts,
    sample_prompts,
)
from backend.tasks.prompts import Prompts
from backend.tasks.setting import Mode, Reading, Setting, intervention
from tests import tiny
from tests.engine.test_second_device import FAMILIES, figures, methods

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="There is no GPU.")
GPU = "cuda:0"


@pytest.mark.parametrize("family", FAMILIES)
def test_every_method_is_the_same_on_a_gpu(family: str) -> None:
    model = tiny.MAKERS[family]()
    there = copy.deepcopy(model).to(GPU)
    assert can_take_apart(there) == can_take_apart(model)
    for (name, ask), (_, ask_there) in zip(methods(model), methods(there), strict=True):
        np.testing.assert_allclose(figures(ask_there()), figures(ask()), atol=2e-3, err_msg=name)


def test_the_loss_of_a_mask_has_the_same_gradient_on_a_gpu() -> None:
    model, tokenizer = tiny.llama(), tiny.word_tokenizer()
    prompts = sample_prompts(tokenizer, 6, 0, 3)
    pairs = Pairs(prompts, counterfactual_prompts(tokenizer, prompts), prompts.choice_ids[:, 0])
    sites = sorted(all_sites(shape_of(model), ["query_label"]))
    mask = torch.linspace(0, 1, len(sites))
    (here, gradient), (there, gradient_there) = (
        loss_of(
            examined_pairs(LoadedModel("any", each, tokenizer, shape_of(each)), pairs),
            sites,
            mask,
            0.01,
        )
        for each in (model, copy.deepcopy(model).to(GPU))
    )
    assert there == pytest.approx(here, abs=1e-4)
    torch.testing.assert_close(gradient_there, gradient, rtol=0, atol=1e-4)


@pytest.mark.parametrize("reading", Reading)
def test_clicks_are_the_same_on_a_gpu(monkeypatch: pytest.MonkeyPatch, reading: Reading) -> None:
    circuit = catalogue.circuit("base")
    clicks = [
        intervention(circuit, reading, mode, frozenset(circuit.members[::5]), source=source)
        for mode, source in ((Mode.mean, None), (Mode.counterfactual, None), (Mode.other, "chat"))
    ]

    def probabilities(device: str) -> Iterator[Any]:
        loaded = {name: load_model(name, Placement(device)) for name in ("base", "chat")}
        monkeypatch.setattr(session, "load", loaded.__getitem__)
        ready = session.prepare(
            Setting("base", Prompts(ENTITY_TRACKING, 50, 0, (7,))), lambda stage, share: None
        )
        for click in clicks:
            yield session.answers(ready, click).probability

    np.testing.assert_allclose([*probabilities(GPU)], [*probabilities("cpu")], atol=1e-4)


def test_the_bundled_scores_are_the_same_on_a_gpu() -> None:
    scores = []
    for device in ("cpu", GPU):
        base = load_model("base", Placement(device))
        prompts = sample_prompts(base.tokenizer, 40)
        pairs = RunPairs(base.model, prompts, counterfactual_prompts(base.tokenizer, prompts))
        receivers = catalogue.circuit("base").heads("A")
        scores.append(scores_of(pairs, "B", receivers).numpy())
    # A relative change is huge where the clean run hardly says the answer at all.
    np.testing.assert_allclose(*scores, atol=1e-4, rtol=1e-3)


def test_tf32_of_one_model_leaves_another_as_it_was() -> None:
    def scores(model: LoadedModel) -> torch.Tensor:
        prompts = sample_prompts(model.tokenizer, 20)
        pairs = RunPairs(model.model, prompts, counterfactual_prompts(model.tokenizer, prompts))
        with at_work(model.runtime):
            return scores_of(pairs, "A")

    base = load_model("base", Placement(GPU))
    before = scores(base)
    rough = load_model("base", Placement(GPU, tf32=True))
    assert (scores(rough) != before).any()
    assert (scores(base) == before).all()


def test_a_full_memory_is_explained_and_leaves_the_model_usable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny.llama(vocab_size=600, hidden_size=512, intermediate_size=2048).to(GPU)
    tokenizer = tiny.word_tokenizer()
    loaded = LoadedModel("any", model, tokenizer, shape_of(model))
    prompts, reference = sample_prompts(tokenizer, 512), reference_prompts(tokenizer, 8)
    parts = [
        [
            site
            for site in all_sites(loaded.shape, ENTITY_TRACKING.position_names)
            if site.head == Head(0, 0)
        ]
    ]
    expected = Evaluation(loaded, prompts, reference).ablated(parts)

    total = torch.cuda.get_device_properties(0).total_memory
    monkeypatch.setenv("CIRCUIT_EXPLORER_CHUNK", "512")
    torch.cuda.empty_cache()
    enough_for_little = torch.cuda.memory_reserved() + 2**28
    torch.cuda.set_per_process_memory_fraction(enough_for_little / total)
    try:
        with pytest.raises(UserError, match="memory of cuda:0 was full with 512 prompts at once"):
            Evaluation(loaded, prompts, reference).ablated(parts)
        monkeypatch.setenv("CIRCUIT_EXPLORER_CHUNK", "4")
        again = Evaluation(loaded, prompts, reference).ablated(parts)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert (again == expected).mean() > 0.99
