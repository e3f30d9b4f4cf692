"""Models that machines of a cluster have and this computer has not (no torch, no Ray).

Whoever asks the cluster puts them here; the registry then knows them by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backend.core.heads import ModelShape
    from backend.models.fingerprints import Fingerprint
    from backend.models.model_config import Blueprint
    from backend.models.registry import Entry
    from backend.tasks.task import Task


@dataclass(frozen=True, eq=False)
class Elsewhere:
    """A model as it is there: what the registry there says of it, what it is in any precision, and
    its shape and words as far as its files tell."""

    entry: Entry
    files: Fingerprint
    blueprint: Blueprint | None


@dataclass(frozen=True, eq=False)
class RemoteModel:
    """A model that is loaded elsewhere: what is to be known of it here.

    known: as it was when it was loaded; about_files: what is to be known of its files, and how it
    is run.
    """

    name: str
    shape: ModelShape
    tokenizer: Any
    known: Elsewhere
    about_files: tuple[str, ...] = ()

    def notes(self, task: Task) -> tuple[str, ...]:
        """What is to be known of it, as of a model that is loaded here."""
        return (*self.about_files, *filter(None, [task.note(self.tokenizer)]))


_known: Mapping[str, Elsewhere] = {}
_loaded: dict[str, RemoteModel] = {}


def known() -> Mapping[str, Elsewhere]:
    """The models that are elsewhere only, by name."""
    return _known


def take(models: Iterable[Elsewhere]) -> None:
    """These are there from now on, and no others; what was known of them before is out of date."""
    global _known
    _known = {each.entry.name: each for each in models}
    _loaded.clear()


def put(model: Elsewhere) -> None:
    """It is like this now."""
    global _known
    _known = {**_known, model.entry.name: model}
    _loaded.pop(model.entry.name, None)


def forget(name: str) -> None:
    """It is here now."""
    global _known
    _known = {each: model for each, model in _known.items() if each != name}
    _loaded.pop(name, None)


def keep(model: RemoteModel) -> None:
    """Remember one that was loaded there."""
    _loaded[model.name] = model


def loaded(name: str) -> RemoteModel | None:
    """The model of this name, if it was loaded there and is what it was then."""
    found = _loaded.get(name)
    return found if found and is_current(found) else None


def is_current(model: RemoteModel) -> bool:
    """Whether a model is still what its name stands for, as far as is known here."""
    return _known.get(model.name) is model.known
