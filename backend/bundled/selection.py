"""Choose the base's circuit: path patching gives a pool of heads, pruning leaves what is needed.

Taking the k best of each group depends strongly on the four numbers k; pruning does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from backend.bundled.validation import VALIDATION_SEED
from backend.core.heads import Site
from backend.engine.mean_ablation import prepare_ablated_run
from backend.engine.path_patching.run_pairs import RunPairs
from backend.engine.positions import mean_head_outputs
from backend.methods.answering import correctly_answered, whole_answers
from backend.methods.discovery import discover, prune
from backend.methods.stage import NO_TEST
from backend.methods.stages import Criteria, Discovery
from backend.models.loading import LoadedModel
from backend.tasks.circuit import Circuit, Node
from backend.tasks.entity_tracking import (
    ENTITY_TRACKING,
    counterfactual_prompts,
    reference_prompts,
    sample_prompts,
)
from backend.tasks.prompts import Prompts

N_BOXES = 7
N_SCORED = 100


@dataclass(frozen=True)
class Selection:
    """How a circuit is chosen.

    On the prompts used for pruning, `least_faithfulness` is met; on fresh ones the circuit does a
    little worse, because pruning keeps what happens to do well on its own prompts.
    """

    n_pruning: int = 600
    most_receivers: int = 4
    least_receiver_effect: float = 0.05
    pool: int = 80
    least_faithfulness: float = 0.97


def score_heads(loaded: LoadedModel, seed: int, selection: Selection) -> Discovery:
    """Path patching of all four groups, on correctly answered prompts."""
    prompts = correctly_answered(loaded, Prompts(ENTITY_TRACKING, N_SCORED, seed, (N_BOXES,)))
    pairs = RunPairs(loaded.model, prompts, counterfactual_prompts(loaded.tokenizer, prompts))
    most = dict.fromkeys(ENTITY_TRACKING.keys, selection.most_receivers)
    least = selection.least_receiver_effect
    return discover(pairs, Criteria(most, fdr=NO_TEST, least_effect=least))


def choose_circuit(
    loaded: LoadedModel, seed: int = VALIDATION_SEED, selection: Selection | None = None
) -> Circuit:
    """The circuit of a model, with its scores and all that is needed to find it again."""
    selection = selection or Selection()
    found = score_heads(loaded, seed, selection)
    prompts = sample_prompts(loaded.tokenizer, selection.n_pruning, seed + 1, N_BOXES)
    reference = reference_prompts(loaded.tokenizer, selection.n_pruning, seed + 1, N_BOXES)
    ablated_run = prepare_ablated_run(
        loaded.model, prompts, mean_head_outputs(loaded.model, reference)
    )
    least = selection.least_faithfulness * float(whole_answers(loaded, prompts).correct.mean())
    pruned = prune(ablated_run, _pool(found, selection), torch.tensor(prompts.answer_ids), least)
    return replace(pruned, name="base", provenance=_provenance(loaded, found, seed, selection))


def _pool(found: Discovery, selection: Selection) -> Circuit:
    """The best (group, head) pairs by score; a head at one token belongs to its better group."""
    ranked = sorted(
        (float(stage.mean[head]), head, stage.group)
        for stage in found.stages
        for head in stage.strongest(stage.mean.size)
    )
    best: dict[Site, Node] = {}
    for _, head, key in ranked:
        best.setdefault(Site(head, ENTITY_TRACKING.group(key).position), (key, head))
    return Circuit(ENTITY_TRACKING, frozenset(list(best.values())[: selection.pool]))


def _provenance(
    loaded: LoadedModel, found: Discovery, seed: int, selection: Selection
) -> Mapping[str, Any]:
    return {
        "model": loaded.name,
        "method": "path patching on correctly answered prompts, then greedy pruning",
        "n_prompts": found.n_prompts,
        "n_prompts_pruning": selection.n_pruning,
        "boxes": N_BOXES,
        "seed": seed,
        "thresholds": {
            "most_receivers": selection.most_receivers,
            "least_receiver_effect": selection.least_receiver_effect,
            "pool": selection.pool,
            "least_faithfulness": selection.least_faithfulness,
        },
        "receivers": {stage.group: [[*head] for head in stage.receivers] for stage in found.stages},
        "scores": {stage.group: _rounded(stage.mean) for stage in found.stages},
        "standard_errors": {stage.group: _rounded(stage.standard_error) for stage in found.stages},
    }


def _rounded(table: NDArray[np.float64]) -> list[list[float]]:
    return [[round(figure, 5) for figure in row] for row in table.tolist()]
