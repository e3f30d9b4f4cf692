"""The engine: tasks, models, patching and statistics.

What is listed here is public; whatever else is in this package may change. Names are looked up when
they are first used: importing this module imports no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backend.api import (
        ablate,
        answers,
        attribution_patch,
        circuit_accuracy,
        cmap,
        copying,
        counterfactual,
        discover,
        faithfulness,
        functions,
        load,
        load_circuit,
        logit_attribution,
        logit_lens,
        patch,
        path_patch,
        record_heads,
        reference,
        sample,
    )
    from backend.core.errors import UserError
    from backend.core.heads import Head, Site
    from backend.core.statistics import Estimate
    from backend.engine.answers import Answers
    from backend.engine.copying import CopyingRanks
    from backend.engine.logit_attribution import Contributions
    from backend.engine.logit_lens import LensReading
    from backend.methods.cmap import Cmap
    from backend.methods.functions import Carried, Functions
    from backend.methods.stages import Criteria
    from backend.models.loading import LoadedModel
    from backend.tasks.circuit import Circuit
    from backend.tasks.desiderata import Desideratum, Pairs
    from backend.tasks.prompts import PromptSet
    from backend.tasks.registry import TASKS, register
    from backend.tasks.task import Group, Option, Position, Role, Task, Words

__all__ = [
    "TASKS",
    "Answers",
    "Carried",
    "Circuit",
    "Cmap",
    "Contributions",
    "CopyingRanks",
    "Criteria",
    "Desideratum",
    "Estimate",
    "Functions",
    "Group",
    "Head",
    "LensReading",
    "LoadedModel",
    "Option",
    "Pairs",
    "Position",
    "PromptSet",
    "Role",
    "Site",
    "Task",
    "UserError",
    "Words",
    "ablate",
    "answers",
    "attribution_patch",
    "circuit_accuracy",
    "cmap",
    "copying",
    "counterfactual",
    "discover",
    "faithfulness",
    "functions",
    "load",
    "load_circuit",
    "logit_attribution",
    "logit_lens",
    "patch",
    "path_patch",
    "record_heads",
    "reference",
    "register",
    "sample",
]

_HOMES = {
    "TASKS": "tasks.registry",
    "Answers": "engine.answers",
    "Carried": "methods.functions",
    "Circuit": "tasks.circuit",
    "Cmap": "methods.cmap",
    "Contributions": "engine.logit_attribution",
    "CopyingRanks": "engine.copying",
    "Criteria": "methods.stages",
    "Desideratum": "tasks.desiderata",
    "Estimate": "core.statistics",
    "Functions": "methods.functions",
    "Group": "tasks.task",
    "Head": "core.heads",
    "LensReading": "engine.logit_lens",
    "LoadedModel": "models.loading",
    "Option": "tasks.task",
    "Pairs": "tasks.desiderata",
    "Position": "tasks.task",
    "PromptSet": "tasks.prompts",
    "Role": "tasks.task",
    "Site": "core.heads",
    "Task": "tasks.task",
    "UserError": "core.errors",
    "Words": "tasks.task",
    "register": "tasks.registry",
}
"""Where names are that are not in `backend.api`."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'api')}"), name)


def __dir__() -> list[str]:
    return [*__all__]
