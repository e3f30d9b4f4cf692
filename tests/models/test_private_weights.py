"""Weights are the model's own once it is loaded, and files that change are noticed by everyone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from backend.core.errors import UserError
from backend.core.placement import Placement
from backend.methods.accuracy import AccuracyRequest
from backend.methods.registry import METHODS
from backend.models import loaded_models, loading
from backend.models.fingerprints import Fingerprint, fingerprint
from backend.models.registry import BUNDLED
from backend.studies import session, store, studies
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.prompts import Prompts
from backend.tasks.setting import Setting
from tests.dashboard import ROOT
from tests.tiny import llama, word_tokenizer

_TRUNCATED = """
import sys
from pathlib import Path
import torch
from backend.models.loading import load_model

folder = Path(sys.argv[1])
loaded = load_model(str(folder))
maps = Path("/proc/self/maps").read_text() if Path("/proc/self/maps").exists() else ""
assert ".safetensors" not in maps, "a map of the file is left"
ids = torch.arange(9, 20)[None]
with torch.no_grad():
    before = loaded.model(ids).logits
    for path in folder.glob("*.safetensors"):
        with path.open("r+b") as file:
            file.truncate(100)
    assert torch.equal(loaded.model(ids).logits, before)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save(tmp_path / "mine", 1)


@pytest.fixture(autouse=True)
def _an_empty_shelf() -> Iterator[None]:
    yield
    for name in loaded_models.loaded():
        loaded_models.unload(name)


def save(place: Path, seed: int) -> Path:
    llama(seed).save_pretrained(place)
    word_tokenizer().save_pretrained(place)
    return place


def known(folder: Path) -> Fingerprint:
    found = fingerprint(str(folder), "float32")
    assert found
    return found


@torch.no_grad()
def logits(folder: Path) -> Tensor:
    return loaded_models.load(str(folder)).model(torch.arange(9, 20)[None]).logits


@pytest.mark.parametrize("name", ["base", "arithmetic-lora"])
def test_no_map_of_a_file_is_left_and_a_truncated_file_does_no_harm(
    tmp_path: Path, name: str
) -> None:
    for one in {"base", name}:
        shutil.copytree(BUNDLED / one, tmp_path / one)
    ran = subprocess.run(
        [sys.executable, "-c", _TRUNCATED, str(tmp_path / name)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]


def test_other_weights_of_the_same_size_and_time_are_other_weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    before, first, about = known(folder), logits(folder), file.stat()
    content = save(folder.parent / "other", 2) / "model.safetensors"
    file.write_bytes(content.read_bytes())
    os.utime(file, ns=(about.st_atime_ns, about.st_mtime_ns))
    after = file.stat()
    assert (after.st_size, after.st_mtime_ns) == (about.st_size, about.st_mtime_ns)
    assert known(folder).weights != before.weights
    assert not torch.equal(logits(folder), first)


def test_what_the_index_names_is_what_the_model_is(folder: Path, tmp_path: Path) -> None:
    other = save(tmp_path / "other", 2)
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    shutil.copy(other / "model.safetensors", folder / "b.safetensors")
    names = load_file(folder / "a.safetensors")
    found, answers = [], []
    for file in ("a.safetensors", "b.safetensors"):
        text = "{" + ", ".join(f'"{name}": "{file}"' for name in names) + "}"
        (folder / "model.safetensors.index.json").write_text(f'{{"weight_map": {text}}}')
        found.append(known(folder))
        answers.append(logits(folder))
    assert found[0].weights != found[1].weights
    torch.testing.assert_close(answers[1], logits(other), rtol=0, atol=0)
    assert not torch.equal(*answers)
    (folder / "a.safetensors").write_bytes(b"of no use any more")
    assert known(folder) == found[1], "a file that the index does not name is not the model's"


def test_files_that_change_while_they_are_read_are_read_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, read = save(tmp_path / "other", 2), loading.read_model
    changes = [other / "model.safetensors"]

    def meanwhile(*arguments):  # type: ignore[no-untyped-def]
        found = read(*arguments)
        for path in changes[:1]:
            (folder / "model.safetensors").write_bytes(path.read_bytes())
            changes.clear()
        return found

    monkeypatch.setattr(loading, "read_model", meanwhile)
    torch.testing.assert_close(logits(folder), logits(other), rtol=0, atol=0)
    assert loaded_models.load(str(folder)).files == known(folder)


def test_files_that_never_stop_changing_are_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = loading.read_model

    def meanwhile(*arguments):  # type: ignore[no-untyped-def]
        found = read(*arguments)
        weights = load_file(folder / "model.safetensors")
        save_file({n: w + 1 for n, w in weights.items()}, folder / "model.safetensors")
        return found

    monkeypatch.setattr(loading, "read_model", meanwhile)
    with pytest.raises(UserError, match=r"change while they are read\. Wait"):
        loaded_models.load(str(folder))


def test_a_loaded_model_knows_whether_it_is_still_what_is_on_disk(folder: Path) -> None:
    loaded = loaded_models.load(str(folder))
    assert loaded_models.is_current(loaded)
    (folder / "model.safetensors").touch()
    assert loaded_models.is_current(loaded), "the same weights of another time"
    save(folder, 2)
    assert not loaded_models.is_current(loaded)
    assert loaded_models.is_current(loaded_models.load(str(folder)))
    gone = loaded_models.load(str(folder))
    shutil.rmtree(folder)
    assert loaded_models.is_current(gone), "nothing else is left of it"


def test_the_values_of_a_source_that_has_changed_are_taken_anew(folder: Path) -> None:
    prepared = session.prepare(
        Setting("base", Prompts(ENTITY_TRACKING, 5, 0, (3,))), lambda *_: None
    )
    source = folder.parent / "source"
    shutil.copytree(BUNDLED / "chat", source)
    before = session.source_values(prepared, str(source))
    assert session.source_values(prepared, str(source)) is before
    shutil.copy(BUNDLED / "arithmetic-full" / "model.safetensors", source)
    assert not torch.equal(session.source_values(prepared, str(source)), before)


def test_what_is_stored_says_what_really_ran(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, accuracy = known(folder), METHODS["accuracy"]

    def changed_meanwhile(*arguments):  # type: ignore[no-untyped-def]
        for part in accuracy.work(*arguments):
            save(folder, 2)
            yield part

    asked = AccuracyRequest((str(folder),), Prompts(ENTITY_TRACKING, 20, 0, (3,)))
    monkeypatch.setitem(METHODS, "accuracy", replace(accuracy, work=changed_meanwhile))
    parts = [*studies.run(asked, lambda *_: None)]
    assert studies.find(asked) is None, "what is on disk by now has not been measured"
    (entry,) = store.entries()
    assert [mark.fingerprint for mark in entry.header.models] == [before]
    assert len(parts) == len(entry.parts) == 1


def test_a_load_that_takes_long_to_find_its_files_holds_up_no_other(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, find, reached, free = str(folder), loading.find, threading.Event(), threading.Event()

    def finding(name: str):  # type: ignore[no-untyped-def]
        if name == slow:
            reached.set()
            assert free.wait(60)
        return find(name)

    monkeypatch.setattr(loading, "find", finding)
    waiting = threading.Thread(target=loaded_models.load, args=(slow,))
    waiting.start()
    assert reached.wait(60)
    other = save(tmp_path / "other", 2)
    loaded: list[object] = []
    quick = threading.Thread(
        target=lambda: loaded.append(loaded_models.load(str(other), Placement()))
    )
    quick.start()
    quick.join(60)
    assert len(loaded) == 1
    free.set()
    waiting.join(60)
    assert slow in loaded_models.loaded()
