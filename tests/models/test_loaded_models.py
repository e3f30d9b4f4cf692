"""Models on the shelf: one base in memory for several models, none of which sees another's."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from backend.core.metrics import Ablation
from backend.core.placement import Dtype, Placement
from backend.engine.architectures import decoder
from backend.engine.hooks import edited_head_outputs
from backend.methods.evaluation import evaluation
from backend.models import loaded_models, registry
from backend.models.loading import load_model, weight_bytes
from backend.studies import session
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.prompts import Prompts
from backend.tasks.setting import Setting
from tests.tiny import llama, word_tokenizer

IDS = torch.tensor([[9, 10, 11, 12, 13]])


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A base, two adapters on it, and one that changes the base's own biases."""
    family = tmp_path_factory.mktemp("family")
    llama(attention_bias=True).save_pretrained(family / "base")
    word_tokenizer().save_pretrained(family / "base")
    for seed, name in enumerate(("first", "second", "biased")):
        base = llama(attention_bias=True)
        torch.manual_seed(seed)
        config = LoraConfig(
            r=2,
            target_modules=["q_proj", "v_proj", "o_proj"],
            init_lora_weights=False,
            task_type="CAUSAL_LM",
            bias="all" if name == "biased" else "none",
        )
        adapted = get_peft_model(base, config)
        if name == "biased":
            for weight_name, weight in adapted.named_parameters():
                if weight_name.endswith("bias"):
                    nn.init.ones_(weight)
        adapted.peft_config["default"].base_model_name_or_path = "base"
        adapted.save_pretrained(family / name)
    return [str(family / name) for name in ("base", "first", "second", "biased")]


@pytest.fixture(autouse=True)
def _an_empty_shelf(names: list[str]) -> Iterator[None]:
    yield
    for name in loaded_models.loaded():
        loaded_models.unload(name)


@torch.no_grad()
def logits(model: nn.Module) -> Tensor:
    return model(IDS).logits


def base_weights(model: nn.Module) -> set[int]:
    return {weight.data_ptr() for name, weight in model.named_parameters() if "lora_" not in name}


def test_a_base_is_held_once_and_every_model_answers_as_if_it_were_alone(names: list[str]) -> None:
    base, first, second = (loaded_models.load(name) for name in names[:3])
    assert base_weights(first.model) == base_weights(second.model) == base_weights(base.model)
    answers = [logits(one.model) for one in (base, first, second)]
    assert (answers[1] - answers[2]).abs().max() > 0.01
    for name, answer in zip(names[:3], answers, strict=True):
        torch.testing.assert_close(answer, logits(load_model(name).model), rtol=0, atol=0)
    of_base, own = loaded_models.bytes_of(names[0])
    assert own == 0
    assert loaded_models.bytes_of(names[1])[1] < of_base / 2
    alone = weight_bytes([load_model(names[0]).model])
    assert of_base == alone


def test_an_adapter_that_changes_its_base_has_one_of_its_own(names: list[str]) -> None:
    before = logits(loaded_models.load(names[0]).model)
    biased = loaded_models.load(names[3])
    assert not base_weights(biased.model) & base_weights(loaded_models.load(names[0]).model)
    assert (logits(biased.model) - before).abs().max() > 0.01
    torch.testing.assert_close(logits(loaded_models.load(names[0]).model), before, rtol=0, atol=0)


def test_two_threads_use_two_models_at_once_and_see_only_their_own(names: list[str]) -> None:
    models = [loaded_models.load(name).model for name in names[1:3]]
    expected = [logits(model) for model in models]
    wrong: list[str] = []
    meet = threading.Barrier(2)

    def ask(place: int) -> None:
        for number in range(30):
            meet.wait()
            with edited_head_outputs(models[place], lambda _, heads: heads):
                if not torch.equal(logits(models[place]), expected[place]):
                    wrong.append(f"{place} at {number}")

    threads = [threading.Thread(target=ask, args=(place,)) for place in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_hooks_on_one_model_are_not_on_another_made_meanwhile(names: list[str]) -> None:
    base = loaded_models.load(names[0]).model
    with edited_head_outputs(base, lambda _, heads: heads * 0):
        first = loaded_models.load(names[1]).model
        projections = [block.self_attn.o_proj for block in decoder(first).layers]
        assert not any(projection._forward_pre_hooks for projection in projections)
        assert torch.equal(logits(first), logits(load_model(names[1]).model))


def test_asked_by_two_threads_a_model_is_loaded_once(
    names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from backend.models import loading

    calls: list[str] = []
    original = loading.load_model

    def counted(name, *rest):  # type: ignore[no-untyped-def]
        calls.append(name)
        return original(name, *rest)

    monkeypatch.setattr(loading, "load_model", counted)
    found: list[object] = []
    threads = [
        threading.Thread(target=lambda: found.append(loaded_models.load(names[0]))) for _ in "abc"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == [names[0]]
    assert len(set(map(id, found))) == 1


def test_unloading_lets_go_of_the_model_and_of_what_was_prepared_with_it(names: list[str]) -> None:
    for name in names[:2]:
        prepared = session.prepare(
            Setting(name, Prompts(ENTITY_TRACKING, 5, 0, (3,))), lambda *_: None
        )
        session.source_values(prepared, names[0])
        assert len(evaluation(name, Prompts(ENTITY_TRACKING, 5, 0, (3,)), Ablation.mean).whole) == 5
    model = weakref.ref(prepared.loaded.model)
    weights = weakref.ref(prepared.loaded.base)
    gc.freeze()  # as jobs do that end
    del prepared
    loaded_models.unload(names[1])
    assert model() is None
    assert weights() is not None, "the base is on the shelf for itself"
    loaded_models.unload(names[0])
    assert weights() is None
    assert not loaded_models.loaded()


def test_another_placement_and_another_source_load_anew(
    names: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rough = loaded_models.load(names[0], Placement("cpu", Dtype.bfloat16))
    assert loaded_models.load(names[0]) is rough, "without a placement it is taken as it is"
    exact = loaded_models.load(names[0], Placement())
    assert exact is not rough
    assert loaded_models.load(names[0], Placement("cpu")) is exact
    monkeypatch.setattr(registry, "ADDED", tmp_path / "models.toml")
    registry.add("mine", names[0])
    mine = loaded_models.load("mine")
    registry.remove("mine")
    registry.add("mine", names[1])
    assert loaded_models.load("mine") is not mine
