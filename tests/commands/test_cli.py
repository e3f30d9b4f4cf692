"""The command line: JSON on one stream, words on the other, messages for what users get wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from backend.commands import cli
from backend.commands.cli import main
from backend.core.heads import Head
from backend.models import catalogue, loaded_models, registry
from backend.models.loading import load_model
from backend.tasks.circuit import Circuit
from backend.tasks.entity_tracking import ENTITY_TRACKING, sample_prompts
from backend.tasks.prompts import N_PATCHED
from shell.frame.view import View
from tests import planted
from tests.tiny import llama, word_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    place = tmp_path_factory.mktemp("model")
    llama().save_pretrained(place)
    word_tokenizer().save_pretrained(place)
    return str(place)


@pytest.fixture(autouse=True)
def _nothing_stays_loaded() -> Iterator[None]:
    yield
    for name in loaded_models.loaded():
        loaded_models.unload(name)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any, str]:
    code = main(arguments)
    out, err = capsys.readouterr()
    return code, json.loads(out) if out else None, err


def test_models_lists_what_is_known_and_what_is_added(
    capsys: pytest.CaptureFixture[str], folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "ADDED", tmp_path / "models.toml")
    arguments = "add", "mine", folder, "--label", "Mine", "--finetuned-on", "sums"
    code, new, _ = run(capsys, *arguments)
    assert (code, new["label"], new["on_this_computer"]) == (0, "Mine", True)
    code, result, _ = run(capsys, "models")
    assert code == 0
    listed = {model["name"]: model for model in result["models"]}
    assert list(listed) == list(catalogue.models())
    assert listed["mine"] == new
    assert listed["goat-7b"]["adapter"] == "tiedong/goat-lora-7b"
    assert "base" in result["circuits"]
    measured = run(capsys, "accuracy", "mine", "--prompts", "5")[1]
    assert measured["header"]["request"]["models"] == ["mine"]
    assert run(capsys, "remove", "mine")[0] == 0
    assert run(capsys, "remove", "mine")[0] == 1
    (tmp_path / "models.toml").write_text("[bad]")
    assert "“bad” has no source" in run(capsys, "models")[1]["complaint"]


def test_the_dtype_is_used_and_told(capsys: pytest.CaptureFixture[str], folder: str) -> None:
    arguments = "accuracy", folder, "--prompts", "20", "--boxes", "3"
    exact, rough = (
        run(capsys, *arguments, *more)[1] for more in ((), ("--dtype", "bfloat16", "--tf32"))
    )
    marks = [result["header"]["models"][0]["fingerprint"] for result in (exact, rough)]
    assert [mark["precision"] for mark in marks] == ["float32", "bfloat16+tf32"]
    figures = [result["parts"][0]["probability"]["value"] for result in (exact, rough)]
    assert figures[0] != figures[1]
    assert figures[1] == pytest.approx(figures[0], abs=0.01)


@pytest.mark.parametrize(
    ("numbers", "named"),
    [(("--dtype", "bfloat16"), "bfloat16"), (("--tf32",), "float32 with TF32")],
)
def test_discover_in_rough_numbers_tells_the_noise(
    capsys: pytest.CaptureFixture[str], numbers: tuple[str, ...], named: str
) -> None:
    code, _, err = run(capsys, "discover", "base", "--prompts", "5", *numbers)
    assert code == 0
    assert f"ounding in {named} is" in err
    assert "8 prompts, seed 0, 7 boxes." in err


def test_accuracy_is_what_the_model_answers(
    capsys: pytest.CaptureFixture[str], folder: str
) -> None:
    code, result, _ = run(capsys, "accuracy", folder, "--prompts", "60", "--boxes", "3")
    loaded = load_model(folder)
    prompts = sample_prompts(loaded.tokenizer, 60, 0, 3)
    with torch.no_grad():
        logits = loaded.model(torch.tensor(prompts.input_ids)).logits[:, -1]
    right = logits.argmax(-1).numpy() == prompts.answer_ids
    probability = logits.softmax(-1)[range(60), prompts.answer_ids].double()
    (figures,) = result["parts"]
    assert code == 0
    assert figures["accuracy"]["value"] == pytest.approx(right.mean())
    assert figures["probability"]["value"] == pytest.approx(float(probability.mean()), abs=1e-6)
    assert figures["accuracy"]["n"] == 60
    assert result["header"]["request"]["prompts"]["n"] == 60


def test_an_undefined_figure_is_null(capsys: pytest.CaptureFixture[str], folder: str) -> None:
    whole = run(capsys, "accuracy", folder, "--prompts", "20")[1]["parts"][0]["accuracy"]
    assert whole["value"] == 0, "this random model should answer nothing right"
    circuit = Path(folder) / "circuit.json"
    circuit.write_text(Circuit.of(ENTITY_TRACKING, {"A": (Head(0, 0),)}).to_json())
    code, result, _ = run(
        capsys, "faithfulness", folder, "--circuit", str(circuit), "--prompts", "20"
    )
    assert code == 0
    assert result["parts"][0]["faithfulness"]["value"] is None


def test_discover_in_a_model_that_guesses_finds_nothing_and_says_so(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    planted.guessing().save_pretrained(tmp_path)
    planted.tokenizer().save_pretrained(tmp_path)
    asked = "discover", str(tmp_path), "--prompts", "20", "--boxes", "2"
    code, result, err = run(capsys, *asked)
    assert code == 0
    assert not any(result["groups"].values())
    assert [each["header"]["request"]["group"] for each in result["results"]] == ["A"]
    assert "No head is clear among the 12 that were tried" in err
    assert err.count("Not run: ") == len("BCD")
    code, result, err = run(capsys, *asked, "--fdr", "1")
    assert code == 0
    assert result["provenance"]["false_discovery_rate"] == 1
    assert result["groups"]["A"]
    (strongest, *_) = result["provenance"]["heads"]["A"]
    assert f"{Head(*strongest['head'])} {strongest['score']:+.4f} (z {strongest['z']:+.1f})" in err


@pytest.mark.parametrize("rate", ["0", "1.5", "nan", "x"])
def test_an_odd_false_discovery_rate_is_told(capsys: pytest.CaptureFixture[str], rate: str) -> None:
    with pytest.raises(SystemExit):
        main(["discover", "base", "--fdr", rate])
    assert f"“{rate}” is not a rate" in capsys.readouterr().err


def test_discover_finds_and_saves_the_planted_circuit(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "ADDED_CIRCUITS", tmp_path / "circuits")
    planted.model().save_pretrained(tmp_path)
    planted.tokenizer().save_pretrained(tmp_path)
    sizes = [f"{group}={len(heads)}" for group, heads in planted.CIRCUIT.items()]
    code, result, err = run(
        capsys, "discover", str(tmp_path), "--prompts", "20", "--boxes", "2",
        "--keep", *sizes, "--save", "planted",
    )  # fmt: skip
    assert code == 0
    found = catalogue.circuit("planted")
    assert {key: found.heads(key) for key in planted.CIRCUIT} == planted.CIRCUIT
    assert {name: result[name] for name in found.as_data()} == found.as_data()
    assert [each["header"]["request"]["group"] for each in result["results"]] == [*"ABCD"]
    assert result["provenance"]["n_prompts"] == 20
    assert "Stage D" in err
    code, result, _ = run(
        capsys, "faithfulness", str(tmp_path), "--circuit", "planted", "--prompts", "50",
        "--boxes", "2",
    )  # fmt: skip
    assert result["parts"][0]["faithfulness"]["value"] > 0.9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("accuracy", "no-such-model"), "There is no model “no-such-model”"),
        (("faithfulness", "{folder}", "--circuit", "nothing"), "There is no circuit “nothing”"),
        (("faithfulness", "{folder}", "--circuit", "{big}"), r"has head L31.31 in group A"),
        (("faithfulness", "{folder}", "--circuit", "{bad}"), "groups.A"),
        (("discover", "{folder}", "--prompts", "5"), "answers only 0 of 50 prompts right"),
        (("discover", "{damaged}", "--prompts", "5"), "cannot be read"),
        (("accuracy", "{folder}", "--device", "cuda:99"), "“cuda:99” is not there"),
        (("accuracy", "goat-7b"), "hf download huggyllama/llama-7b"),
    ],
)
def test_bad_input_gets_one_clear_message(
    capsys: pytest.CaptureFixture[str],
    folder: str,
    tmp_path: Path,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    big, bad, damaged = (tmp_path / name for name in ("big.json", "bad.json", "damaged"))
    big.write_text(Circuit.of(ENTITY_TRACKING, {"A": (Head(31, 31),)}, "big").to_json())
    bad.write_text('{"groups": {"A": 3}}')
    damaged.mkdir()
    (damaged / "config.json").write_text("{")
    places = {"folder": folder, "big": big, "bad": bad, "damaged": damaged}
    code, result, err = run(capsys, *(word.format(**places) for word in arguments))
    assert code == 1
    assert result is None
    *_, last = err.splitlines()
    assert last.startswith("error: ")
    assert message in last


@pytest.mark.parametrize("kept", ["E=3", "A", "A=0", "A=x", "A=-1"])
def test_a_wrong_keep_is_explained(capsys: pytest.CaptureFixture[str], kept: str) -> None:
    with pytest.raises(SystemExit):
        main(["discover", "base", "--keep", kept])
    assert "is not like B=6" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    ["models", "add", "remove", "tasks", "add-task", "remove-task", "accuracy", "discover"],
)
def test_every_command_has_help_with_an_example(
    capsys: pytest.CaptureFixture[str], command: str
) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert f"example: python -m backend {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "default"),
    [
        ("accuracy base", View().n),
        ("faithfulness base", View().n),
        ("compare base", View().n),
        ("cmap chat base", View().n),
        ("discover base", N_PATCHED),
        ("minimality base", N_PATCHED),
        ("completeness base", N_PATCHED),
        ("knockouts base", View().n),
        ("edges base", N_PATCHED),
        ("logit-attribution base", View().n),
        ("logit-lens base", View().n),
        ("copying base", View().n),
        ("attention base", View().n),
        ("attention-knockout base", View().n),
    ],
)
def test_what_is_asked_unless_told_otherwise_is_what_pages_ask(
    arguments: str, default: int
) -> None:
    """So that what was measured by a command is there on its page."""
    found = cli._parser().parse_args(arguments.split())
    assert (found.prompts, found.seed) == (default, View().seed)
