"""The methods from the command line, on planted models."""

from __future__ import annotations

import json

import pytest

from backend.commands.cli import main
from backend.core.heads import Head
from backend.methods.registry import settings_of
from backend.studies import store, studies
from backend.tasks.circuit import Circuit
from backend.tasks.entity_tracking import ENTITY_TRACKING
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
    (place / "circuit.json").write_text(
        Circuit.of(ENTITY_TRACKING, planted.CIRCUIT, "planted").to_json()
    )
    return {name: str(place / name) for name in ("good", "worse", "circuit.json")}


def run(capsys, family, *arguments):
    words = [family.get(word, word) for word in arguments]
    code = main([*words, "--circuit", family["circuit.json"], *SMALL])
    out, err = capsys.readouterr()
    return code, json.loads(out) if out else None, err


def parts(data):
    """The parts of a result that was written, as the store would read them."""
    store.DROPPED.mkdir()
    (store.DROPPED / "copied.json").write_text(json.dumps(data))
    (entry,) = store.entries()
    return studies.read(entry).parts


def test_compare(capsys, family):
    code, data, err = run(capsys, family, "compare", "good", "worse", "--overlap", "circuit.json")
    assert code == 0
    assert "Measuring" in err
    assert "100%" in err
    assert f"{family['good']}, full model: 1.000" in err
    good, worse = parts(data)
    assert (good.figures.name, good.figures.model.value) == (family["good"], 1)
    assert good.figures.model.n == 20
    assert worse.figures.model.value < 0.5
    assert worse.differences[0].model.is_clear
    assert data["overlap"]["B"] == {
        "shared": [[2, 0]], "only_found": [], "only_expected": [], "precision": 1, "recall": 1,
    }  # fmt: skip
    assert data["header"]["request"]["prompts"] == {
        "task": "entity-tracking",
        "n": 20,
        "seed": 0,
        "options": [2],
    }


def test_what_is_not_the_papers_is_asked_for_and_said(capsys, family):
    for command, models, options, said in (
        ("compare", ["good"], ["--metric", "logit-difference"], "logit difference"),
        ("faithfulness", ["good"], ["--ablation", "resample"], "resample ablation"),
        ("cmap", ["good", "worse"], ["--metric", "probability"], "probability of the right answer"),
        ("completeness", ["good"], ["--sets", "1", "--ablation", "zero"], "zero ablation"),
        ("edges", ["good"], ["--score", "logit-difference"], "change of logit difference"),
    ):
        code, data, _ = run(capsys, family, command, *models, *options)
        assert code == 0
        name, value = options[-2].removeprefix("--"), options[-1]
        assert data["header"]["request"][name] == value.replace("-", "_")
        stored = next(each for each in store.entries() if each.header.key == data["header"]["key"])
        assert said in settings_of(studies.read(stored).request)


def test_discovery_by_the_logit_difference(capsys, family):
    words = ["discover", family["good"], *SMALL, "--score", "logit-difference"]
    assert main(words) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["provenance"]["score"] == "logit_difference"
    assert data["groups"]["A"]
    for each in data["results"]:
        assert each["header"]["request"]["score"] == "logit_difference"


def test_cmap(capsys, family):
    code, data, err = run(
        capsys, family, "cmap", "good", "worse", "--sets", "A", "D+B", "none",
        "--heads", "L3.1@last+L2.0@last", "--map", "--part", "v",
    )  # fmt: skip
    assert code == 0
    assert "Transplanting single heads, at the last token: 100%" in err
    result, *maps = parts(data)
    assert [*result.sets] == ["A", "D + B", "none", "L3.1@last+L2.0@last"]
    assert result.sets["A"].recovery.value == pytest.approx(1, abs=0.05)
    assert result.sets["none"].recovery.value == 0
    assert result.sets["L3.1@last+L2.0@last"].n_sites == 2
    assert [len(rows) for each in maps for rows in each.heads.values()] == [4, 4, 4]


def test_cmap_of_all_groups_unless_told_otherwise(capsys, family):
    data = run(capsys, family, "cmap", "worse", "worse")[1]
    (result,) = data["parts"]
    assert [*result["sets"]] == ["none", "D", "C", "B", "A", "all"]
    assert result["sets"]["all"]["recovery"]["value"] is None
    assert data["header"]["n_parts"] == 4


def test_minimality(capsys, family):
    code, data, _ = run(capsys, family, "minimality", "good", "--least", "0.05")
    assert code == 0
    (found,) = parts(data)
    adds = {name: [] for name in ENTITY_TRACKING.keys}
    for each in found.heads:
        if each.adds(0.05):
            adds[each.group].append([*each.head])
    assert data["kept"] == adds
    assert data["kept"]["B"] == [[2, 0]]


def test_completeness(capsys, family):
    code, data, _ = run(capsys, family, "completeness", "good", "--sets", "4")
    assert code == 0
    (found,) = parts(data)
    assert (len(found.groups), len(found.random)) == (4, 4)
    assert found.mean_incompleteness.value < 0.3


def test_edges(capsys, family):
    code, data, err = run(capsys, family, "edges", "good")
    assert code == 0
    assert "Patching one edge after the other: 100%" in err
    (found,) = parts(data)
    logits = [edge.sender for edge in found.edges if edge.receiver is None]
    assert logits == [Head(3, 1), Head(3, 3)]
    assert all(edge.weight.value < -0.1 for edge in found.edges)


def test_functions(capsys, family):
    asked = "--desiderata", "object,position,random_text_end", "--draws", "2"
    code, data, err = run(capsys, family, "functions", "good", *asked)
    assert code == 0
    carried, position, unwritten = parts(data)
    assert carried.groups["A"].expected.value == position.groups["B"].expected.value == 1
    assert position.groups["B"].expected.n == 40
    assert "group B carries, clearly: position" in err
    assert "no figures of text at the end: This tokenizer does not know “a”, “are”" in err
    assert "“are”" in unwritten.reason
    code, _, err = run(capsys, family, "functions", "good", "--desiderata", "color")
    assert code == 1
    assert "no desideratum “color”. Choose of object, label" in err


def test_another_metric_and_ablation_than_the_papers(capsys, family):
    chosen = "--metric", "logit-difference", "--ablation", "zero"
    data = run(capsys, family, "faithfulness", "good", *chosen)[1]
    asked = data["header"]["request"]
    assert (asked["metric"], asked["ablation"]) == ("logit_difference", "zero")
    assert data["parts"][0]["model"]["value"] > 1, "logits, not a share"
    data = run(capsys, family, "edges", "good", "--score", "logit-difference")[1]
    assert data["header"]["request"]["score"] == "logit_difference"


@pytest.mark.parametrize("command", ["compare", "minimality", "completeness", "edges", "functions"])
def test_what_was_measured_is_not_computed_again(capsys, family, monkeypatch, command):
    first = run(capsys, family, command, "good")
    with monkeypatch.context() as patched:
        patched.setattr("backend.studies.session.load", None)
        code, data, err = run(capsys, family, command, "good")
    assert code == 0
    assert data == first[1]
    assert "stored: measured on" in err
    assert "stored" not in run(capsys, family, command, "worse")[2]


def test_a_result_goes_to_a_file(capsys, family, tmp_path):
    code, data, err = run(capsys, family, "edges", "good", "--out", str(tmp_path / "edges.json"))
    assert (code, data) == (0, None)
    assert f"written to {tmp_path / 'edges.json'}" in err
    (found,) = parts(json.loads((tmp_path / "edges.json").read_text()))
    assert found.model == family["good"]
    with pytest.raises(SystemExit):
        main(["edges", "base", "--out", str(tmp_path / "nowhere" / "x.json")])
    assert "its folder is not there" in capsys.readouterr().err


def test_full_memory_is_said_and_what_is_finished_stays(capsys, family, monkeypatch):
    from backend.methods import compare

    measure, calls = compare.answers_of, []

    def once(*arguments, **options):
        if calls:
            raise RuntimeError("out of memory")
        calls.append(1)
        return measure(*arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(compare, "answers_of", once)
        code, data, err = run(capsys, family, "compare", "good", "worse")
    assert (code, data) == (1, None)
    assert "error: RuntimeError: out of memory. What was finished is kept" in err
    err = run(capsys, family, "compare", "good", "worse")[2]
    assert "resuming: 1 of 2 parts are there" in err


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
    *_, last = err.splitlines()
    assert last.startswith("error: ")
    assert message in last


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--sets", "E"), "is not like A+B"),
        (("--sets", "A+"), "is not like A+B"),
        (("--heads", "L1.2"), "is not like L4.0@last"),
        (("--heads", "1.2@last"), "is not like L4.0@last"),
        (("--heads", "L1.2@correct_object"), "is not like L4.0@last"),
        (("--part", "o"), "invalid choice"),
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
        ("minimality", ("--removed", "1.5"), "not a number from 0 to 1"),
        ("minimality", ("--removed", "nan"), "not a number from 0 to 1"),
        ("minimality", ("--least", "nan"), "not a number from 0 to 100"),
        ("minimality", ("--removed", "x"), "not a number from 0 to 1"),
        ("attention-knockout", ("--window", "0"), "not a whole number"),
        ("attention-knockout", ("--heads", "3.1"), "is not a head"),
        ("attention-knockout", ("--edges", "last"), "write pairs as"),
    ],
)
def test_a_number_out_of_range_is_explained(capsys, command, option, message):
    with pytest.raises(SystemExit):
        main([command, "base", *option])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", ["compare", "cmap", "minimality", "completeness", "edges", "dcm"]
)
def test_every_command_has_help_with_an_example(capsys, command):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert f"example: python -m backend {command}" in capsys.readouterr().out
