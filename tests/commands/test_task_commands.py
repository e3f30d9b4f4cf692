"""Own tasks on the command line: listed, added, asked for, removed; what is wrong is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from backend.commands.cli import main
from backend.tasks.own import files
from tests import planted_ioi
from tests.own import FRUIT, IOI_FILE


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any, str]:
    code = main(arguments)
    out, err = capsys.readouterr()
    return code, json.loads(out) if out else None, err


def test_a_task_is_added_listed_and_removed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "any name.toml"
    file.write_text(FRUIT)
    assert run(capsys, "add-task", str(file))[:2] == (0, {"added": "fruit"})
    (files.ADDED / "bad.toml").write_text("title = 3")
    code, data, err = run(capsys, "tasks")
    names = [task["name"] for task in data["tasks"]]
    assert (code, names) == (0, ["entity-tracking", "ioi", "capitals", "greater-than", "fruit"])
    assert data["tasks"][-1]["file"] == str(files.ADDED / "fruit.toml")
    assert "bad.toml is not used: The field “name” is missing" in err
    assert list(data["complaints"]) == [str(files.ADDED / "bad.toml")]
    assert run(capsys, "remove-task", "fruit")[0] == 0
    assert run(capsys, "remove-task", "fruit")[0] == 1


def test_a_wrong_file_is_refused_with_its_field(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "wrong.toml"
    file.write_text(FRUIT.replace('key = "FR"', 'key = "fruit"'))
    code, _, err = run(capsys, "add-task", str(file))
    assert code == 1
    assert "“groups[2].key” holds “fruit”" in err
    assert run(capsys, "add-task", str(tmp_path))[0] == 1


def test_an_unknown_task_is_named_with_those_that_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["accuracy", "base", "--task", "nothing"])
    assert "no task “nothing”. Choose one of entity-tracking, ioi, cap" in capsys.readouterr().err


def test_a_changed_file_is_measured_again(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    planted_ioi.model().save_pretrained(tmp_path)
    planted_ioi.tokenizer().save_pretrained(tmp_path)
    files.ADDED.mkdir()
    file = files.ADDED / "own-ioi.toml"
    asked = "accuracy", str(tmp_path), "--task", "own-ioi", "--prompts", "20"
    file.write_bytes(IOI_FILE)
    code, first, err = run(capsys, *asked)
    assert code == 0
    assert "accuracy: 1.000" in err
    file.write_bytes(IOI_FILE.replace(b"As the built-in task.", b"Told in other words."))
    _, again, err = run(capsys, *asked)
    assert again == first
    assert "stored: measured on" in err
    file.write_bytes(IOI_FILE.replace(b'"Walter", ', b""))
    _, other, err = run(capsys, *asked)
    assert "stored: measured on" not in err
    assert other["header"]["key"] != first["header"]["key"]
