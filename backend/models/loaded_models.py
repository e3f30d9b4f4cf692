"""The models that are loaded, each once, for all pages and jobs, until they are unloaded.

To look at what is there needs no torch; to load does, so pages load in a background job.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakValueDictionary

from backend.core.devices import decided, devices_meant
from backend.core.errors import UserError
from backend.core.placement import Placement
from backend.core.priority import unheld
from backend.core.tidying import tidy_up
from backend.models import elsewhere, prepared, registry
from backend.models.adapters_seen import remember
from backend.models.elsewhere import RemoteModel
from backend.models.fingerprints import Fingerprint, fingerprint, is_here

if TYPE_CHECKING:
    from backend.models.loading import Base, LoadedModel, Told
    from backend.tasks.task import Task

Function = TypeVar("Function", bound=Callable[..., Any])

_shelf: dict[str, LoadedModel] = {}
_last_loaded: dict[str, Fingerprint | None] = {}
_bases: WeakValueDictionary[tuple[Path, str, str, str], Base] = WeakValueDictionary()
_caches: list[Any] = []
_loading = threading.RLock()
_usual = Placement()
_noted: dict[tuple[str, str], tuple[str, ...]] = {}
_apart: Mapping[str, Placement] = {}


def load(name: str, placement: Placement | None = None, told: Told | None = None) -> LoadedModel:
    """The model, loaded unless it is there.

    Without a placement, it is taken as it is, or loaded with the default one. A model whose files
    have changed is loaded again. Raises UserError like `load_model`.
    """
    entry = registry.entry(name)

    def fitting() -> LoadedModel | None:
        known = _shelf.get(name)
        if not known or fingerprint_of(name) not in (known.files, None):
            return None
        wanted = known.placement if placement is None else decided(placement)
        return known if (known.entry, known.placement) == (entry, wanted) else None

    if known := fitting():
        return known
    from backend.models.loading import find, load_model, untold

    told = told or untold
    # Whoever waits here for a model must not be waited for: loading goes on beside urgent work.
    with unheld():
        told("Looking for the files", 0.0)
        # To fetch and to hash gigabytes takes its time, for which no other load has to wait.
        find(name)
        fingerprint_of(name)
        with _loading:
            if known := fitting():
                return known
            unload(name)
            loaded = load_model(name, placement or placement_of(name), told, _bases)
            _shelf[name], _last_loaded[name] = loaded, loaded.files
            if loaded.adapter and loaded.files:
                remember(loaded.files, str(loaded.adapter))
            return loaded


def is_current(model: LoadedModel | RemoteModel) -> bool:
    """Whether a loaded model is still what its name stands for and its files hold; quick.

    One whose files are gone is, too: it is all that is left of them. What has changed on a cluster
    is known when that is asked the next time.
    """
    if isinstance(model, RemoteModel):
        return elsewhere.is_current(model)
    try:
        now = fingerprint(model.name, model.placement.precision, patiently=False)
        return registry.entry(model.name) == model.entry and (
            now == model.files or not is_here(model.name)
        )
    except (UserError, OSError):
        return True


def renew(names: Iterable[str]) -> None:
    """Let go of those models that are not what is on disk any more, before work on them begins."""
    for name in names:
        model = _shelf.get(name)
        if not model or not is_current(model):
            unload(name)
            _last_loaded.pop(name, None)


def ran(name: str) -> Fingerprint | None:
    """What a model was when it was last loaded, also if it was let go meanwhile; None if never."""
    return _last_loaded.get(name)


def place_by_default(placement: Placement, apart: Mapping[str, Placement] | None = None) -> None:
    """Load models like this unless told otherwise, some in a way of their own, by name.

    Those that are loaded otherwise are let go.
    """
    global _usual, _apart
    _usual, _apart = placement, apart or {}
    for name, model in loaded().items():
        if model.placement != decided(_apart.get(name, placement)):
            unload(name)


def usual() -> Placement:
    """How models are loaded unless told otherwise."""
    return _usual


def placement_of(name: str) -> Placement:
    """How a model is loaded, or would be."""
    held = _shelf.get(name)
    return held.placement if held else _apart.get(name, _usual)


def devices_of(names: Iterable[str]) -> frozenset[str]:
    """The processors that models are on, or would be loaded on; imports torch.

    Raises UserError when one is not there.
    """
    return frozenset(device for name in names for device in devices_meant(placement_of(name)))


def precision_of(name: str) -> str:
    """The numbers that a model runs in, or would if it were loaded; they determine results."""
    return placement_of(name).precision


def fingerprint_of(name: str, patiently: bool = True) -> Fingerprint | None:
    """What a model is, in the numbers that it runs in; None for one that is not on this machine.

    Unless asked `patiently`, None as well when gigabytes would have to be read first. Raises
    UserError for a name that cannot be a model's.
    """
    return fingerprint(name, precision_of(name), patiently)


def unload(name: str) -> None:
    """Let go of a model and of everything that was kept with it; work on it goes on to its end."""
    if _shelf.pop(name, None) is None:
        return
    for cache in _caches:
        cache.cache_clear()
    prepared.forget(name)
    tidy_up()
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def loaded() -> dict[str, LoadedModel]:
    """The models that are loaded, by name."""
    return dict(_shelf)


def notes_of(name: str, task: Task) -> tuple[str, ...]:
    """What is to be known of a model that is loaded, here or on the cluster, or was at work in
    other processes; nothing of others."""
    if model := loaded_anywhere(name):
        return model.notes(task)
    try:
        files = fingerprint_of(name, patiently=False)
    except UserError:
        return ()
    return _noted.get((str(files), task.name), ())


def note(files: str, task: Task, notes: tuple[str, ...]) -> None:
    """Remember what another process says of a model that is this, by its fingerprint."""
    _noted[files, task.name] = notes


def loaded_anywhere(name: str) -> LoadedModel | RemoteModel | None:
    """A model that is loaded, here or on the cluster; None if it is not."""
    return _shelf.get(name) or elsewhere.loaded(name)


def bytes_of(name: str) -> tuple[int, int]:
    """What the weights of a loaded model take, and what of that no other loaded model has."""
    from backend.models.loading import weight_bytes

    models = {each: one.model for each, one in loaded().items()}
    mine = models.pop(name)
    others = [*models.values()]
    return weight_bytes([mine]), weight_bytes([mine, *others]) - weight_bytes(others)


def until_unload(maxsize: int) -> Callable[[Function], Function]:
    """Like `lru_cache`, for what holds on to a model: emptied when one is unloaded."""

    def decorate(function: Function) -> Function:
        cached: Any = lru_cache(maxsize=maxsize)(function)
        _caches.append(cached)
        return cached

    return decorate
