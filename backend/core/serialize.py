"""Values as JSON has them, and back again with every type checked: nothing read is trusted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import cache
from math import isfinite
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np

from backend.core.errors import UserError

_MOST = 2**63 - 1
"""What tables and pictures can hold."""


def to_json(value: Any) -> Any:
    """The value as JSON has it; an undefined figure is null, and sets are in order.

    A class may say how with `__to_json__` and `__from_json__`. Fields that are not compared are not
    part of a value, and left out.
    """
    if hasattr(value, "__to_json__") and not isinstance(value, type):
        return value.__to_json__()
    if is_dataclass(value) and not isinstance(value, type):
        return {
            each.name: to_json(getattr(value, each.name)) for each in fields(value) if each.compare
        }
    if isinstance(value, Mapping):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return to_json(value.tolist())
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    if isinstance(value, frozenset):
        return sorted(map(to_json, value))
    if isinstance(value, Enum):
        return value.name
    return None if isinstance(value, float) and not isfinite(value) else value


def from_json(kind: Any, data: Any) -> Any:
    """The value of type `kind` out of what `to_json` made of it.

    Raises UserError naming what does not fit, for a file that was written by something else.
    """
    if kind is Any:
        return data
    if kind in (float, int, str, bool):  # nearly all there is
        return _scalar(kind, data)
    if hasattr(kind, "__from_json__"):
        return kind.__from_json__(data)
    if isinstance(kind, type) and is_dataclass(kind):
        hints = _hints(kind)
        if not isinstance(data, dict) or not _needed(kind) <= data.keys():
            raise UserError(f"This is not a saved {kind.__name__}. Compute it again.")
        return kind(**{name: from_json(hints[name], data[name]) for name in hints if name in data})
    if isinstance(kind, type) and issubclass(kind, Enum) and str(data) in kind.__members__:
        return kind[data]
    if isinstance(kind, type) and hasattr(kind, "_fields") and isinstance(data, list):
        return _named_tuple(kind, data)
    if isinstance(kind, UnionType):
        (some,) = (of for of in get_args(kind) if of is not type(None))
        return None if data is None else from_json(some, data)
    if get_origin(kind) in (tuple, frozenset) and isinstance(data, list):
        return _collection(kind, data)
    if get_origin(kind) is np.ndarray and isinstance(data, list):
        return _array(data)
    if get_origin(kind) is Mapping and isinstance(data, dict):
        return {name: from_json(get_args(kind)[1], item) for name, item in data.items()}
    raise _misfit(data)


def _scalar(kind: type, data: Any) -> Any:
    if kind is float and data is None:
        return float("nan")
    if kind is float and isinstance(data, int | float) and not isinstance(data, bool):
        if isfinite(data):
            return float(data)
    elif kind is int and type(data) is int:
        if abs(data) <= _MOST:
            return data
    elif type(data) is kind:
        return data
    raise _misfit(data)


def _misfit(data: Any) -> UserError:
    return UserError(
        f"{str(data)[:60]!r} is not what a saved result holds there. Compute it again."
    )


_hints = cache(get_type_hints)


@cache
def _needed(kind: Any) -> frozenset[str]:
    return frozenset(
        f.name for f in fields(kind) if f.compare and f.default is f.default_factory is MISSING
    )


def _named_tuple(kind: Any, data: list[Any]) -> Any:
    hints = _hints(kind)
    if len(data) != len(hints):
        raise UserError(f"{str(data)[:60]!r} is not a {kind.__name__}. Compute it again.")
    return kind(*(from_json(of, item) for of, item in zip(hints.values(), data, strict=True)))


def _collection(kind: Any, data: list[Any]) -> Any:
    kinds = get_args(kind)
    if get_origin(kind) is tuple and kinds[-1] is not ...:
        if len(kinds) != len(data):
            raise UserError(f"{str(data)[:60]!r} has a wrong length. Compute it again.")
        return tuple(map(from_json, kinds, data))
    return get_origin(kind)(from_json(kinds[0], item) for item in data)


def _array(data: list[Any]) -> Any:
    """Rows of figures: [n, m]."""
    rows = from_json(tuple[tuple[float, ...], ...], data)
    if len({len(row) for row in rows}) != 1:
        raise UserError("A saved table has rows of different lengths. Compute it again.")
    return np.array(rows, dtype=np.float64)
