"""A run that was killed goes on from what was finished, and ends as if nothing happened."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend.commands.cli import main
from backend.core.progress import Cancelled
from backend.engine import memory
from backend.engine.path_patching import scores
from backend.methods.registry import METHODS, plan_of
from backend.methods.stage import StageRequest
from backend.studies import store, studies
from backend.studies.keys import identity
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.prompts import Prompts
from tests import planted
from tests.dashboard import ROOT
from tests.forking import Forked

COMMANDS = {
    "compare": ("compare", "base", "arithmetic-full", "chat"),
    "cmap": ("cmap", "chat", "base", "--map"),
}
SMALL = ("--prompts", "60", "--boxes", "3")
FIRST = {"compare": "Measuring Base", "cmap": "sets of heads"}
"""What is said only while the first part is computed."""
SECOND = {"compare": "Measuring Arithmetic (full)", "cmap": "at the previous label"}


def started(local: Path, *arguments: str, **variables: str) -> Forked:
    local.mkdir(exist_ok=True)
    environment = os.environ | {"CIRCUIT_EXPLORER_LOCAL": str(local)} | variables
    return Forked("backend", arguments, environment, ROOT, out=local / "printed")


def finished(local: Path, *arguments: str, **variables: str) -> tuple[Any, str]:
    process = started(local, *arguments, **variables)
    err = process.stderr.read()
    assert process.wait(60) == 0, err
    return json.loads((local / "printed").read_text()), err


def with_hash_seed(seed: str, local: Path, *arguments: str, **variables: str) -> Any:
    """A process that begins anew: a forked one has the seed of what it was forked from."""
    places = {"CIRCUIT_EXPLORER_LOCAL": str(local), "PYTHONHASHSEED": seed}
    return subprocess.Popen(
        [sys.executable, "-m", "backend", *arguments],
        cwd=ROOT,
        env=os.environ | places | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_a_killed_run_goes_on_where_it_was(tmp_path: Path, command: str) -> None:
    asked = (*COMMANDS[command], *SMALL)
    process = started(tmp_path / "killed", *asked)
    for line in process.stderr:
        if SECOND[command] in line:
            process.kill()
            break
    assert process.wait(60) < 0
    (half,) = (tmp_path / "killed" / "results").glob("*.json")
    n_parts = json.loads(half.read_text())["header"]["n_parts"]

    data, err = finished(tmp_path / "killed", *asked)
    assert f"resuming: 1 of {n_parts} parts are there" in err
    assert FIRST[command] not in err
    assert SECOND[command] in err
    whole, err = finished(tmp_path / "whole", *asked)
    assert FIRST[command] in err
    assert data["parts"] == whole["parts"]
    assert data["header"]["key"] == whole["header"]["key"]


def test_a_killed_part_goes_on_within_itself(tmp_path: Path) -> None:
    asked, small_chunks = ("minimality", "base", *SMALL), {"CIRCUIT_EXPLORER_CHUNK": "8"}
    place = tmp_path / "killed"
    process = with_hash_seed("1", place, *asked, **small_chunks)
    for _ in process.stderr:
        if any(place.rglob("*.safetensors")):
            process.kill()
            break
    process.communicate()
    assert process.returncode < 0
    assert not (place / "results").exists()

    process = with_hash_seed("2", place, *asked, **small_chunks)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    data = json.loads(out)
    assert "resuming: an unfinished part is there" in err
    assert not [*(place / "unfinished").iterdir()]
    whole, told = finished(tmp_path / "whole", *asked, **small_chunks)
    assert "resuming" not in told
    assert data["parts"] == whole["parts"]
    assert data["header"]["key"] == whole["header"]["key"]


def test_discover_says_what_is_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CIRCUIT_EXPLORER_CHUNK", "8")
    planted.model().save_pretrained(tmp_path)
    planted.tokenizer().save_pretrained(tmp_path)
    kept_sizes = ("--keep", "A=2", "B=1", "C=1", "D=1")
    asked = ["discover", str(tmp_path), "--prompts", "20", "--boxes", "2", *kept_sizes]
    of_pair, n_blocks, first_stage = scores._of_pair, 0, 4 * 3  # layers, batches

    def stopped_in_the_second_stage(*arguments: Any) -> Any:
        nonlocal n_blocks
        n_blocks += 1
        if n_blocks == first_stage + 2:
            raise KeyboardInterrupt
        return of_pair(*arguments)

    with monkeypatch.context() as stopped:
        stopped.setattr(scores, "_of_pair", stopped_in_the_second_stage)
        assert main(asked) == 130
    assert "resuming" not in capsys.readouterr().err
    assert main(asked) == 0
    err = capsys.readouterr().err
    assert "resuming: 1 of 4 stages are there\nresuming: an unfinished part is there\n" in err


def test_a_stage_goes_on_after_its_last_batch_of_prompts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(memory, "_LEAST_ON_CPU", 8)
    monkeypatch.setattr(memory, "_NUMBERS_AT_ONCE", 1)
    planted.model().save_pretrained(tmp_path)
    planted.tokenizer().save_pretrained(tmp_path)
    receivers = planted.CIRCUIT["C"]
    request = StageRequest(str(tmp_path), Prompts(ENTITY_TRACKING, 20, 0, (2,)), "D", receivers)
    key = identity(request)
    assert key

    ((choosing, scoring),) = plan_of(request)
    begun = (choosing.cost + scoring.cost * 8 / 20) / (choosing.cost + scoring.cost)

    def stops_in_the_second_batch(stage: str, share: float) -> None:
        if stage.startswith("Stage") and share > begun:
            raise Cancelled

    with pytest.raises(Cancelled):
        [*studies.run(request, stops_in_the_second_batch)]
    (kept,) = store.unfinished(key).rglob("*.*")
    assert kept.name == "0-8_layer0.safetensors"
    before = kept.read_bytes()

    calls: list[int] = []
    of_pair = scores._of_pair

    def counted(pair: Any, *arguments: Any) -> Any:
        calls.append(len(pair.answers))
        return of_pair(pair, *arguments)

    monkeypatch.setattr(scores, "_of_pair", counted)
    (resumed,) = studies.run(request, lambda stage, share: None)
    assert calls == [8, 4]
    assert not store.unfinished(key).exists()
    (whole,) = METHODS["stage"].work(request, (), lambda stage, share: None, lambda part: None)
    np.testing.assert_array_equal(resumed.mean, whole.mean)
    np.testing.assert_array_equal(resumed.standard_error, whole.standard_error)
    assert resumed.strongest(1) == planted.CIRCUIT["D"]

    store.forget_unfinished(key)
    calls.clear()
    kept.parent.mkdir(parents=True)
    kept.write_bytes(before[:-7])
    [
        *METHODS["stage"].work(
            request, (), lambda stage, share: None, partial(studies.unfinished, request)
        )
    ]
    assert calls == [8, 8, 4], "what is damaged is computed again"
