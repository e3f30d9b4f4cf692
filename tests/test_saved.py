"""Results as files: they come back as they were, or are refused."""

from __future__ import annotations

import json
import math

import pytest

from backend import saved
from backend.circuit import Head
from backend.errors import UserError
from backend.measures import Estimate
from backend.results import Cmap, Edge, Edges, HeadContribution, HeadMap, Minimality, Transplanted

HALF = Estimate(0.5, 0.4, 0.6, 100)
UNDEFINED = Estimate(math.nan, math.nan, math.nan, 100)
OUTCOME = Transplanted(2, HALF, HALF, HALF)
RESULTS = [
    Cmap("a", "b", "output", HALF, HALF, HALF, {"none": OUTCOME, "D + A": OUTCOME}),
    HeadMap("a", "b", "q", HALF, {"last": ((OUTCOME, OUTCOME), (OUTCOME, OUTCOME))}),
    Edges("a", "c", (Edge("A", Head(3, 1), None, HALF), Edge("B", Head(2, 0), Head(3, 1), HALF))),
    Minimality(
        "a", "c", HALF, (HeadContribution("C", Head(1, 2), (Head(0, 0),), HALF, HALF, HALF),)
    ),
]


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    monkeypatch.setattr(saved, "RESULTS", tmp_path / "results")
    return tmp_path / "results"


@pytest.mark.parametrize("result", RESULTS, ids=lambda result: type(result).__name__)
def test_a_result_comes_back_from_its_file(result):
    saved.save("mine", "command", {"seed": 3, "result": result})
    (data,) = saved.saved("command").values()
    assert data["seed"] == 3
    assert saved.revived(type(result), data["result"]) == result


def test_undefined_figures_are_null_and_come_back():
    text = json.dumps(saved.plain({"figure": UNDEFINED, "infinite": [math.inf]}), allow_nan=False)
    data = json.loads(text)
    assert data["figure"]["value"] is None
    assert data["infinite"] == [None]
    back = saved.revived(Estimate, data["figure"])
    assert math.isnan(back.value)
    assert back.n == 100


@pytest.mark.parametrize(
    "data", [None, 3, [], {}, {"value": "x", "low": 0, "high": 0, "n": 1}, {"value": 1}]
)
def test_anything_else_is_refused(data):
    with pytest.raises(UserError, match="Compute it again"):
        saved.revived(Estimate, data)


@pytest.mark.parametrize("head", [[1], [1, "2"], [1, True], "L1.2", {}])
def test_other_things_are_not_heads(head):
    with pytest.raises(UserError, match="Compute it again"):
        saved.revived(Head, head)


@pytest.mark.parametrize("name", ["", "..", "a/b", "a b", "a" * 65, "ä", "x.json"])
def test_names_are_plain(name, folder):
    with pytest.raises(UserError, match="cannot be used as a name"):
        saved.save(name, "compare", {})
    assert not folder.exists()


def test_only_results_of_the_command_are_listed(folder):
    assert saved.saved("compare") == {}
    saved.save("b", "compare", {})
    saved.save("a", "compare", {})
    saved.save("c", "cmap", {})
    (folder / "broken.json").write_text("{")
    (folder / "list.json").write_text("[]")
    assert [*saved.saved("compare")] == ["a", "b"]


def test_a_folder_that_cannot_be_written_to_is_named(folder):
    folder.write_text("a file, not a folder")
    with pytest.raises(UserError, match="cannot be written"):
        saved.save("a", "compare", {})
