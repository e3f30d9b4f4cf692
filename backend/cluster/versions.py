"""What has to be the same on both sides of a cluster, so that they compute the same."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

_PACKAGES = ("ray", "torch", "transformers", "peft", "numpy")
_BACKEND = Path(__file__).parents[1]


@cache
def versions() -> Mapping[str, str]:
    """Of Python, of what computes, and of this tool's code: its engine and all else in it."""
    found = {"Python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}
    code = sha256()
    for file in sorted(_BACKEND.rglob("*.py")):
        code.update(f"{file.relative_to(_BACKEND)}\0".encode() + file.read_bytes())
    return {**found, "this tool's code": code.hexdigest()[:12]}


def difference(here: Mapping[str, str], there: Mapping[str, str]) -> str:
    """What differs between the asking side and another one, in words; empty if nothing does."""
    return ", ".join(
        f"{name} is {there.get(name, 'missing')} there and {here[name]} here"
        for name in here
        if here[name] != there.get(name)
    )
