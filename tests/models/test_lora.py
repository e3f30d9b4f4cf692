"""An adapter, also on the output projection: every method, against the same weights merged."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor

from backend.core.components import Component
from backend.core.heads import Head
from backend.core.serialize import to_json
from backend.engine.activation_patching import clean_logits, patched_logits, prepare_clean
from backend.engine.architectures import shape_of, unwrapped
from backend.engine.attention import attention_mass
from backend.engine.mean_ablation import circuit_logits, prepare_ablated_run
from backend.engine.path_patching.run_pairs import RunPairs
from backend.engine.positions import mean_head_outputs, position_head_outputs
from backend.engine.transplants import foreign, transplanted_logits
from backend.methods.cmap import head_map
from backend.methods.compare import as_in_paper, compare
from backend.methods.completeness import completeness
from backend.methods.discovery import discover
from backend.methods.edges import edges
from backend.methods.evaluation import Evaluation, examine
from backend.methods.minimality import minimality
from backend.methods.stage import NO_TEST
from backend.methods.stages import Criteria
from backend.models.loading import LoadedModel, load_model, without_output_adapter
from backend.tasks.entity_tracking import (
    ENTITY_TRACKING,
    counterfactual_prompts,
    reference_prompts,
    sample_prompts,
)
from backend.tasks.prompts import Prompts, PromptSet
from tests import oracles, tiny
from tests.circuits import CIRCUIT, TOKENIZER

PROMPTS = sample_prompts(TOKENIZER, 8, n_boxes=3)
REFERENCE = reference_prompts(TOKENIZER, 8, n_boxes=3)


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    """With adapters on q, k, v and o, in float64; merged, and as the base alone."""
    wrapped, merged, base = (tiny.in_float64(tiny.lora_llama(3)) for _ in range(3))
    return {"wrapped": wrapped, "merged": merged.merge_and_unload(), "base": base.unload()}


def asked(model: Any, n: int) -> PromptSet:
    """Prompts whose right answers are those that the model gives."""
    prompts = sample_prompts(TOKENIZER, n, n_boxes=3)
    return replace(prompts, answer_ids=oracles.run(model, prompts)[0].argmax(-1).numpy())


def loaded(model: Any, name: str = "model") -> LoadedModel:
    return LoadedModel(name, model, TOKENIZER, shape_of(model))


def path_patching(model: Any) -> list[Tensor]:
    pairs = RunPairs(model, PROMPTS, counterfactual_prompts(TOKENIZER, PROMPTS))
    found = discover(pairs, Criteria(dict.fromkeys(ENTITY_TRACKING.keys, 3), fdr=NO_TEST))
    return [stage.mean for stage in found.stages]


def edge_weights(model: Any) -> Tensor:
    pairs = RunPairs(model, PROMPTS, counterfactual_prompts(TOKENIZER, PROMPTS))
    return torch.tensor([edge.weight.value for edge in edges(pairs, CIRCUIT, "model").edges])


def circuit_alone(model: Any) -> Tensor:
    means = mean_head_outputs(model, REFERENCE)
    return circuit_logits(prepare_ablated_run(model, PROMPTS, means), CIRCUIT.sites)


def click(model: Any) -> Tensor:
    other = position_head_outputs(model, counterfactual_prompts(TOKENIZER, PROMPTS))
    return patched_logits(prepare_clean(model, PROMPTS), CIRCUIT.sites, other)


def transplanted(target: Any, source: Any, part: Component) -> Tensor:
    clean = prepare_clean(target, PROMPTS)
    if part is Component.output:
        return patched_logits(clean, CIRCUIT.sites, position_head_outputs(source, PROMPTS))
    other = foreign(clean, source, PROMPTS, f"{part.name}_proj")  # type: ignore[arg-type]
    return transplanted_logits(clean, CIRCUIT.sites, other)


def attention(model: Any) -> list[Tensor]:
    unwrapped(model).set_attn_implementation("eager")
    return [torch.tensor(mass) for mass in attention_mass(model, PROMPTS).mass.values()]


METHODS: dict[str, Any] = {
    "the model": lambda m, base: clean_logits(prepare_clean(m, PROMPTS)),
    "means": lambda m, base: mean_head_outputs(m, REFERENCE),
    "path patching": lambda m, base: path_patching(m),
    "edges": lambda m, base: edge_weights(m),
    "circuit alone": lambda m, base: circuit_alone(m),
    "click": lambda m, base: click(m),
    "attention": lambda m, base: attention(m),
    **{
        f"CMAP of {part.value}, as {role}": (
            (lambda m, base, part=part: transplanted(m, base, part))
            if role == "target"
            else (lambda m, base, part=part: transplanted(base, m, part))
        )
        for part in Component
        for role in ("source", "target")
    },
}


@pytest.mark.parametrize("method", METHODS)
def test_wrapped_and_merged_are_the_same_and_the_adapter_matters(
    models: dict[str, Any], method: str
) -> None:
    wrapped, merged, base = (METHODS[method](model, models["base"]) for model in models.values())
    torch.testing.assert_close(wrapped, merged, rtol=1e-8, atol=1e-10)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(wrapped, base, rtol=1e-4, atol=1e-4)


def test_whole_studies_are_the_same(models: dict[str, Any]) -> None:
    prompts = asked(models["merged"], 30)

    def studied(model: Any) -> list[Any]:
        evaluation = Evaluation(loaded(model), prompts, REFERENCE)
        source = Evaluation(loaded(models["base"], "base"), prompts, REFERENCE)
        return [
            to_json(compare([evaluation], CIRCUIT, n_random=2).models[0].groups),
            to_json(minimality(evaluation, CIRCUIT)),
            to_json(completeness(evaluation, CIRCUIT, n_random=3)),
            to_json(head_map(source, evaluation, ENTITY_TRACKING.position_names[-1:])),
        ]

    assert studied(models["wrapped"]) == studied(models["merged"]) != studied(models["base"])


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """Loaded from files, with an adapter on the output projection that does much."""
    place = tmp_path_factory.mktemp("family")
    base = tiny.llama(5)
    base.save_pretrained(place / "base")
    TOKENIZER.save_pretrained(place / "base")
    torch.manual_seed(2)
    config = LoraConfig(
        r=8, lora_alpha=32, target_modules=["q_proj", "o_proj"], init_lora_weights=False
    )
    wrapped = get_peft_model(base, config)
    wrapped.peft_config["default"].base_model_name_or_path = "base"
    wrapped.save_pretrained(place / "lora")
    return load_model(str(place / "lora"))


def test_as_in_the_paper_means_the_bare_projection_around_the_circuit(
    adapted: LoadedModel,
) -> None:
    prompts = asked(adapted.model, 8)
    evaluation = Evaluation(adapted, prompts, REFERENCE)
    found = as_in_paper(evaluation, CIRCUIT, evaluation.whole)
    assert found

    # By hand: means with the adapter; then the circuit with its scale on o_proj at zero.
    means = oracles.head_outputs(adapted.model, REFERENCE).mean(1)
    by_hand = copy.deepcopy(adapted.model)
    for block in by_hand.model.layers:
        block.self_attn.o_proj.scaling["default"] = 0.0
    bare = without_output_adapter(adapted)
    ours = circuit_logits(prepare_ablated_run(bare.model, PROMPTS, means), CIRCUIT.sites)
    theirs = circuit_logits(prepare_ablated_run(by_hand, PROMPTS, means), CIRCUIT.sites)
    right = circuit_logits(prepare_ablated_run(adapted.model, PROMPTS, means), CIRCUIT.sites)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert (ours - right).abs().max() > 0.1
    accuracy = (theirs.argmax(-1).numpy() == prompts.answer_ids).mean()
    assert found.circuit.value == found.faithfulness.value == pytest.approx(accuracy)
    assert bare.model.lm_head.weight.data_ptr() == adapted.model.lm_head.weight.data_ptr()


def test_a_model_without_such_an_adapter_has_nothing_to_show() -> None:
    evaluation = examine(loaded(tiny.llama()), Prompts(ENTITY_TRACKING, 5, 0, (3,)))
    assert as_in_paper(evaluation, CIRCUIT, evaluation.whole) is None
    assert compare([evaluation], CIRCUIT, n_random=2).models[0].as_in_paper is None


def test_heads_are_counted_through_the_adapter(models: dict[str, Any]) -> None:
    assert shape_of(models["wrapped"]) == shape_of(models["merged"])
    assert Head(3, 3) in CIRCUIT.heads("A")
