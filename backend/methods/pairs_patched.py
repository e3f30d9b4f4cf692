"""Pairs of prompts under examination: what a model answers with heads as on the other prompt."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from backend.core.metrics import Ablation
from backend.methods.evaluation import Evaluation
from backend.models.loading import LoadedModel
from backend.tasks.desiderata import Pairs
from backend.tasks.prompts import select


def examined_pairs(loaded: LoadedModel, pairs: Pairs) -> Evaluation:
    """The base prompts, whose *right* answer is what is expected if the variable is carried.

    Sites that are given other values (`Evaluation.ablated`) take those of the alternate prompts,
    each at its own token.
    """
    base = replace(pairs.base, answer_ids=pairs.expected_ids)
    examined = Evaluation(loaded, base, base, Ablation.resample)
    examined.counterfactual = pairs.alternate
    return examined


def some_pairs(pairs: Pairs, rows: slice) -> Pairs:
    """These pairs alone, in their order."""
    chosen = np.zeros(len(pairs.base), dtype=bool)
    chosen[rows] = True
    base, alternate = select(pairs.base, chosen), select(pairs.alternate, chosen)
    return replace(pairs, base=base, alternate=alternate, expected_ids=pairs.expected_ids[rows])
