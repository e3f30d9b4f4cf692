"""The benchmark of several processes: what it compares is the same, and each has its row."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

pytest.importorskip("ray")

from tests.dashboard import ROOT


def test_two_processes_find_the_same_scores_and_have_their_seconds() -> None:
    asked = [sys.executable, "-m", "benchmarks.cluster", "--prompts", "40", "--processes", "2"]
    ended = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    assert "All stages of base, 40 prompts" in ended.stdout
    rows = re.findall(r"^(this process|local:2) ((?: +\d+\.\d+){3})$", ended.stdout, re.MULTILINE)
    assert [name for name, _ in rows] == ["this process", "local:2"]
    alone, two = ([float(each) for each in row.split()] for _, row in rows)
    assert alone[2] == 1
    assert two[2] == pytest.approx(alone[1] / two[1], rel=0.2)
