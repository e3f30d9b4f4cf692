"""What work is said to cost is what runs: counted in a model that counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch

from backend.core.heads import Head, Site
from backend.engine.architectures import layers, shape_of
from backend.engine.costs import Scale
from backend.engine.path_patching.attribution_patching import attributions_of
from backend.engine.path_patching.run_pairs import RunPairs
from backend.engine.path_patching.scores import scores_of
from backend.engine.validation import can_take_apart
from backend.methods.evaluation import Evaluation
from backend.models.loading import LoadedModel
from backend.tasks.circuit import Circuit
from backend.tasks.entity_tracking import (
    ENTITY_TRACKING,
    counterfactual_prompts,
    reference_prompts,
    sample_prompts,
)
from tests import tiny

N = 12
MODEL = tiny.llama(num_hidden_layers=6)
assert can_take_apart(MODEL)  # measured now, so that it is not counted
TOKENIZER = tiny.word_tokenizer()
PROMPTS = sample_prompts(TOKENIZER, N)
SCALE = Scale(6, shape_of(MODEL).n_heads, PROMPTS.input_ids.shape[1], ENTITY_TRACKING.positions)
CIRCUIT = Circuit.of(
    ENTITY_TRACKING,
    {
        "A": (Head(5, 0), Head(4, 1)),
        "B": (Head(3, 1),),
        "C": (Head(2, 0), Head(2, 2)),
        "D": (Head(1, 0), Head(0, 1)),
    },
)
_WITHIN = {"A": 0, "B": 0, "C": 0, "D": 0.1}
"""A previous label is somewhere in the prompt; it is counted as in its middle."""
RECEIVERS = {"A": (), "B": "A", "C": "B", "D": "C"}


@contextmanager
def counted() -> Iterator[Callable[[], int]]:
    """Counts the tokens that pass the MLPs of all layers."""
    passed = 0

    def count(_: object, given: tuple[torch.Tensor, ...], __: object) -> None:
        nonlocal passed
        passed += given[0].numel() // given[0].shape[-1]

    hooks = [layer.block.mlp.register_forward_hook(count) for layer in layers(MODEL)]
    try:
        yield lambda: passed
    finally:
        for hook in hooks:
            hook.remove()


def evaluation() -> Evaluation:
    loaded = LoadedModel("any", MODEL, TOKENIZER, shape_of(MODEL))
    return Evaluation(loaded, PROMPTS, reference_prompts(TOKENIZER, 20))


def test_a_model_and_its_circuits_cost_what_runs() -> None:
    circuits = [
        CIRCUIT.sites,
        frozenset(),
        *(CIRCUIT.sites_of([group]) for group in ENTITY_TRACKING.keys),
    ] * 3
    with counted() as tokens:
        asked = evaluation()
        asked.means  # noqa: B018
        assert tokens() == SCALE.runs(20)
        before = tokens()
        asked.circuit_only(circuits)
        assert 0 < tokens() - before <= SCALE.runs(N) + SCALE.circuits(N, len(circuits))
        before = tokens()
        asked.circuit_only([{Site(Head(0, 0), "last")}])
        assert tokens() - before == SCALE.circuits(N, 1)


@pytest.mark.parametrize("group", ENTITY_TRACKING.keys)
def test_patches_cost_what_runs(group: str) -> None:
    sets = [CIRCUIT.sites_of([group]), frozenset()]
    asked = evaluation()
    asked.ablated([()])
    with counted() as tokens:
        asked.ablated(sets)
        assert tokens() == pytest.approx(SCALE.patches(N, sets), rel=_WITHIN[group])


@pytest.mark.parametrize("group", ENTITY_TRACKING.keys)
def test_a_stage_costs_what_runs(group: str) -> None:
    pairs = RunPairs(MODEL, PROMPTS, counterfactual_prompts(TOKENIZER, PROMPTS))
    pairs.of(pairs.batches[0])
    receivers = CIRCUIT.heads(RECEIVERS[group]) if group != "A" else ()
    with counted() as tokens:
        scores_of(pairs, group, receivers)
        expected = N * sum(
            SCALE.senders(ENTITY_TRACKING.group(group), {head.layer for head in receivers}).values()
        )
        assert tokens() == pytest.approx(expected, rel=_WITHIN[group])


@pytest.mark.parametrize("steps", [0, 3])
@pytest.mark.parametrize("group", ENTITY_TRACKING.keys)
def test_attributions_cost_three_times_what_runs_forward(group: str, steps: int) -> None:
    pairs = RunPairs(MODEL, PROMPTS, counterfactual_prompts(TOKENIZER, PROMPTS))
    pairs.of(pairs.batches[0])
    receivers = CIRCUIT.heads(RECEIVERS[group]) if group != "A" else ()
    with counted() as tokens:
        attributions_of(pairs, group, receivers, steps=steps)
        layers = {head.layer for head in receivers}
        expected = SCALE.gradients(N, ENTITY_TRACKING.group(group), layers, steps)
        assert 3 * tokens() == pytest.approx(expected, rel=_WITHIN[group])
