"""compare, cmap, minimality, completeness and edges from the command line, on planted models."""

from __future__ import annotations

import json

import pytest

from backend import saved
from backend.circuit import Circuit, Group, Head
from backend.cli import main
from backend.results import Cmap, Comparison, Completeness, Edges, HeadMap, Minimality
from tests import planted

SMALL = ("--prompts", "20", "--boxes", "2")


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    """The folders of a good and a worse model, and the file of their circuit."""
    place = tmp_path_factory.mktemp("family")
    good, worse = planted.model(), planted.model().requires_grad_(False)
    worse.model.layers[3].self_attn.v_proj.weight.zero_()
    for name, model in (("good", good), ("worse", worse)):
        model.save_pretrained(place / name)
        planted.tokenizer().save_pretrained(place / name)
    (place / "circuit.json").write_text(Circuit(planted.CIRCUIT, "planted").to_json())
    return {name: str(place / name) for name in ("good", "worse", "circuit.json")}


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    monkeypatch.setattr(saved, "RESULTS", tmp_path)
    return tmp_path


def run(capsys, family, *arguments):
    words = [family.get(word, word) for word in arguments]
    code = main([*words, "--circuit", family["circuit.json"], *SMALL])
    out, err = capsys.readouterr()
    return code, json.loads(out) if out else None, err


def test_compare(capsys, family, folder):
    code, data, err = run(
        capsys, family, "compare", "good", "worse", "--save", "both", "--overlap", "circuit.json"
    )
    assert code == 0
    assert "comparing: 100%" in err
    result = saved.revived(Comparison, data["result"])
    good, worse = result.models
    assert (good.name, good.model.value, good.model.n) == (family["good"], 1, 20)
    assert worse.model.value < 0.5
    assert result.differences[0].model.is_clear
    assert data["overlap"]["B"] == {
        "shared": [[2, 0]], "only_found": [], "only_expected": [], "precision": 1, "recall": 1,
    }  # fmt: skip
    assert data["prompts"] == 20
    kept = json.loads((folder / "both.json").read_text())
    assert kept == {"command": "compare", **data}
    assert [*saved.saved("compare")] == ["both"]


def test_cmap(capsys, family):
    code, data, err = run(
        capsys, family, "cmap", "good", "worse", "--sets", "A", "D+B", "none",
        "--heads", "L3.1@last+L2.0@last", "--map", "--part", "v",
    )  # fmt: skip
    assert code == 0
    assert "transplanting heads: 100%" in err
    result = saved.revived(Cmap, data["result"])
    assert [*result.sets] == ["A", "D + B", "none", "L3.1@last+L2.0@last"]
    assert result.sets["A"].recovery.value == pytest.approx(1, abs=0.05)
    assert result.sets["none"].recovery.value == 0
    assert result.sets["L3.1@last+L2.0@last"].n_sites == 2
    single = saved.revived(HeadMap, data["map"])
    assert [len(rows) for rows in single.heads.values()] == [4, 4, 4]
    assert Circuit.from_data(data["circuit"]).groups == planted.CIRCUIT


def test_cmap_of_all_groups_unless_told_otherwise(capsys, family):
    data = run(capsys, family, "cmap", "worse", "worse")[1]
    assert [*data["result"]["sets"]] == ["none", "D", "C", "B", "A", "all"]
    assert data["result"]["sets"]["all"]["recovery"]["value"] is None
    assert "map" not in data


def test_minimality(capsys, family):
    code, data, err = run(capsys, family, "minimality", "good", "--least", "0.05")
    assert code == 0
    assert "removing heads: 100%" in err
    found = saved.revived(Minimality, data["result"])
    adds = {name: [] for name in Group.__members__}
    for each in found.heads:
        if each.adds(0.05):
            adds[each.group].append([*each.head])
    assert data["kept"] == adds
    assert data["kept"]["B"] == [[2, 0]]


def test_completeness(capsys, family):
    code, data, _ = run(capsys, family, "completeness", "good", "--sets", "4")
    assert code == 0
    found = saved.revived(Completeness, data["result"])
    assert (len(found.groups), len(found.random)) == (4, 4)
    assert found.mean_incompleteness < 0.3


def test_edges(capsys, family):
    code, data, err = run(capsys, family, "edges", "good")
    assert code == 0
    assert "weighing edges: 100%" in err
    found = saved.revived(Edges, data["result"])
    logits = [edge.sender for edge in found.edges if edge.receiver is None]
    assert logits == [Head(3, 1), Head(3, 3)]
    assert all(edge.weight.value < -0.1 for edge in found.edges)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("compare", "good", "base"), "cannot be asked the same prompts"),
        (("cmap", "good", "base"), "Choose two models of the same shape and tokenizer"),
        (("compare", "good", "--overlap", "nothing"), "There is no circuit “nothing”"),
    ],
)
def test_bad_input_gets_one_clear_message(capsys, family, arguments, message):
    code, data, err = run(capsys, family, *arguments)
    assert (code, data) == (1, None)
    *notes, error = err.splitlines()
    assert error.startswith("error: ")
    assert message in error
    assert all("The prompts leave out" in note for note in notes)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--sets", "E"), "is not like A+B"),
        (("--sets", "A+"), "is not like A+B"),
        (("--heads", "L1.2"), "is not like L4.0@last"),
        (("--heads", "1.2@last"), "is not like L4.0@last"),
        (("--heads", "L1.2@correct_object"), "is not like L4.0@last"),
        (("--part", "o"), "invalid choice"),
        (("--save", "../x"), "cannot be used as a name"),
    ],
)
def test_a_wrong_option_is_explained(capsys, option, message):
    with pytest.raises(SystemExit):
        main(["cmap", "base", "chat", *option])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "option", "message"),
    [
        ("completeness", ("--sets", "-1"), "not a whole number"),
        ("completeness", ("--sets", "x"), "not a whole number"),
        ("minimality", ("--removed", "1.5"), "not a share from 0 to 1"),
        ("minimality", ("--removed", "nan"), "not a share from 0 to 1"),
        ("minimality", ("--removed", "x"), "not a share from 0 to 1"),
    ],
)
def test_a_number_out_of_range_is_explained(capsys, command, option, message):
    with pytest.raises(SystemExit):
        main([command, "base", *option])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("command", ["compare", "cmap", "minimality", "completeness", "edges"])
def test_every_command_has_help_with_an_example(capsys, command):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert f"example: python -m backend {command}" in capsys.readouterr().out
