"""Words of others on the page."""

from __future__ import annotations


def unmarked(text: str) -> str:
    """Text without what Markdown would read into it."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]()#+-.!|$~:<>" else c for c in text)
