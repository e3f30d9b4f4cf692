"""Which models are known: the paper's, the bundled ones, and a file that users write."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from backend.core.errors import UserError
from backend.models import catalogue, registry
from backend.models.registry import Kind
from tests.tiny import llama


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(registry, "ADDED", tmp_path / "local" / "models.toml")
    return registry.ADDED


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("a model")
    llama().save_pretrained(place)
    return place


def test_the_papers_four_models_are_known() -> None:
    known = {entry.label: (entry.source, entry.adapter) for entry in registry.paper().values()}
    assert known == {
        "Llama-7B": ("huggyllama/llama-7b", None),
        "Vicuna-7B": ("AlekseyKorshuk/vicuna-7b", None),
        "Goat-7B": ("huggyllama/llama-7b", "tiedong/goat-lora-7b"),
        "FLoat-7B": ("nikhil07prakash/float-7b", None),
    }


def test_every_bundled_model_stands_for_one_of_the_papers() -> None:
    papers = {entry.label for entry in registry.paper().values()}
    assert {entry.paper_counterpart for entry in registry.bundled().values()} == papers
    lora, base = (registry.entry(name) for name in ("arithmetic-lora", "base"))
    assert lora.source == base.source
    assert lora.adapter == registry.BUNDLED / "arithmetic-lora"


def test_a_model_is_added_found_and_removed(added: Path, folder: Path) -> None:
    new = registry.add("mine", str(folder), "owner/adapter", 'sums, "quoted"', "My model")
    assert registry.entry("mine") == new
    assert (new.source, new.adapter, new.kind) == (folder, "owner/adapter", Kind.added)
    assert new.finetuned_on == 'sums, "quoted"'
    assert catalogue.label("mine") == "My model"
    assert catalogue.models()[-1] == "mine"
    registry.remove("mine")
    with pytest.raises(UserError, match="There is no model “mine”"):
        registry.entry("mine")


def test_what_a_user_wrote_in_the_file_stays(added: Path) -> None:
    added.parent.mkdir()
    added.write_text('# mine\n["one"]\nsource = "a/one"\n# two is good\n[two]\nsource = "a/two"\n')
    registry.add("three", "a/three")
    registry.remove("one")
    assert list(registry.added().entries) == ["two", "three"]
    assert added.read_text().startswith("# mine\n[two]")


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [
        ("base", "a/b", "There is a model “base” already"),
        ("goat-7b", "a/b", "There is a model “goat-7b” already"),
        ("../x", "a/b", "cannot be used as a name"),
        ("a b", "a/b", "cannot be used as a name"),
        ("x", "", "has no source"),
        ("x", "no-such-folder", "There is no model “no-such-folder”"),
        ("x", "a/../b", "There is no model"),
        ("x", "~nobody-here/x", "There is no model"),
    ],
)
def test_a_model_that_cannot_be_added_is_explained(
    added: Path, name: str, source: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        registry.add(name, source)
    assert not added.exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[x", "cannot be read"),
        ("\xff", "cannot be read"),
        ("x = 1", "“x” has no source"),
        ("[x]", "“x” has no source"),
        ("[x]\nsource = 3", "“source” of “x” must be a line of text"),
        ('[x]\nsource = "a/b"\nsecret = "c"', "unknown field “secret”"),
        ('[x]\nsource = "../b"', "neither a hub name"),
        ('["../x"]\nsource = "a/b"', "cannot be used as a name"),
        ('[base]\nsource = "a/b"', "the name of another model"),
        ('[x]\nsource = "a/b"\n[x.y]\nz = "1"', "unknown field “y”"),
    ],
)
def test_a_malformed_file_is_told_and_the_rest_still_works(
    added: Path, text: str, message: str
) -> None:
    added.parent.mkdir()
    added.write_bytes(text.encode("latin-1"))
    complaint = registry.added().complaint
    assert complaint
    assert message in complaint
    assert str(added) in complaint
    assert registry.entry("base").label == "Base"
    assert "x" not in registry.models()
    with pytest.raises(UserError):
        registry.add("new", "a/b")
    assert added.read_bytes() == text.encode("latin-1")


@pytest.mark.parametrize("deep", ["x = " + "[" * 5000, "x = " + "9" * 5000, 'x = "\\ud800"'])
def test_a_file_that_would_break_its_reader_is_told(added: Path, deep: str) -> None:
    added.parent.mkdir()
    added.write_text(deep)
    assert "cannot be read" in str(registry.added().complaint)


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_a_pipe_a_folder_or_a_device_in_its_place_is_told_and_left(
    added: Path, make: Callable[[Path], None]
) -> None:
    added.parent.mkdir()
    make(added)
    before = added.lstat()
    assert "not an ordinary file. Mend it" in str(registry.added().complaint)
    with pytest.raises(UserError, match="not an ordinary file"):
        registry.add("new", "a/b")
    assert added.lstat() == before


def test_one_malformed_model_does_not_hide_another(added: Path) -> None:
    added.parent.mkdir()
    added.write_text('[good]\nsource = "a/b"\n[bad]\n')
    assert registry.entry("good").source == "a/b"
    assert "“bad”" in str(registry.added().complaint)


@pytest.mark.parametrize(
    "name",
    ["", "nothing", "../base", "a/../b", "/no/where", "a/b/c", "x\0y", "~nobody-here", "a" * 300],
)
def test_unknown_names_never_become_paths(name: str) -> None:
    with pytest.raises(UserError, match="There is no model"):
        registry.entry(name)
