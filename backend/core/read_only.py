"""A dashboard for an audience: it shows what is there, and nothing that visitors do stays.

Set `CIRCUIT_EXPLORER_READ_ONLY=1` where the server starts. Whatever writes, loads or works long
asks `check_allowed` first, so that nothing depends on what pages offer.
"""

from __future__ import annotations

import os

from backend.core.errors import UserError

VARIABLE = "CIRCUIT_EXPLORER_READ_ONLY"
MOST_PROMPTS = 200
"""That a visitor may ask a model at once."""


class Refused(UserError):
    """What a visitor may not do here."""


def is_read_only() -> bool:
    """Whether this is a dashboard for an audience."""
    return os.environ.get(VARIABLE, "") not in ("", "0")


def check_allowed(what: str) -> None:
    """Raise Refused, if visitors may not do this: “To delete results”."""
    if is_read_only():
        raise Refused(
            f"{what} is not possible in this read-only dashboard. Start one of your own for that: "
            "`make run`, as the README says."
        )
