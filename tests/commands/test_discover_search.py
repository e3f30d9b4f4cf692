"""`discover --until` on the command line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from backend.models import catalogue
from backend.tasks.circuit import Circuit
from backend.tasks.entity_tracking import ENTITY_TRACKING
from tests import planted
from tests.commands.discovering import discover

SMALL = "--prompts", "20", "--boxes", "3"
EXACT = "--metric", "logit-difference", "--ablation", "resample"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return planted.saved(tmp_path_factory.mktemp("planted"))


def test_the_smallest_faithful_circuit_is_written_and_kept(
    capsys: pytest.CaptureFixture[str],
    folder: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(catalogue, "ADDED_CIRCUITS", tmp_path / "circuits")
    asked = (folder, *SMALL, *EXACT, "--until", "0.95", "--save", "searched")
    code, data, err = discover(capsys, *asked)
    assert code == 0
    expected = Circuit.of(ENTITY_TRACKING, planted.CIRCUIT)
    assert Circuit.from_data(data) == replace(expected, name="searched")
    assert catalogue.circuit("searched").nodes == expected.nodes
    how = data["provenance"]["search"]
    assert how["faithfulness"]["low"] > 0.95
    assert (how["selection_seed"], how["reported_seed"], how["n_prompts"]) == (1, 2, 20)
    assert (how["metric"], how["ablation"]) == ("logit_difference", "resample")
    assert [each["header"]["method"] for each in data["results"]] == [*["stage"] * 4, "search"]
    assert "Growing and pruning" in err
    assert "5 of 16 heads" in err

    _, again, err = discover(capsys, *asked)
    assert again["groups"] == data["groups"]
    assert "stored: measured on" in err
    fewer = discover(capsys, *asked, "--until", "0.4")[1]
    assert sum(map(len, fewer["groups"].values())) == 4


def test_what_no_circuit_reaches_is_said(capsys: pytest.CaptureFixture[str], folder: str) -> None:
    code, data, err = discover(capsys, folder, *SMALL, *EXACT, "--until", "0.95", "--most", "2")
    assert (code, data) == (1, None)
    *_, last = err.splitlines()
    assert "No circuit of these 2 heads is so faithful: the best has" in last
    assert "ask for less with --until" in last
    code, _, err = discover(
        capsys, folder, *SMALL, "--until", "0.95", "--most", "1", "--growth", "score"
    )
    assert code == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--most", "5"), "--most is about a search. Add --until"),
        (("--growth", "in-turn"), "--growth is about a search. Add --until"),
        (("--metric", "accuracy"), "--metric is about a search. Add --until"),
        (("--tokens", "named"), "--tokens is about a search. Add --until"),
        (("--ablation", "zero"), "--ablation is about a search. Add --until"),
        (("--until", "0.9", "--preview"), "Leave --until out"),
    ],
)
def test_options_of_a_search_need_one(
    capsys: pytest.CaptureFixture[str], folder: str, options: tuple[str, ...], message: str
) -> None:
    code, _, err = discover(capsys, folder, *options)
    assert code == 1
    assert message in err
