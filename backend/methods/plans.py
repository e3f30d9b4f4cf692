"""Steps that the plans of several methods have, and what they cost, known before models are loaded.

Importing this module imports no torch.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from backend.core.errors import UserError
from backend.core.heads import Site
from backend.core.progress import Step
from backend.engine.costs import Scale
from backend.methods.requests import N_REFERENCE
from backend.models import catalogue, registry
from backend.models.model_config import blueprint
from backend.tasks.prompts import Prompts

_UNKNOWN_LAYERS, _UNKNOWN_HEADS = 24, 16
_ASKED_FOR_EACH_RIGHT = 2
"""Prompts that are asked until one is answered right; not known before. They go by the set."""


def scale_of(model: str, prompts: Prompts) -> Scale:
    """The scale of a model, as far as its files tell before it is loaded."""
    length, positions = prompts.task.length(*prompts.options), prompts.task.positions
    try:
        known = blueprint(registry.entry(model))
    except UserError:
        known = None
    if known is None:
        return Scale(_UNKNOWN_LAYERS, _UNKNOWN_HEADS, length, positions)
    return Scale(known.shape.n_layers, known.shape.n_heads, length, positions)


def chosen_step(scale: Scale, n: int) -> Step:
    """What path patching on `n` prompts begins with."""
    asked = scale.runs(n) * _ASKED_FOR_EACH_RIGHT
    return Step("Choosing prompts that the model answers right", asked)


def examined(
    model: str, prompts: Prompts, k: int, sets: Sequence[Collection[Site]] = ()
) -> list[Step]:
    """A model on prompts: `k` circuits alone, and the whole of it without each of the sets."""
    scale, n = scale_of(model, prompts), prompts.n
    alone = scale.runs(n) + scale.circuits(n, k)
    without = scale.runs(n) + scale.patches(n, sets)
    return [
        Step(f"Averaging head outputs of {catalogue.label(model)}", scale.runs(N_REFERENCE)),
        Step(f"Measuring {catalogue.label(model)}", alone + without),
    ]
