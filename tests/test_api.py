"""The public face: what it lists is there, and gives what the obvious way gives."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import backend
from backend.core.errors import UserError
from tests import planted, tiny
from tests.dashboard import ROOT

TASK = "entity-tracking"
SITES = [backend.Site(backend.Head(0, 1), "query_label"), backend.Site(backend.Head(2, 3), "last")]


@pytest.fixture(scope="module")
def model() -> backend.LoadedModel:
    return backend.load(tiny.grouped_llama(), tiny.word_tokenizer(), name="ours")


@pytest.fixture(scope="module")
def prompts(model: backend.LoadedModel) -> backend.PromptSet:
    return backend.sample(model, TASK, n=6, seed=3, boxes=3)


@contextmanager
def giving(model: Any, prompts: backend.PromptSet, values: Tensor) -> Iterator[None]:
    """`values` in place of what the heads of `SITES` give, prompt by prompt, number by number."""
    names, d_head = prompts.task.position_names, model.shape.d_head
    handles = []
    for (layer, index), position in SITES:

        def hook(
            _: Any, inputs: Any, layer: int = layer, i: int = index, at: str = position
        ) -> Any:
            (given,) = inputs
            given = given.clone()
            for prompt, token in enumerate(prompts.positions[at]):
                new = values[layer, prompt, names.index(at), i]
                given[prompt, token, i * d_head : (i + 1) * d_head] = new
            return (given,)

        o_proj = model.model.model.layers[layer].self_attn.o_proj
        handles.append(o_proj.register_forward_pre_hook(hook))
    yield
    for handle in handles:
        handle.remove()


@torch.no_grad()
def probability(model: Any, prompts: backend.PromptSet) -> NDArray[np.float64]:
    """Of the right answers, by the whole model and a plain softmax: [n]."""
    logits = model.model(torch.tensor(prompts.input_ids)).logits[:, -1].double()
    return logits.softmax(-1)[range(len(prompts)), prompts.answer_ids.tolist()].numpy()


def test_what_is_listed_is_there_and_readme_has_all_of_it() -> None:
    tree = ast.parse((ROOT / "backend" / "__init__.py").read_text())
    (typed,) = (node for node in tree.body if isinstance(node, ast.If))
    imported = {
        alias.name: node.module
        for node in typed.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert sorted(imported) == sorted(backend.__all__) == sorted(dir(backend))
    readme = (ROOT / "README.md").read_text()
    for name, module in imported.items():
        assert getattr(backend, name) is getattr(sys.modules[str(module)], name)
        assert f"`{name}`" in readme, name
    with pytest.raises(AttributeError, match="discovered"):
        backend.discovered  # noqa: B018


def test_tasks_and_circuits_need_no_torch() -> None:
    code = (
        "import sys, backend; backend.Circuit.of(backend.TASKS['entity-tracking'], {'A': "
        "[backend.Head(0, 1)]}); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_a_model_of_ones_own_is_taken_as_it_is() -> None:
    ours = tiny.llama().train()
    loaded = backend.load(ours, tiny.word_tokenizer())
    assert loaded.model is ours
    assert not ours.training
    asked = backend.sample(loaded, TASK, n=5)
    np.testing.assert_allclose(
        backend.answers(loaded, asked).probability, probability(loaded, asked), rtol=1e-4
    )


def test_a_folder_and_a_name_are_loaded(tmp_path: Path) -> None:
    planted.model().save_pretrained(tmp_path)
    planted.tokenizer().save_pretrained(tmp_path)
    assert backend.load(tmp_path).shape == backend.load(planted.model(), planted.tokenizer()).shape
    assert backend.load("base", dtype="bfloat16").placement.dtype.name == "bfloat16"


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda model: backend.load(tiny.llama()), "Give its tokenizer"),
        (lambda model: backend.load("base", tiny.word_tokenizer()), "its own tokenizer"),
        (lambda model: backend.load("base", dtype="int3"), "Choose one of float32"),
        (lambda model: backend.load(tiny.llama().double(), tiny.word_tokenizer()), "float64"),
        (lambda model: backend.load_circuit("nowhere"), "nowhere"),
        (lambda model: backend.sample(model, "chess"), "no task “chess”"),
        (lambda model: backend.path_patch(model, backend.sample(model, TASK, 2), "Z"), "no group"),
        (
            lambda model: backend.attribution_patch(model, backend.sample(model, TASK, 2), "Z"),
            "no group",
        ),
        (lambda model: backend.sample(model, TASK, doors=3), "no option “doors”"),
        (lambda model: backend.sample(model, TASK, boxes=1), "2 to "),
    ],
)
def test_what_cannot_be_is_refused_with_a_sentence(model: Any, ask: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        ask(model)


def test_heads_are_patched_as_by_hand(model: Any, prompts: backend.PromptSet) -> None:
    values = backend.record_heads(model, backend.counterfactual(model, prompts))
    with giving(model, prompts, values):
        expected = probability(model, prompts)
    found = backend.patch(model, prompts, SITES, values).probability
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert not np.allclose(found, probability(model, prompts), rtol=1e-3)
    own = backend.patch(model, prompts, SITES, backend.record_heads(model, prompts))
    np.testing.assert_allclose(own.probability, probability(model, prompts), rtol=1e-4)


def test_heads_are_ablated_as_by_hand(model: Any, prompts: backend.PromptSet) -> None:
    recorded = backend.record_heads(model, prompts)
    reference = backend.reference(model, prompts)
    outputs: dict[int, Tensor] = {}
    handles = [
        layer.self_attn.o_proj.register_forward_pre_hook(
            lambda _, inputs, number=number: outputs.__setitem__(number, inputs[0])
        )
        for number, layer in enumerate(model.model.model.layers)
    ]
    probability(model, reference)
    for handle in handles:
        handle.remove()
    means = torch.zeros_like(recorded)
    for (layer, index), position in SITES:
        heads = outputs[layer].unflatten(-1, (-1, model.shape.d_head))[:, :, index]
        at = prompts.positions[position].tolist()
        place = prompts.task.position_names.index(position)
        means[layer, :, place, index] = heads.double().mean(0)[at].float()
    other = backend.record_heads(model, backend.counterfactual(model, prompts))
    for ablation, values in {
        "mean": means, "zero": torch.zeros_like(recorded), "resample": other
    }.items():  # fmt: skip
        with giving(model, prompts, values):
            expected = probability(model, prompts)
        found = backend.ablate(model, prompts, SITES, ablation).probability
        np.testing.assert_allclose(found, expected, rtol=1e-3, err_msg=ablation)


def test_a_planted_circuit_is_found_and_does_the_task_alone() -> None:
    model = backend.load(planted.model(), planted.tokenizer(), name="planted")
    prompts = backend.sample(model, TASK, n=30, boxes=3)
    sizes = {key: len(heads) for key, heads in planted.CIRCUIT.items()}
    found = backend.discover(model, prompts, backend.Criteria(sizes))
    assert found == backend.Circuit.of(prompts.task, planted.CIRCUIT, "found")
    accuracy = backend.answers(model, prompts).correct.mean()
    alone = backend.circuit_accuracy(model, prompts, found)
    assert alone.value >= 0.9
    assert backend.faithfulness(model, prompts, found).value == pytest.approx(
        alone.value / accuracy
    )
    scores = backend.path_patch(model, prompts, "B", found.heads("A")).mean(0)
    assert backend.Head(*divmod(int(scores.argmin()), 4)) == found.heads("B")[0]
    for steps in (0, 5):
        estimated = backend.attribution_patch(model, prompts, "B", found.heads("A"), steps=steps)
        assert int(estimated.mean(0).argmin()) == int(scores.argmin())
    carried = backend.functions(model, prompts, found, "position").groups
    assert {key: each.expected.value for key, each in carried.items()} == {
        "A": 0, "B": 1, "C": 1, "D": 1,
    }  # fmt: skip
    for name, why in (("colour", "no desideratum “colour”"), ("random_text_end", "“bunch”")):
        with pytest.raises(UserError, match=why):
            backend.functions(model, prompts, found, name)
    none = backend.Circuit.of(prompts.task, {})
    assert backend.circuit_accuracy(model, prompts, none).value < 0.7


def test_a_better_model_s_heads_mend_a_worse_one() -> None:
    better = backend.load(planted.model(), planted.tokenizer(), name="better")
    forgetful = planted.model()
    with torch.no_grad():
        for index in (1, 3):
            forgetful.model.layers[3].self_attn.v_proj.weight[index * 16 : (index + 1) * 16] = 0
    worse = backend.load(forgetful, planted.tokenizer(), name="worse")
    prompts = backend.sample(worse, TASK, n=40, boxes=3)
    circuit = backend.Circuit.of(prompts.task, planted.CIRCUIT)
    found = backend.cmap(better, worse, prompts, circuit)
    assert found.sets["none"].accuracy == found.target_accuracy
    assert found.sets["A"].accuracy == found.source_accuracy
    own = backend.cmap(better, worse, prompts, {"early": circuit.sites_of(["D"])}, "q")
    assert own.sets["early"].accuracy == own.target_accuracy


def test_fetchers_write_the_answer_are_read_from_their_layer_on_and_copy() -> None:
    model = backend.load(planted.model(), planted.tokenizer(), name="planted")
    prompts = backend.sample(model, TASK, n=20, boxes=3)
    adds, read = backend.logit_attribution(model, prompts), backend.logit_lens(model, prompts)
    copied = backend.copying(model, prompts).copied
    answers = backend.answers(model, prompts)
    np.testing.assert_allclose(adds.sums, answers.logit_difference, rtol=1e-3)
    last = prompts.task.position_names.index("last")
    np.testing.assert_allclose(read.probability[:, last, -1], answers.probability, rtol=1e-3)
    for layer, index in planted.CIRCUIT["A"]:
        assert adds.heads[:, layer, index].mean() > 1
        assert (copied[layer, index] == 1).all()
