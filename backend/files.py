"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

CACHE = Path(__file__).parent.parent / "cache"
"""What ships with this tool: results that are there at once."""
LOCAL = Path(os.environ.get("CIRCUIT_EXPLORER_LOCAL") or CACHE / "local")
"""What is made here; elsewhere if the environment says so, as where homes are small."""


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that whoever reads it, whenever, finds all of the old or of the new one.

    Raises OSError when it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    handle, name = tempfile.mkstemp(prefix=".", suffix=".unfinished", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
