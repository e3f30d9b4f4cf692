"""Choose the base's circuit: path patching gives a pool of heads, pruning leaves what is needed.

Taking the k best of each group depends strongly on the four numbers k; pruning does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backend.bundled.validation import VALIDATION_SEED
from backend.engine.path_patching.run_pairs import RunPairs
from backend.methods.answering import correctly_answered
from backend.methods.discovery import discover
from backend.methods.evaluation import Evaluation
from backend.methods.pruning import Growth, candidates, pruning
from backend.methods.stage import NO_TEST
from backend.methods.stages import Criteria, Discovery
from backend.models.loading import LoadedModel
from backend.tasks.circuit import Circuit, Node
from backend.tasks.entity_tracking import ENTITY_TRACKING, counterfactual_prompts
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
    asked = Prompts(ENTITY_TRACKING, selection.n_pruning, seed + 1, (N_BOXES,))
    evaluation = Evaluation(
        loaded, asked.sample(loaded.tokenizer), asked.reference(loaded.tokenizer, asked.n)
    )

    def accuracies(circuits: Sequence[Sequence[Node]]) -> list[float]:
        sites = [Circuit(ENTITY_TRACKING, frozenset(members)).sites for members in circuits]
        return [float(share) for share in evaluation.circuit_only(sites).mean(1)]

    strongest = candidates(ENTITY_TRACKING, found.stages, Growth.score, selection.pool)
    # Of members that cost the same, the first in reading order goes.
    pool = Circuit(ENTITY_TRACKING, frozenset(strongest)).members[::-1]
    least = selection.least_faithfulness * float(evaluation.whole.mean())
    (of_all,) = accuracies([pool])
    steps = pruning(pool, of_all, accuracies, len(pool))
    gone = {member for member, _ in takewhile(lambda step: step[1] >= least, steps)}
    left = frozenset(pool) - gone
    return Circuit(ENTITY_TRACKING, left, "base", _provenance(loaded, found, seed, selection))


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
