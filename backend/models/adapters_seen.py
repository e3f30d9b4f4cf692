"""What was found of an adapter when it was loaded, for those who ask without torch."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from backend.core.files import LOCAL, MB, Unreadable, read_json, write_atomically
from backend.models.fingerprints import Fingerprint

SEEN = LOCAL / "adapters.json"


def remember(files: Fingerprint, said: str) -> None:
    """Keep what is to be said of a base with an adapter, as long as their files are these."""
    with suppress(OSError):  # it is only found out once more
        write_atomically(SEEN, json.dumps(_known() | {str(files): said}, indent=0))


def seen(files: Fingerprint | None) -> str | None:
    """What was found when these files were last loaded; None if they never were."""
    said = _known().get(str(files))
    return said if isinstance(said, str) else None


def _known() -> dict[str, Any]:
    try:
        found = read_json(SEEN, MB)
    except Unreadable:
        return {}
    return found if isinstance(found, dict) else {}
