"""The models that are loaded, each once, for all pages and jobs, until they are unloaded.

Importing this module imports torch: pages reach it from a background job.
"""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import torch
from torch import nn

from backend.devices import decided
from backend.loading import Base, LoadedModel, Told, load_model, untold, weight_bytes
from backend.placement import Placement

Function = TypeVar("Function", bound=Callable[..., Any])

_TINY = 10_000_000
_shelf: dict[str, LoadedModel] = {}
_bases: WeakValueDictionary[tuple[Path, str, str], Base] = WeakValueDictionary()
_caches: list[Any] = []
_loading = threading.RLock()


def load(name: str, placement: Placement | None = None, told: Told = untold) -> LoadedModel:
    """The model, loaded unless it is there, with as many threads as serve it best.

    Without a placement, it is taken as it is, or loaded with the default one. Raises UserError
    like `load_model`.
    """
    if placement is None and (known := _shelf.get(name)):
        return known
    with _loading:
        known = _shelf.get(name)
        if known and (placement is None or known.placement == decided(placement)):
            return known
        if known:
            unload(name)
        loaded = load_model(name, placement or Placement(), told, _bases)
        torch.set_num_threads(_threads(loaded.model))
        _shelf[name] = loaded
        return loaded


def unload(name: str) -> None:
    """Let go of a model and of everything that was kept with it; work on it goes on to its end."""
    _shelf.pop(name, None)
    for cache in _caches:
        cache.cache_clear()
    # Pages freeze the collector's view of what is loaded, to be fast.
    gc.unfreeze()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def loaded() -> dict[str, LoadedModel]:
    """The models that are loaded, by name."""
    return dict(_shelf)


def own_bytes(name: str) -> int:
    """Memory that unloading this model would free: weights that no other loaded model has."""
    models = {each: one.model for each, one in loaded().items()}
    others = [model for each, model in models.items() if each != name]
    return weight_bytes(models.values()) - weight_bytes(others)


def until_unload(maxsize: int) -> Callable[[Function], Function]:
    """Like `lru_cache`, for what holds on to a model: emptied when one is unloaded."""

    def decorate(function: Function) -> Function:
        cached: Any = lru_cache(maxsize=maxsize)(function)
        _caches.append(cached)
        return cached

    return decorate


def _threads(model: nn.Module) -> int:
    """On tensors as small as a tiny model's, threads cost more than they bring."""
    n_parameters = sum(weight.numel() for weight in model.parameters())
    return 1 if n_parameters < _TINY else os.cpu_count() or 1
