"""What of an attention head can be looked at or changed, apart from the others."""

from __future__ import annotations

from enum import Enum


class Component(Enum):
    """What of a head is transplanted from the source into the target."""

    output = "head output"
    """What the head gives at the site's token."""
    q = "queries"
    """Its query at the site's token."""
    k = "keys"
    """Its keys at every token that the site's token sees."""
    v = "values"
    """Its values at every token that the site's token sees."""
