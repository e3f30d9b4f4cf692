"""Own tasks on the command line: listed, added, asked for, removed; what is wrong is told."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from backend.commands.cli import main
from backend.tasks.circuit import Circuit
from backend.tasks.ioi import IOI
from backend.tasks.own import files
from tests import planted_ioi
from tests.own import FRUIT, IOI_FILE
from tests.tasks.test_own_prompt_sets import as_rows, jsonl


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
    planted_ioi.saved(tmp_path)
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


def test_a_command_runs_on_rows_of_a_file_and_of_a_name(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    tokenizer, model = planted_ioi.tokenizer(), tmp_path / "model"
    planted_ioi.model().save_pretrained(model)
    tokenizer.save_pretrained(model)
    prompts = IOI.sample(tokenizer, 12)
    rows = as_rows(prompts, IOI.counterfactual(tokenizer, prompts), tokenizer)
    file = tmp_path / "mine.jsonl"
    file.write_bytes(jsonl(*rows, {"clean": 1}, rows[0] | {"answer": "banana"}))
    asked = "accuracy", str(model), "--task", "ioi", "--prompts-from"
    code, first, err = run(capsys, *asked, str(file))
    assert code == 0
    assert "row 13 is left out: its “clean” is no line of text" in err
    assert "row 14: its answer “banana” is not one token" in err
    assert "kept as “mine”" in err
    assert re.search(r"accuracy: 1\.000 \[.*\], n = 12\n", err)
    code, again, err = run(capsys, *asked, "mine")
    assert (code, again) == (0, first)
    assert "stored: measured on" in err
    keep = "--keep", "NM=2", "SI=1", "IN=2", "PT=1", "--fdr", "1"
    code, found, err = run(
        capsys, "discover", str(model), "--task", "ioi", "--prompts-from", "mine", "--prompts",
        "10", *keep,
    )  # fmt: skip
    assert code == 0, err
    assert Circuit.from_data(found).nodes == Circuit.of(IOI, planted_ioi.CIRCUIT).nodes
    assert found["task"] == "ioi"
    assert run(capsys, *asked, "nothing")[2].endswith(
        "There are no prompts “nothing” for indirect object identification. Give a file, or one of "
        "those that are kept: mine.\n"
    )


def test_models_are_paired_on_the_rows_that_can_be_used(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    tokenizer, better, worse = planted_ioi.tokenizer(), tmp_path / "better", tmp_path / "worse"
    model = planted_ioi.model().requires_grad_(False)
    model.save_pretrained(better)
    for head in planted_ioi.CIRCUIT["NM"]:
        model.model.layers[head.layer].self_attn.o_proj.weight.zero_()
    model.save_pretrained(worse)
    for folder in (better, worse):
        tokenizer.save_pretrained(folder)
    prompts = IOI.sample(tokenizer, 9)
    rows = as_rows(prompts, IOI.counterfactual(tokenizer, prompts), tokenizer)
    file = tmp_path / "mine.jsonl"
    file.write_bytes(jsonl(*rows, rows[0] | {"answer": "banana"}))
    circuit = tmp_path / "circuit.json"
    circuit.write_text(Circuit.of(IOI, planted_ioi.CIRCUIT).to_json())
    code, data, err = run(
        capsys, "compare", str(better), str(worse), "--task", "ioi", "--circuit", str(circuit),
        "--prompts-from", str(file),
    )  # fmt: skip
    assert code == 0, err
    first, second = (part["figures"]["model"] for part in data["parts"])
    (difference,) = data["parts"][1]["differences"]
    assert (first["value"], first["n"], second["n"]) == (1, 9, 9)
    assert difference["model"]["value"] == pytest.approx(second["value"] - first["value"])
    assert difference["model"]["n"] == 9
