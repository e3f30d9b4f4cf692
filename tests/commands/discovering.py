"""The command that finds circuits, run in a test."""

from __future__ import annotations

import json
from typing import Any

import pytest

from backend.commands.cli import main


def discover(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any, str]:
    """Its exit code, what it wrote as JSON, if anything, and what it said."""
    code = main(["discover", *arguments])
    out, err = capsys.readouterr()
    return code, json.loads(out) if out else None, err
