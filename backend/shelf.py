"""The models that are loaded, each once, for all pages and jobs, until they are unloaded.

To look at what is there needs no torch; to load does, so pages load in a background job.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakValueDictionary

from backend import registry
from backend.devices import decided, devices_meant
from backend.fingerprints import Fingerprint, fingerprint
from backend.placement import Placement
from backend.urgency import unheld

if TYPE_CHECKING:
    from backend.loading import Base, LoadedModel, Told

Function = TypeVar("Function", bound=Callable[..., Any])

_shelf: dict[str, _Held] = {}
_bases: WeakValueDictionary[tuple[Path, str, str, str], Base] = WeakValueDictionary()
_caches: list[Any] = []
_loading = threading.RLock()
_usual = Placement()


@dataclass(frozen=True, eq=False)
class _Held:
    """A model, and what its files were when it was loaded."""

    model: LoadedModel
    files: Fingerprint | None


def load(name: str, placement: Placement | None = None, told: Told | None = None) -> LoadedModel:
    """The model, loaded unless it is there.

    Without a placement, it is taken as it is, or loaded with the default one. A model whose files
    have changed is loaded again. Raises UserError like `load_model`.
    """
    entry = registry.entry(name)

    def fitting() -> LoadedModel | None:
        if not (held := _shelf.get(name)) or held.files not in (fingerprint_of(name), None):
            return None
        known = held.model
        wanted = known.placement if placement is None else decided(placement)
        return known if (known.entry, known.placement) == (entry, wanted) else None

    if known := fitting():
        return known
    # Whoever waits here for a model must not be waited for: loading goes on beside urgent work.
    with _loading, unheld():
        if known := fitting():
            return known
        unload(name)
        from backend.loading import load_model, untold

        loaded = load_model(name, placement or _usual, told or untold, _bases)
        _shelf[name] = _Held(loaded, fingerprint(name, _precision(loaded.placement)))
        return loaded


def place_by_default(placement: Placement) -> None:
    """Load models like this unless told otherwise; those that are loaded otherwise are let go."""
    global _usual
    _usual = placement
    for name, model in loaded().items():
        if model.placement != decided(placement):
            unload(name)


def devices_of(names: Iterable[str]) -> frozenset[str]:
    """The processors that models are on, or would be loaded on; imports torch.

    Raises UserError when one is not there.
    """
    return frozenset(device for name in names for device in devices_meant(_placement(name)))


def precision_of(name: str) -> str:
    """The numbers that a model runs in, or would if it were loaded; they determine results."""
    return _precision(_placement(name))


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
    # Pages freeze the collector's view of what is loaded, to be fast.
    gc.unfreeze()
    gc.collect()
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def loaded() -> dict[str, LoadedModel]:
    """The models that are loaded, by name."""
    return {name: held.model for name, held in dict(_shelf).items()}


def bytes_of(name: str) -> tuple[int, int]:
    """What the weights of a loaded model take, and what of that no other loaded model has."""
    from backend.loading import weight_bytes

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


def _placement(name: str) -> Placement:
    held = _shelf.get(name)
    return held.model.placement if held else _usual


def _precision(placement: Placement) -> str:
    return placement.dtype.name + ("+tf32" if placement.tf32 else "")
