"""The key of a request in the store: what its models are, and what else determines its result."""

from __future__ import annotations

from collections.abc import Sequence

from backend.core.errors import UserError
from backend.core.serialize import to_json
from backend.methods.registry import method_of
from backend.methods.requests import Request, models_of, renamed
from backend.models import catalogue
from backend.models.loaded_models import fingerprint_of, ran
from backend.studies import store


def identity(request: Request) -> str | None:
    """The key of a request; None while a model's files are not all here, or not read yet."""
    marks = marks_of(request, patiently=False)
    return key_of(request, marks) if marks else None


def marks_of(request: Request, patiently: bool) -> tuple[store.ModelMark, ...] | None:
    """What the models of a request are; None while their files are not all here.

    Unless asked `patiently`, None when gigabytes would have to be read to know.
    """
    marks = []
    for name in models_of(request):
        try:
            found = fingerprint_of(name, patiently)
        except (UserError, OSError):
            return None  # loading says what is wrong with it
        if found is None:
            return None
        marks.append(store.ModelMark(name, catalogue.label(name), found))
    return tuple(marks)


def ran_as(marks: Sequence[store.ModelMark]) -> bool:
    """Whether those models that were loaded are what the marks say, whatever is on disk by now."""
    return all(ran(mark.name) in (None, mark.fingerprint) for mark in marks)


def key_of(request: Request, marks: Sequence[store.ModelMark]) -> str:
    """Models count by what they are and circuits by their heads, whatever they are called."""
    nameless = renamed(request, [str(mark.fingerprint) for mark in marks], "")
    return store.key_of(method_of(request).name, to_json(nameless))
