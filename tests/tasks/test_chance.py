"""A model that guesses is shown beside chance: in words, on every page and in every command."""

from __future__ import annotations

import json

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from backend.commands.cli import main
from backend.core.statistics import ratio, wilson
from backend.models import loaded_models, prepared
from backend.studies import jobs
from backend.tasks.chance import faithfulness, forced_choice, warning
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.prompts import Prompts
from backend.tasks.setting import Setting
from tests.dashboard import ROOT
from tests.shell.apps import drawn, figures
from tests.tiny import llama, word_tokenizer

APP = ROOT / "app.py"


@pytest.fixture(scope="module")
def guesser(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random model with heads where the bundled circuit has some."""
    place = tmp_path_factory.mktemp("guesser")
    size = {"num_hidden_layers": 5, "num_attention_heads": 8, "num_key_value_heads": 8}
    llama(3, **size).save_pretrained(place)
    word_tokenizer().save_pretrained(place)
    return str(place)


def test_chance_must_lie_below_the_interval() -> None:
    right = np.arange(50) < 11
    choice = forced_choice(right, 7)
    assert choice.share == wilson(right)
    assert choice.share.low < 1 / 7 < choice.share.value, "higher, but not clearly"
    assert not choice.is_above_chance
    assert "0.22 (0.13 to 0.35), n = 50; chance 0.14 (1 in 7)" in str(warning("It", choice))
    assert np.isnan(faithfulness(right, right, choice).value)
    sure = forced_choice(np.arange(50) < 20, 7)
    assert warning("It", sure) is None
    assert faithfulness(right, right, sure) == ratio(right, right)


def test_accuracy_says_what_is_said_instead(
    guesser: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["accuracy", guesser, "--prompts", "40"]) == 0
    out, err = capsys.readouterr()
    (part,) = json.loads(out)["parts"]
    assert part["forced_choice"]["chance"] == pytest.approx(1 / 7)
    n_wrong = 40 * (1 - part["accuracy"]["value"])
    assert 0 < sum(n for _, n in part["instead"]) <= n_wrong
    assert part["instead"] == sorted(part["instead"], key=lambda each: -each[1])
    assert part["accuracy"]["value"] <= part["forced_choice"]["share"]["value"]
    assert part["accuracy"]["value"] + part["competitor"]["value"] <= 1
    assert "is not above chance on these prompts: right answer ahead of its competitors in" in err
    assert f"says instead: “{part['instead'][0][0]}”" in err


@pytest.mark.parametrize("command", ["compare", "cmap", "faithfulness"])
def test_commands_warn_of_chance(
    guesser: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    models = [guesser, guesser] if command == "cmap" else [guesser]
    assert main([command, *models, "--prompts", "20"]) == 0
    out, err = capsys.readouterr()
    assert "is not above chance on these prompts" in err
    if command == "faithfulness":
        assert json.loads(out)["parts"][0]["faithfulness"]["value"] is None


def test_the_bundled_base_is_not_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "base", "--prompts", "20"]) == 0
    out, err = capsys.readouterr()
    assert "chance" not in err
    assert json.loads(out)["parts"][0]["figures"]["forced_choice"]["share"]["value"] > 0.5


def test_the_circuit_page_says_that_there_is_nothing_to_be_faithful_to(guesser: str) -> None:
    setting = Setting(guesser, Prompts(ENTITY_TRACKING, 50, 0, (7,)))
    test = AppTest.from_file(str(APP), default_timeout=60)
    test.query_params.update({"n": "50", "model": guesser})
    test.run()
    started = jobs.known(setting)
    assert started
    started.future.result(120)
    session = prepared.get(setting)
    assert not forced_choice(session.whole.forced, 7).is_above_chance
    test.run()
    assert not test.exception
    shown = figures(test)
    assert shown["Faithfulness"] == "–"
    captions = " ".join(caption.value for caption in test.caption)
    below = {figure["label"]: figure["below"] for figure in drawn(test)["shown"]}
    n_right = int(session.whole.correct.sum())
    why = f"The model answers {n_right} of 50 prompts right, and is not above chance"
    assert why in below["Faithfulness"]
    assert "Not above chance: right answer ahead of its competitors in" in captions
    loaded_models.unload(guesser)
