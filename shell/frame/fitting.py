"""What fits what, as far as files tell: said at the choice, before anything runs (no torch)."""

from __future__ import annotations

from collections.abc import Iterable

from backend.core.components import Component
from backend.core.errors import UserError
from backend.core.heads import ModelShape
from backend.models import catalogue, registry
from backend.models.model_config import Blueprint, blueprint, misfit
from backend.tasks.circuit import Circuit
from backend.tasks.registry import DEFAULT_TASK
from backend.tasks.task import Task


def circuit_misfit(circuit: Circuit, models: Iterable[str]) -> str | None:
    """Which head of the circuit lies outside which of the models; None if all lie inside."""
    for model in models:
        if known := _blueprint(model):
            try:
                circuit.check(known.shape, catalogue.label(model))
            except UserError as error:
                return str(error)
    return None


def pair_misfit(source: str, target: str, part: Component = Component.output) -> str | None:
    """Why heads of the source cannot go into the target; None if they can."""
    ours, theirs = _blueprint(source), _blueprint(target)
    if not ours or not theirs:
        return None
    names = catalogue.label(source), catalogue.label(target)
    if reason := misfit(ours, theirs, names, part):
        return f"This pair cannot be run: {reason} Choose two models of one shape."
    return None


def shape_of(model: str) -> ModelShape | None:
    """The shape of a model, if its configuration is on this machine."""
    known = _blueprint(model)
    return known.shape if known else None


def knows_other_words(model: str, task: Task) -> bool:
    """Whether the model is a bundled one, and the task another than those were trained for."""
    return task.family != DEFAULT_TASK.family and model in catalogue.bundled_models()


def family_of(model: str) -> list[str]:
    """What the model is compared with unless told otherwise: the bundled ones among themselves."""
    bundled = catalogue.bundled_models()
    return [*bundled] if model in bundled else [model]


def source_for(target: str, current: str) -> str:
    """The current source if it fits the target, or else the first model here that does, if any."""
    here = [name for name in catalogue.models() if _blueprint(name)]
    others = [name for name in (current, *here) if name != target]
    return next((name for name in others if not pair_misfit(name, target)), current)


def _blueprint(model: str) -> Blueprint | None:
    try:
        return blueprint(registry.entry(model))
    except UserError:
        return None  # what is wrong with the name is told by Run
