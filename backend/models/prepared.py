"""What is prepared for clicks, and kept of them, for all sessions: in bytes, within a budget.

Sessions with the same setting share what is prepared for it, and a click that two of them make is
computed once. What was used least recently goes first; what somebody used within the last minute is
in use, and a setting that does not fit beside it waits. Imports no torch.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from math import isfinite
from time import monotonic, sleep
from typing import Any, TypeVar

from backend.core.devices import cpu
from backend.core.errors import UserError
from backend.core.tidying import give_back

SHARE = 1 / 6
"""Of the machine's memory that may be taken by what is kept here."""
IN_USE_S = 60.0
"""How long after its last use a prepared setting stays, even if another one waits for room."""
PARTS = 1 / 10
"""Of what a prepared setting takes, for what is kept of clicks on it, besides the last one."""
VARIABLE = "CIRCUIT_EXPLORER_PREPARED_GB"

_LOOK_S = 0.5

Part = TypeVar("Part")


@dataclass(eq=False)
class _Kept:
    """A prepared setting, or a part of one: of which, and the models that it comes from."""

    value: Any
    n_bytes: int
    models: frozenset[str]
    part_of: Hashable = None
    used_at: float = field(default_factory=lambda: monotonic())


_kept: OrderedDict[Hashable, _Kept] = OrderedDict()
"""The least recently used first."""
_being_made: set[Hashable] = set()
_changed = threading.Condition(threading.RLock())


def budget() -> int:
    """How many bytes may be kept; the environment variable sets gigabytes instead.

    Raises UserError when that is no number.
    """
    text = os.environ.get(VARIABLE, "")
    if not text:
        return int(SHARE * cpu().total)
    try:
        gigabytes = float(text)
    except ValueError:
        gigabytes = float("nan")
    if not isfinite(gigabytes) or gigabytes <= 0:
        raise UserError(f"{VARIABLE}={text[:40]} is not a number of gigabytes. Choose 1 or more.")
    return int(gigabytes * 1e9)


def used() -> int:
    """How many bytes are kept."""
    with _changed:
        return sum(each.n_bytes for each in _kept.values())


def get(key: Hashable) -> Any:
    """What is prepared under this key, which is now in use; None if nothing is."""
    with _changed:
        if known := _kept.get(key):
            known.used_at = monotonic()
            _kept.move_to_end(key)
        return known and known.value


def holds(key: Hashable, name: Hashable) -> bool:
    """Whether the part of this name is kept of what is prepared under a key."""
    with _changed:
        return (key, name) in _kept


def keep(key: Hashable, value: Any, n_bytes: int, model: str) -> None:
    """Keep what was prepared with a model, in place of what was there.

    Raises UserError when it is larger than the budget.
    """
    _check_is_not_too_large(n_bytes)
    with _changed:
        _drop(key)
        while used() + n_bytes > budget():
            _drop(next(iter(_kept)))
        _kept[key] = _Kept(value, n_bytes, frozenset({model}))


def part(
    key: Hashable,
    whole: Any,
    name: Hashable,
    make: Callable[[], Part],
    size: Callable[[Part], int],
    models: frozenset[str] = frozenset(),
) -> Part:
    """The part of this name of the whole that is prepared under a key: kept, or made now.

    Others who ask for it meanwhile wait for it. models: those that it comes from beside the
    whole's. Nothing is kept of a whole that is not there any more.
    """
    place = key, name
    with _changed:
        _changed.wait_for(lambda: place not in _being_made)
        if get(key) is whole and place in _kept:
            found: Part = get(place)
            return found
        _being_made.add(place)
    try:
        made = make()
        keep_part(key, whole, name, made, size(made), models)
    finally:
        with _changed:
            _being_made.discard(place)
            _changed.notify_all()
    return made


def keep_part(
    key: Hashable,
    whole: Any,
    name: Hashable,
    value: Any,
    n_bytes: int,
    models: frozenset[str] = frozenset(),
) -> None:
    """Keep a part under its name, in place of what was there, if there is room; see `part`."""
    with _changed:
        if get(key) is whole:
            _kept.pop((key, name), None)
            if _is_room_for_part(key, n_bytes):
                _kept[key, name] = _Kept(value, n_bytes, models, part_of=key)


def make_room(n_bytes: int, fits: Callable[[], bool], wait: Callable[[str], None]) -> None:
    """Come back when so many bytes may be kept, and what else they need `fits`, as far as that can
    be had by letting go of what is not in use.

    While it cannot, `wait` is told what for, again and again; it may raise an error to end it.
    Raises UserError when it would be too large alone.
    """
    _check_is_not_too_large(n_bytes)
    while not (_is_room_for(n_bytes) and fits()):
        if _drop_the_oldest():
            give_back()
        elif used():
            wait(
                f"Waiting for memory: prepared prompts take {_size(used())}, {_size(budget())} are "
                f"for them, {_size(n_bytes)} more are needed, and all of them were used within the "
                "last minute"
            )
            sleep(_LOOK_S)
        else:
            return


def forget(model: str) -> None:
    """Let go of what comes from this model."""
    with _changed:
        for key in [key for key, each in _kept.items() if model in each.models]:
            _drop(key)


def _check_is_not_too_large(n_bytes: int) -> None:
    if n_bytes > budget():
        raise UserError(
            f"These prompts would take {_size(n_bytes)} of memory once prepared, and "
            f"{_size(budget())} are for prepared prompts. Choose fewer prompts, or start with "
            f"{VARIABLE}={n_bytes / 1e9 + 1:.0f} in the environment."
        )


def _is_room_for(n_bytes: int) -> bool:
    with _changed:
        while used() + n_bytes > budget():
            if not _drop_the_oldest():
                return False
    return True


def _is_room_for_part(key: Hashable, n_bytes: int) -> bool:
    parts = {place: each.n_bytes for place, each in _kept.items() if each.part_of == key}
    left = PARTS * _kept[key].n_bytes - n_bytes - sum(parts.values())
    for place, size in parts.items():
        if left < 0:
            left += size
            _drop(place)
    return _is_room_for(n_bytes)


def _drop_the_oldest() -> bool:
    """Let go of what was used least recently and can be; parts are soon made again."""
    with _changed:
        for key, each in _kept.items():
            if each.part_of is not None or monotonic() - each.used_at > IN_USE_S:
                _drop(key)
                return True
    return False


def _drop(key: Hashable) -> None:
    _kept.pop(key, None)
    for each in [place for place, one in _kept.items() if one.part_of == key]:
        del _kept[each]


def _size(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"
