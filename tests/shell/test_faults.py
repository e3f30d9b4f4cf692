"""Killed, on a full disk, with a clock that jumps, without its model: nothing finished is lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from backend.commands.cli import main
from backend.core import files
from backend.core.errors import UserError
from backend.core.kept import Folder
from backend.core.serialize import to_json
from backend.engine import checkpoints
from backend.methods.accuracy import AccuracyRequest
from backend.methods.compare import ComparisonRequest
from backend.models import catalogue
from backend.models.loaded_models import fingerprint_of
from backend.studies import store, studies
from backend.studies.keys import identity, marks_of
from backend.tasks.circuit import Circuit
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.prompts import Prompts
from tests import planted
from tests.dashboard import ROOT
from tests.forking import Forked

HEADS = catalogue.circuit("base")
PROMPTS = Prompts(ENTITY_TRACKING, 20, 0, (3,))


def serve(local: Path, *arguments: str) -> Forked:
    environment = os.environ | {"CIRCUIT_EXPLORER_LOCAL": str(local)}
    return Forked("tests.job_alone", arguments, environment, ROOT)


def silent(stage: str, share: float) -> None:
    """Nobody asked how far it is."""


def test_two_servers_go_on_where_a_killed_one_was(tmp_path: Path) -> None:
    killed = serve(tmp_path, "killed")
    said = [*takewhile("a part".__ne__, map(str.strip, killed.stderr))]
    killed.kill()
    assert killed.wait(60) < 0
    assert "Measuring Base" in said
    (half,) = (tmp_path / "results").glob("*.json")
    first = json.loads(half.read_text())["parts"]
    assert len(first) == 1
    servers = [serve(tmp_path), serve(tmp_path)]
    said = "".join(server.stderr.read() for server in servers).splitlines()
    assert [server.wait(60) for server in servers] == [0, 0]
    assert "Measuring Base" not in said
    assert said.count("a part") == 4
    (whole,) = (tmp_path / "results").glob("*.json")
    assert whole.name == half.name
    both = json.loads(whole.read_text())["parts"]
    assert both[:1] == first
    assert len(both) == 2
    assert not (tmp_path / "damaged").exists()


def test_a_model_that_is_deleted_during_a_run_costs_only_its_own_part(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("base", "chat")]
    for folder in folders:
        shutil.copytree(catalogue.BUNDLED / folder.name, folder)
    request = AccuracyRequest(tuple(map(str, folders)), PROMPTS)
    running = studies.run(request, silent)
    first = next(running)
    shutil.rmtree(folders[1])
    with pytest.raises(UserError, match="chat"):
        next(running)
    (entry,) = store.entries()
    assert entry.header.n_parts == 2
    assert studies.read(entry).parts == (first,)
    shutil.copytree(catalogue.BUNDLED / "chat", folders[1])
    assert [*studies.run(request, silent)] == [
        first,
        *studies.run(AccuracyRequest(("chat",), PROMPTS), silent),
    ]


def test_a_result_of_a_model_that_is_gone_is_kept_as_that_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "base"
    shutil.copytree(catalogue.BUNDLED / "base", folder)
    request = AccuracyRequest((str(folder),), PROMPTS)
    ran, keep = fingerprint_of(str(folder)), studies._keep

    def late(*arguments: Any) -> None:
        shutil.rmtree(folder)
        keep(*arguments)

    monkeypatch.setattr(studies, "_keep", late)
    (part,) = studies.run(request, silent)
    assert part.accuracy.n == 20
    (entry,) = store.entries()
    assert entry.header.models[0].fingerprint == ran
    assert json.loads(json.dumps(studies.as_data(request, (part,))))["parts"]


@pytest.mark.parametrize("years", [-56, 300])
def test_a_clock_that_jumps_only_changes_the_order(
    years: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "base"
    shutil.copytree(catalogue.BUNDLED / "base", folder)
    jumped = datetime.now(UTC) + timedelta(days=365 * years)
    os.utime(folder / "model.safetensors", (jumped.timestamp(),) * 2)
    requests = [
        AccuracyRequest((str(folder),), Prompts(ENTITY_TRACKING, 5, seed, (3,))) for seed in (0, 1)
    ]
    before = to_json((*studies.run(requests[0], silent),))
    with monkeypatch.context() as clock:
        clock.setattr(store, "datetime", Mock(wraps=datetime, now=lambda _: jumped))
        [*studies.run(requests[1], silent)]
    store._read.cache_clear()
    assert [studies.read(entry).request for entry in store.entries()] == (
        requests if years < 0 else requests[::-1]
    )
    assert to_json((*studies.run(requests[0], pytest.fail),)) == before


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    full = Mock(side_effect=OSError(28, "No space left on device"))
    monkeypatch.setattr(files.tempfile, "mkstemp", full)


@pytest.mark.usefixtures("full_disk")
@pytest.mark.parametrize("option", ["--save", "--out"])
def test_a_circuit_that_was_found_is_printed_though_the_disk_is_full(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: Any
) -> None:
    planted.model().save_pretrained(tmp_path)
    planted.tokenizer().save_pretrained(tmp_path)
    where = {"--save": "found", "--out": str(tmp_path / "found.json")}[option]
    sizes = [f"{group}={len(heads)}" for group, heads in planted.CIRCUIT.items()]
    small = "--prompts", "20", "--boxes", "2"
    code = main(["discover", str(tmp_path), *small, "--keep", *sizes, option, where])
    out, err = capsys.readouterr()
    assert code == 1
    found = Circuit.from_data(json.loads(out))
    assert {key: found.heads(key) for key in ENTITY_TRACKING.keys} == planted.CIRCUIT
    *_, last = err.splitlines()
    assert last.startswith("error: ")
    assert "cannot be written" in last
    assert "No space left on device" in last
    assert "The result cannot be kept" in caplog.text
    assert not (tmp_path / "found.json").exists()


def test_what_is_unfinished_stays_while_its_result_cannot_be_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    request = ComparisonRequest(("base",), HEADS, PROMPTS)
    (part,) = studies.run(request, silent)
    place = store.unfinished(identity(request) or "")
    shutil.rmtree(store.RESULTS)
    place.mkdir(parents=True)
    with monkeypatch.context() as full:
        full.setattr(store, "write_atomically", Mock(side_effect=OSError(28, "No space left")))
        studies._keep(request, marks_of(request, patiently=True), (part,), 1.0)
    assert place.exists()
    studies._keep(request, marks_of(request, patiently=True), (part,), 1.0)
    assert not place.exists()


def test_a_pipe_in_place_of_what_is_unfinished_blocks_nobody(tmp_path: Path) -> None:
    import torch

    os.mkfifo(tmp_path / "0-2.safetensors")
    block = checkpoints.Block("0-2", (2,), torch.float32, lambda: torch.ones(2))
    (found,) = checkpoints.tensors(Folder(tmp_path), [block])
    assert found.tolist() == [1, 1]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="This system has no /dev/full.")
def test_a_result_that_cannot_be_printed_is_told_so() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "backend", "models"],
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
        )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: The result cannot be printed (No space left on device). "
        "Use --out FILE on another disk."
    ]
