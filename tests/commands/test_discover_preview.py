"""`discover --preview` on the command line."""

from __future__ import annotations

import pytest

from backend.commands.cli import main
from tests import planted
from tests.commands.discovering import discover

FEW = "--prompts", "12", "--boxes", "3", "--keep", "A=2", "B=1", "C=1", "D=1", "--fdr", "1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return planted.saved(tmp_path_factory.mktemp("planted"))


def test_a_preview_says_how_it_agrees_and_makes_no_circuit(
    capsys: pytest.CaptureFixture[str], folder: str
) -> None:
    code, data, err = discover(capsys, folder, *FEW, "--preview", "--check", "3")
    assert code == 0
    assert [stage["group"] for stage in data["stages"]] == [*"ABCD"]
    assert data["preview"] is True
    assert "groups" not in data
    methods = [result["header"]["method"] for result in data["results"]]
    assert methods == ["attribution-patching", "chosen-senders"] * 4
    assert err.count("preview, not exact: L") == 4
    assert err.count("heads exactly: rank correlation") == 4
    assert "no circuit is made of it" in err

    again = discover(capsys, folder, *FEW, "--preview", "--check", "3")[1]
    assert again == data

    assert discover(capsys, folder, *FEW)[0] == 0
    _, data, err = discover(capsys, folder, *FEW, "--preview", "--check", "3")
    assert all(stage["is_whole"] for stage in data["stages"])
    methods = [result["header"]["method"] for result in data["results"]]
    assert methods == ["attribution-patching", "stage"] * 4
    assert "A, checked: All 16 heads exactly" in err


def test_a_quick_preview_is_checked_and_makes_no_circuit(
    capsys: pytest.CaptureFixture[str], folder: str
) -> None:
    code, data, err = discover(capsys, folder, *FEW, "--quick", "--check", "3")
    assert code == 0
    assert data["preview"] is True
    assert "groups" not in data
    methods = [result["header"]["method"] for result in data["results"]]
    assert methods == ["quick", "chosen-senders"] * 4
    assert "gradients for the rest; no circuit is made of it" in err
    for stage in data["stages"]:
        assert stage["missed"] == []
        assert len(stage["off"]) == 3
        assert max(map(abs, stage["off"].values())) < 0.01


def test_without_a_check_nothing_is_said_to_agree(
    capsys: pytest.CaptureFixture[str], folder: str
) -> None:
    _, data, err = discover(capsys, folder, *FEW, "--preview", "--check", "0", "--steps", "2")
    assert data["stages"] == [{"group": key} for key in "ABCD"]
    assert "integrated over 2 steps" in err
    assert "checked" not in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--preview", "--save", "found"), "A preview is not exact and makes no circuit"),
        (("--quick", "--save", "found"), "A preview is not exact and makes no circuit"),
        (("--quick", "--until", "0.9"), "A preview is not exact and makes no circuit"),
        (("--steps", "2"), "--steps is about gradients. Add --preview, or leave it out."),
        (("--quick", "--steps", "2"), "--steps is about gradients. Add --preview, or leave it"),
        (("--check", "2"), "--check is about a preview. Add --preview or --quick, or leave it out"),
    ],
)
def test_options_that_do_not_go_together(
    capsys: pytest.CaptureFixture[str], options: tuple[str, ...], message: str
) -> None:
    code, data, err = discover(capsys, "base", *options)
    assert (code, data) == (1, None)
    assert message in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("option", "value"),
    [("--steps", "-1"), ("--steps", "101"), ("--check", "x"), ("--check", "201")],
)
def test_a_wrong_number_is_explained(
    capsys: pytest.CaptureFixture[str], option: str, value: str
) -> None:
    with pytest.raises(SystemExit):
        main(["discover", "base", "--preview", option, value])
    assert "is not a whole number from 0 to" in capsys.readouterr().err
