"""Attention heads and the tokens at which they are patched, as plain values (no torch)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from backend.core.errors import UserError

_HEAD_NAME = re.compile(r"L(\d{1,4})\.(\d{1,4})", re.ASCII)


class Head(NamedTuple):
    """An attention head, counted from zero; on screen ``L14.27``."""

    layer: int
    index: int  # type: ignore[assignment]  # the field's word; tuple.index is not needed here

    def __str__(self) -> str:
        return f"L{self.layer}.{self.index}"

    @classmethod
    def parse(cls, name: str) -> Head:
        """Read ``L14.27``; raises UserError on anything else."""
        match = _HEAD_NAME.fullmatch(name)
        if not match:
            raise UserError(f"“{name}” is not a head. Write heads as L14.27: layer 14, head 27.")
        return cls(int(match[1]), int(match[2]))


class Site(NamedTuple):
    """A head at a named token: the unit that is knocked out or patched."""

    head: Head
    position: str


class ModelShape(NamedTuple):
    """What two models must share for heads of one to be put into the other."""

    n_layers: int
    n_heads: int
    n_kv_heads: int
    d_head: int


def check_sites(sites: Iterable[Site], shape: ModelShape, model_name: str) -> None:
    """Raise UserError if a site's head lies outside a model of this shape."""
    for head, position in sites:
        if head.layer >= shape.n_layers or head.index >= shape.n_heads:
            raise UserError(
                f"There is no head {head}@{position} in {model_name}: it has only "
                f"{shape.n_layers} layers of {shape.n_heads} heads (counted from 0). Choose heads "
                "that it has."
            )
