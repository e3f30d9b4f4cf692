"""The reader of the paper's results, against the raw files, and against files that are damaged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from math import isnan
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from backend import published
from backend.core.errors import UserError
from backend.core.heads import Head
from backend.tasks.entity_tracking import ENTITY_TRACKING

SIZES = {
    "llama-7b": {"A": 40, "B": 7, "C": 20, "D": 5},
    "goat-7b": {"A": 68, "B": 28, "C": 40, "D": 39},
    "float-7b": {"A": 68, "B": 29, "C": 40, "D": 38},
}


def raw(file: str) -> Any:
    return json.loads((published.FOLDER / file).read_text(encoding="utf-8"))


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    copy = tmp_path / "published"
    shutil.copytree(published.FOLDER, copy)
    monkeypatch.setattr(published, "FOLDER", copy)
    return copy


@pytest.mark.parametrize("model", published.MODELS)
def test_circuits_have_the_published_heads_and_scores(model: str) -> None:
    circuit = published.circuit(model)
    assert {key: len(circuit.heads(key)) for key in ENTITY_TRACKING.keys} == SIZES[model]
    for group in ENTITY_TRACKING.keys:
        heads = raw("circuits.json")[model][group]
        assert circuit.heads(group) == tuple(sorted(Head(*head) for head in heads))
        table = raw("path_patching_scores.json")[model][group]
        assert [list(row) for row in circuit.provenance["scores"][group]] == table
    assert published.CITATION in circuit.provenance["source"]


def test_tables_are_those_of_the_file() -> None:
    tables = raw("tables.json")
    rows = published.faithfulness()
    for name, row in tables["faithfulness_llama-7b_circuit"].items():
        assert vars(rows[name]) == row
    assert published.cmap() == tables["cmap_output_into_llama-7b"]
    found, expected = published.completeness(), tables["completeness_float-7b_circuit"]
    assert vars(found.random_sets) == expected["random_sets"]
    assert {name: vars(group) for name, group in found.groups.items()} == expected["groups"]


@pytest.mark.parametrize("model", published.MODELS)
def test_the_cut_of_minimality_gives_the_circuit(model: str) -> None:
    circuit = published.circuit(model)
    for name, removed in published.minimality(model).items():
        assert len(removed) == len(raw("minimality.json")[model][name])
        kept = {each.head for each in removed if each.gain >= published.LEAST_GAINS[model]}
        assert kept == set(circuit.heads(name))


def test_what_a_head_adds() -> None:
    assert published.Removed(Head(0, 0), 0.6, 0.4).gain == pytest.approx(0.5)
    assert isnan(published.Removed(Head(0, 0), 0.6, 0.0).gain)


@pytest.mark.parametrize("model", published.MODELS)
def test_desiderata_and_patching(model: str) -> None:
    for group, found in published.desiderata(model).items():
        for name, each in found.items():
            expected = raw("dcm.json")[model][group][name]
            assert [list(head) for head in each.heads] == expected["heads"]
            assert each.test_accuracy == expected["test_accuracy"]
    percent = raw("functionality_patching_percent.json")[f"{model} circuit"]
    shares = published.patching(model)
    assert shares.keys() == percent.keys() & published.LABELS.keys()
    first = shares[model]["A"]["object_value"]
    assert [100 * share for share in first] == pytest.approx(percent[model]["A"]["object_value"])


def test_further_desiderata_of_b() -> None:
    circuits = raw("functionality_patching_percent.json")["llama-7b circuit"]
    percent = circuits["llama-7b (additional desiderata)"]["B"]
    shares = published.further_patching()
    assert shares.keys() == percent.keys()
    assert [100 * share for share in shares["no_comma"]] == pytest.approx(percent["no_comma"])


def test_attention_knockout_by_layer() -> None:
    edges = published.attention_knockout()
    assert edges["from_last_to_correct_obj_pos"][1] == 0.04
    assert all([*layers] == [*range(1, 33)] for layers in edges.values())


def test_the_flaw_of_shifted_scores_is_in_the_files() -> None:
    medians = {
        model: [
            f"{median(score for row in published.scores(model)[group] for score in row):.3f}"
            for group in ("A", "C")
        ]
        for model in published.MODELS
    }
    assert medians["goat-7b"] == ["-0.087", "-0.024"]
    assert {score.lstrip("-") for name in ("llama-7b", "float-7b") for score in medians[name]} == {
        "0.000"
    }


READERS: dict[str, Callable[[], Any]] = {
    "circuits.json": lambda: published.circuit("goat-7b"),
    "path_patching_scores.json": lambda: published.circuit("goat-7b"),
    "tables.json": published.faithfulness,
    "minimality.json": lambda: published.minimality("goat-7b"),
    "dcm.json": lambda: published.desiderata("goat-7b"),
    "functionality_patching_percent.json": lambda: published.patching("goat-7b"),
    "attention_knockout_llama-7b.json": published.attention_knockout,
}


@pytest.mark.parametrize("file", READERS)
@pytest.mark.parametrize("content", [None, "[", "[]", '{"goat-7b": 3}', '{"x": {"y": "z"}}'])
def test_damaged_files_are_named(folder: Path, file: str, content: str | None) -> None:
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_text(content)
    with pytest.raises(UserError, match=file) as raised:
        READERS[file]()
    assert str(raised.value).endswith("`git checkout cache/published`.")


def test_scores_of_another_shape_are_refused(folder: Path) -> None:
    tables = raw("path_patching_scores.json")
    tables["llama-7b"]["C"][5].pop()
    (folder / "path_patching_scores.json").write_text(json.dumps(tables))
    with pytest.raises(UserError, match="32 × 32"):
        published.circuit("llama-7b")


def test_parts_that_are_missing_are_named(folder: Path) -> None:
    tables = raw("tables.json")
    del tables["cmap_output_into_llama-7b"]["goat-7b"]["B"]
    del tables["completeness_float-7b_circuit"]["groups"]["D"]
    del tables["faithfulness_llama-7b_circuit"]["vicuna-7b"]
    (folder / "tables.json").write_text(json.dumps(tables))
    edges = raw("attention_knockout_llama-7b.json")
    del edges["from_last_to_random_pos"]
    (folder / "attention_knockout_llama-7b.json").write_text(json.dumps(edges))
    with pytest.raises(UserError, match="there is no “vicuna-7b”"):
        published.faithfulness()
    with pytest.raises(UserError, match="there is no “from_last_to_random_pos”"):
        published.attention_knockout()
    with pytest.raises(UserError, match="there is no “B”"):
        published.cmap()
    with pytest.raises(UserError, match="there is no “D”"):
        published.completeness()
