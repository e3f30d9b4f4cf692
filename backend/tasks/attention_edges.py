"""One token's attention to another, by the names that tokens have in a task (no torch)."""

from __future__ import annotations

from typing import NamedTuple

RANDOM = "random"
"""The key of a control: an earlier token of the prompt that has no name."""


class AttentionEdge(NamedTuple):
    """Attention of the `query` token to the `key` token, which may be RANDOM."""

    query: str
    key: str

    def __str__(self) -> str:
        return f"{self.query}:{self.key}"
