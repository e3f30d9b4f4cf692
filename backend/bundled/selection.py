"""Choose the base's circuit: path patching gives a pool of heads, pruning leaves what is needed.

Taking the k best of each group depends strongly on the four numbers k; pruning does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from backend.bundled.validation import VALIDATION_SEED
from backend.core.circuit import Circuit, Group, Head, Site
from backend.engine.mean_ablation import prepare_ablated_run
from backend.engine.path_patching.run_pairs import RunPairs
from backend.engine.positions import mean_head_outputs
from backend.methods.discovery import discover, prune
from backend.methods.reports import correctly_answered, whole_answers
from backend.methods.results import NO_TEST, Criteria, Discovery
from backend.models.loading import LoadedModel
from backend.tasks.entity_tracking import counterfactual_prompts, reference_prompts, sample_prompts

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
    prompts = correctly_answered(loaded, N_SCORED, N_BOXES, seed)
    pairs = RunPairs(loaded.model, prompts, counterfactual_prompts(loaded.tokenizer, prompts))
    receivers = dict.fromkeys(Group, selection.most_receivers)
    return discover(pairs, Criteria(receivers, fdr=NO_TEST), selection.least_receiver_effect)


def choose_circuit(
    loaded: LoadedModel, seed: int = VALIDATION_SEED, selection: Selection | None = None
) -> Circuit:
    """The circuit of a model, with its scores and all that is needed to find it again."""
    selection = selection or Selection()
    found = score_heads(loaded, seed, selection)
    prompts = sample_prompts(loaded.tokenizer, selection.n_pruning, N_BOXES, seed + 1)
    reference = reference_prompts(loaded.tokenizer, selection.n_pruning, N_BOXES, seed + 1)
    ablated_run = prepare_ablated_run(
        loaded.model, prompts, mean_head_outputs(loaded.model, reference)
    )
    least = selection.least_faithfulness * float(whole_answers(loaded, prompts).correct.mean())
    pruned = prune(ablated_run, _pool(found, selection), torch.tensor(prompts.answer_ids), least)
    return Circuit(pruned.groups, "base", _provenance(loaded, found, seed, selection))


def _pool(found: Discovery, selection: Selection) -> Circuit:
    """The best (group, head) pairs by score; a head at one token belongs to its better group."""
    ranked = sorted(
        (float(stage.mean[head]), head, group.name)
        for group, stage in found.stages.items()
        for head in stage.strongest(stage.mean.size)
    )
    best: dict[Site, tuple[Group, Head]] = {}
    for _, head, name in ranked:
        best.setdefault(Site(head, Group[name].position), (Group[name], head))
    return Circuit({}).keep(list(best.values())[: selection.pool])


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
        "receivers": {g.name: [[*h] for h in stage.receivers] for g, stage in found.stages.items()},
        "scores": {group.name: _rounded(stage.mean) for group, stage in found.stages.items()},
        "standard_errors": {
            group.name: _rounded(stage.standard_error) for group, stage in found.stages.items()
        },
    }


def _rounded(table: NDArray[np.float64]) -> list[list[float]]:
    return [[round(figure, 5) for figure in row] for row in table.tolist()]
