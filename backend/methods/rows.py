"""Any result as rows of figures: for tables, for files of other programs, and to compare two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backend.methods.method import Figure
from backend.methods.registry import method_of
from backend.methods.requests import Request
from backend.tasks.chance import ForcedChoice


def figures(request: Request, parts: Sequence[Any]) -> list[Figure]:
    """Every figure of a result, the main ones first."""
    rows = method_of(request).rows
    return [row for place, part in enumerate(parts) for row in rows(request, place, part)]


def choices_of(models: Sequence[str], parts: Sequence[Any]) -> dict[str, ForcedChoice]:
    """What the parts of a result say of each of its models beside guessing, as far as they do.

    A part says it in `choices`: of the model at its place, or of all of them.
    """
    found: dict[str, ForcedChoice | None] = {}
    for place, part in enumerate(parts):
        choices = getattr(part, "choices", ())
        found |= zip(models[place:] if len(choices) == 1 else models, choices, strict=False)
    return {model: choice for model, choice in found.items() if choice}
