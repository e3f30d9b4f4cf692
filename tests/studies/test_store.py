"""The store: found again when asked the same, anew for anything else, and never trusted blindly."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from backend.core.components import Component
from backend.core.errors import UserError
from backend.core.heads import Head
from backend.core.serialize import to_json
from backend.methods.cmap import CmapRequest
from backend.methods.compare import ComparisonRequest
from backend.methods.completeness import CompletenessRequest
from backend.methods.minimality import MinimalityRequest
from backend.methods.registry import METHODS
from backend.methods.requests import Request
from backend.methods.stage import StageRequest
from backend.models import catalogue, fingerprints, loaded_models
from backend.models.loaded_models import fingerprint_of
from backend.studies import store, studies
from backend.studies.keys import identity, marks_of
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.prompts import Prompts
from tests import planted
from tests.forking import FORKING, start

PROMPTS = Prompts(ENTITY_TRACKING, 20, 0, (3,))
HEADS = catalogue.circuit("base")
REQUEST = ComparisonRequest(("base", "chat"), HEADS, PROMPTS)


def silent(stage: str, share: float) -> None:
    """Nobody asked how far it is."""


@pytest.fixture
def copied(tmp_path: Path) -> str:
    """A folder with the same model as the bundled base."""
    shutil.copytree(catalogue.BUNDLED / "base", tmp_path / "copied")
    return str(tmp_path / "copied")


@pytest.fixture(scope="module")
def parts() -> tuple[Any, ...]:
    return tuple(METHODS["compare"].work(REQUEST, (), silent, lambda part: None))


def stored(parts: tuple[Any, ...], request: Request = REQUEST) -> Path:
    studies._keep(request, marks_of(request, patiently=True), parts, 12.0)
    key = identity(request)
    return store.RESULTS / f"{key}.json"


def test_what_is_stored_is_found_as_it_was(parts: tuple[Any, ...]) -> None:
    assert studies.find(REQUEST) is None
    path = stored(parts)
    found = studies.find(REQUEST)
    assert found
    assert found.parts == parts
    assert [*studies.run(REQUEST, silent)] == [*parts]
    header = json.loads(path.read_text())["header"]
    assert [model["label"] for model in header["models"]] == ["Base", "Chat"]
    assert header["request"]["prompts"] == {
        "task": "entity-tracking",
        "n": 20,
        "seed": 0,
        "options": [3],
    }
    assert header["seconds"] == 12
    assert header["date"].endswith("+00:00")
    assert header["versions"].keys() >= {"python", "torch", "transformers"}


def test_a_study_that_was_cut_off_goes_on_where_it_was(parts: tuple[Any, ...]) -> None:
    for n_done in range(len(parts)):
        shutil.rmtree(store.RESULTS, ignore_errors=True)
        if n_done:
            stored(parts[:n_done])
        told = Mock()
        assert tuple(studies.run(REQUEST, told)) == parts
        shares = [call.args[1] for call in told.call_args_list] or [1.0]
        assert min(shares) >= n_done / len(parts)
        found = studies.find(REQUEST)
        assert found
        assert found.entry.is_complete


ASKED: list[Request] = [
    ComparisonRequest(("base",), HEADS, PROMPTS),
    ComparisonRequest(("chat", "base"), HEADS, PROMPTS),
    replace(REQUEST, prompts=replace(PROMPTS, n=21)),
    replace(REQUEST, prompts=replace(PROMPTS, options=(4,))),
    replace(REQUEST, prompts=replace(PROMPTS, seed=1)),
    replace(REQUEST, circuit=replace(HEADS, nodes=HEADS.nodes - {min(HEADS.nodes, key=str)})),
    CmapRequest("base", "chat", HEADS, Component.output, PROMPTS),
    CmapRequest("chat", "base", HEADS, Component.output, PROMPTS),
    CmapRequest("base", "chat", HEADS, Component.k, PROMPTS),
    CmapRequest("base", "chat", HEADS, Component.k, PROMPTS, (("A", frozenset()),)),
    StageRequest("base", PROMPTS, "B", (Head(4, 0),)),
    StageRequest("base", PROMPTS, "C", (Head(4, 0),)),
    StageRequest("base", PROMPTS, "B", (Head(4, 1),)),
    MinimalityRequest("base", HEADS, PROMPTS),
    MinimalityRequest("base", HEADS, PROMPTS, removed=0.2),
    CompletenessRequest("base", HEADS, PROMPTS),
    CompletenessRequest("base", HEADS, PROMPTS, sets=19),
]


def test_any_other_question_has_another_key(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [identity(request) for request in (REQUEST, *ASKED)]
    assert None not in keys
    monkeypatch.setattr(store, "ENGINE", store.ENGINE + 1)
    keys += [identity(request) for request in (REQUEST, *ASKED)]
    monkeypatch.setattr(loaded_models, "precision_of", lambda name: "bfloat16")
    keys.append(identity(REQUEST))
    assert len(set(keys)) == len(keys)


def test_names_and_places_do_not_count(parts: tuple[Any, ...], copied: str) -> None:
    stored(parts)
    other = replace(REQUEST, models=(copied, "chat"), circuit=replace(HEADS, name="mine"))
    found = studies.find(other)
    assert found
    assert found.parts[0].figures == replace(parts[0].figures, name=copied)
    assert found.parts[1].differences[0].first == copied
    assert copied not in (identity(other) or "")


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json"])
def test_another_file_is_another_model(copied: str, file: str) -> None:
    before = fingerprint_of(copied)
    path = Path(copied) / file
    path.write_bytes(path.read_bytes() + b" ")
    assert fingerprint_of(copied) != before
    assert identity(ComparisonRequest((copied,), HEADS, PROMPTS)) != identity(
        ComparisonRequest(("base",), HEADS, PROMPTS)
    )


def test_an_adapter_and_its_base_both_count(tmp_path: Path) -> None:
    for name in ("base", "arithmetic-lora"):
        shutil.copytree(catalogue.BUNDLED / name, tmp_path / name)
    lora = str(tmp_path / "arithmetic-lora")
    first = fingerprint_of(lora)
    assert first == fingerprint_of("arithmetic-lora")
    assert first
    assert first.adapter
    config = tmp_path / "arithmetic-lora" / "adapter_config.json"
    config.write_text(config.read_text().replace('"lora_alpha": ', '"lora_alpha": 1'))
    changed = fingerprint_of(lora)
    assert changed
    assert changed.adapter != first.adapter
    assert changed.weights == first.weights
    weights = tmp_path / "base" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    again = fingerprint_of(lora)
    assert again
    assert again.weights != first.weights


def test_weights_that_changed_on_disk_are_loaded_and_measured_anew(tmp_path: Path) -> None:
    folder, request = str(tmp_path), None
    accuracies = []
    for broken in (False, True):
        model = planted.model().requires_grad_(False)
        if broken:
            model.model.layers[3].self_attn.v_proj.weight.zero_()
        model.save_pretrained(folder)
        planted.tokenizer().save_pretrained(folder)
        heads = replace(HEADS, nodes=frozenset({("A", Head(3, 1))}))
        request = ComparisonRequest((folder,), heads, Prompts(ENTITY_TRACKING, 20, 0, (2,)))
        (part,) = studies.run(request, silent)
        accuracies.append(part.figures.model.value)
    assert accuracies[0] == 1
    assert accuracies[1] < 0.5
    assert len(store.entries()) == 2


def test_a_file_is_hashed_once(monkeypatch: pytest.MonkeyPatch, copied: str) -> None:
    before = fingerprint_of(copied)
    fingerprints._hashes.cache_clear()
    monkeypatch.setattr(fingerprints.hashlib, "file_digest", None)
    assert fingerprint_of(copied) == before


def test_large_weights_are_not_read_while_someone_waits(
    monkeypatch: pytest.MonkeyPatch, copied: str
) -> None:
    monkeypatch.setattr(fingerprints, "_AT_ONCE", 1000)
    assert fingerprint_of(copied, patiently=False) is None
    patient = fingerprint_of(copied)
    assert patient
    assert fingerprint_of(copied, patiently=False) == patient


DAMAGE: list[tuple[str, Any]] = [
    ("cut off", lambda text: text[: len(text) // 2]),
    ("a figure was changed", lambda text: text.replace('"n": 20', '"n": 21')),
    ("empty", lambda text: ""),
    ("another format", lambda text: text.replace("result/1", "result/9")),
    ("a list", lambda text: "[]"),
    ("not text", lambda text: b"\xff\xfe\x00"),
    ("deep", lambda text: "[" * 100_000),
]


@pytest.mark.parametrize(("how", "damage"), DAMAGE)
def test_a_damaged_file_is_moved_aside_and_computed_again(
    parts: tuple[Any, ...], how: str, damage: Any, caplog: pytest.LogCaptureFixture
) -> None:
    path = stored(parts)
    content = damage(path.read_text())
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert studies.find(REQUEST) is None
    assert not path.exists()
    assert store.set_aside() == [path.name]
    assert str(store.DAMAGED) in caplog.text
    assert tuple(studies.run(REQUEST, silent)) == parts
    path.write_text("again")
    assert store.entries() == []
    assert len(store.set_aside()) == 2


def test_parts_of_a_wrong_kind_are_moved_aside(parts: tuple[Any, ...]) -> None:
    header = studies._header(REQUEST, marks_of(REQUEST, patiently=True), 1.0)
    assert header
    foreign = replace(parts[0], figures=replace(parts[0].figures, name="other"))
    for wrong in ([{"figures": 3}], [3], to_json([foreign])):
        store.write(header, wrong)
        assert studies.find(REQUEST) is None
        assert not [*store.RESULTS.iterdir()]


def test_a_result_of_an_earlier_engine_is_listed_and_not_an_answer(
    parts: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    stored(parts)
    monkeypatch.setattr(store, "ENGINE", store.ENGINE + 1)
    assert studies.find(REQUEST) is None
    (entry,) = store.entries()
    assert studies.read(entry).parts == parts


def test_a_result_in_the_form_of_an_earlier_engine_is_listed_and_said_to_be_old(
    parts: tuple[Any, ...],
) -> None:
    """Requests of the second engine had no task, and named boxes and heads."""
    path = stored(parts)
    request = {
        "models": ["base", "chat"],
        "heads": {"name": "base", "members": [["A", [3, 1]]]},
        "prompts": {"n": 20, "boxes": 3, "seed": 0},
    }
    forged(path, engine=2, request=request)
    (entry,) = store.entries()
    with pytest.raises(UserError, match=r"earlier version .* Measure it again"):
        studies.read(entry)
    assert studies.find(REQUEST) is None
    assert studies.pace_of("compare", ["base"]) is None
    assert path.exists()
    assert not store.set_aside()


def test_a_file_under_another_key_is_no_answer(parts: tuple[Any, ...]) -> None:
    other = replace(REQUEST, prompts=replace(PROMPTS, seed=9))
    path = stored(parts)
    path.rename(store.RESULTS / f"{identity(other)}.json")
    assert studies.find(other) is None
    assert len(store.set_aside()) == 1


Make = Callable[[Path], object]
FOREIGN: dict[str, tuple[str, Make]] = {
    "notes": ("not a result", lambda path: path.write_text('{"mine": 1}')),
    "a list": ("not a result", lambda path: path.write_text("[]")),
    "empty": ("not JSON", lambda path: path.write_text("")),
    "cut off": ("not JSON", lambda path: path.write_text('{"format": "circuit-expl')),
    "no results": ("no result", lambda path: path.write_text('{"results": [], "mine": 1}')),
    "other results": ("number 1: it is not", lambda path: path.write_text('{"results": [{}]}')),
    "deep": ("nested", lambda path: path.write_text("[" * 100_000)),
    "a number": ("of 5000 digits", lambda path: path.write_text("9" * 5000)),
    "bytes": ("not text", lambda path: path.write_bytes(b"\xff\xfe")),
    "huge": ("more than 64 MB", lambda path: (path.touch(), os.truncate(path, 2**36))),
    "a pipe": ("it is a pipe", os.mkfifo),
    "a device": ("it is a device", lambda path: path.symlink_to("/dev/zero")),
    "a folder": ("it is a folder", lambda path: (path.mkdir(), (path / "mine").touch())),
}


@pytest.mark.parametrize("place", ["DROPPED", "RESULTS"])
def test_what_is_no_result_is_left_and_named(place: str, caplog: pytest.LogCaptureFixture) -> None:
    folder = getattr(store, place)
    folder.mkdir()
    for name, (_, make) in FOREIGN.items():
        make(folder / f"{name}.json")
    before = {path: path.lstat() for path in folder.rglob("*")}
    caplog.clear()
    for _ in range(2):
        assert store.entries() == []
        assert studies.find(REQUEST) is None
        left = store.left()
    assert {path: path.lstat() for path in folder.rglob("*")} == before
    assert left.keys() == {folder / f"{name}.json" for name in FOREIGN}
    for name, (reason, _) in FOREIGN.items():
        assert reason in left[folder / f"{name}.json"]
        assert caplog.text.count(f"{name}.json is not used, and left where it is") == 1
    assert store.set_aside() == []


@pytest.mark.parametrize("name", ["a pipe", "a device", "a folder", "huge"])
def test_what_lies_in_the_place_of_a_result_is_left(
    parts: tuple[Any, ...], name: str, caplog: pytest.LogCaptureFixture
) -> None:
    path, (reason, make) = stored(parts), FOREIGN[name]
    path.unlink()
    make(path)
    before = path.lstat()
    assert reason in store.left()[path]
    if name != "huge":
        assert tuple(studies.run(REQUEST, silent)) == parts
        assert f"cannot be kept in {store.RESULTS} (it is a" in caplog.text
        assert path.lstat() == before


def test_a_file_of_several_results_of_which_one_is_bad_loses_none(parts: tuple[Any, ...]) -> None:
    path = stored(parts)
    good = json.loads(path.read_text())
    path.unlink()
    store.DROPPED.mkdir()
    dropped = store.DROPPED / "some.json"
    text = json.dumps({"results": [good, good | {"sha256": "0"}]})
    dropped.write_text(text)
    assert [entry.header.key for entry in store.entries()] == [path.stem]
    assert "of its results, number 2: it has been changed" in store.left()[dropped]
    assert dropped.read_text() == text


@pytest.mark.parametrize("more", ["of several", "of one", "a link"])
def test_a_file_that_is_more_than_its_results_is_not_deleted(
    parts: tuple[Any, ...], more: str
) -> None:
    path = stored(parts)
    good = json.loads(path.read_text())
    path.unlink()
    store.DROPPED.mkdir()
    dropped = store.DROPPED / "found.json"
    found = catalogue.circuit("base").as_data() | {"results": [good]}
    (store.DROPPED / "elsewhere").write_text(
        json.dumps({"of several": found, "of one": good | {"kept": []}}.get(more, good))
    )
    if more == "a link":
        dropped.symlink_to("elsewhere")
    else:
        (store.DROPPED / "elsewhere").rename(dropped)
    text = dropped.read_text()
    for _ in range(2):
        assert [entry.header.key for entry in store.entries()] == [path.stem]
        assert "its results were taken in, but it" in store.left()[dropped]
        assert dropped.read_text() == text


def test_what_comes_from_another_machine_stays_while_the_disk_is_full(
    parts: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = stored(parts)
    store.DROPPED.mkdir()
    dropped = path.rename(store.DROPPED / "theirs.json")
    with monkeypatch.context() as full:
        full.setattr(store, "write_atomically", Mock(side_effect=OSError(28, "No space left")))
        assert studies.find(REQUEST) is None
        assert store.left() == {dropped: "its results cannot be kept (No space left)"}
        assert dropped.exists()
    assert studies.find(REQUEST)
    assert not dropped.exists()
    assert store.left() == {}


def test_what_shipped_is_left_though_damaged(parts: tuple[Any, ...]) -> None:
    path = stored(parts)
    store.RESULTS.rename(store.SHIPPED)
    shipped = store.SHIPPED / path.name
    shipped.write_text(shipped.read_text().replace('"n": 20', '"n": 21'))
    assert studies.find(REQUEST) is None
    assert "its checksum is wrong" in store.left()[shipped]
    assert store.set_aside() == []
    assert tuple(studies.run(REQUEST, silent)) == parts


def test_a_result_that_cannot_be_read_just_now_is_not_moved(
    parts: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = stored(parts)
    with monkeypatch.context() as busy:
        busy.setattr(os, "open", Mock(side_effect=OSError(24, "Too many open files")))
        assert store.trusted(path) is None
    assert store.trusted(path)
    assert store.set_aside() == []


def test_a_good_result_that_comes_in_between_is_not_moved(
    parts: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = stored(parts)
    good = path.read_text()
    path.write_text("{")
    read = store._read

    def slowly(*asked: Any) -> Any:
        found = read(*asked)
        path.write_text(good)
        return found

    monkeypatch.setattr(store, "_read", slowly)
    assert store.trusted(path) is None
    monkeypatch.undo()
    assert path.read_text() == good


def forged(path: Path, **header: Any) -> None:
    """The result in this file with something else in its header, and the checksum of that."""
    data = json.loads(path.read_text())
    content = {"header": data["header"] | header, "parts": data["parts"]}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    path.write_text(
        json.dumps(data | content | {"sha256": hashlib.sha256(text.encode()).hexdigest()})
    )


@pytest.mark.parametrize(
    "header",
    [
        {"date": "yesterday"},
        {"date": "0001-01-01T00:00:00+14:00"},
        {"seconds": float("nan")},
        {"seconds": float("inf")},
        {"seconds": "long"},
        {"n_parts": 10**30},
        {"n_parts": 0},
        {"n_parts": True},
        {"engine": 10**30},
        {"models": [{"name": "a", "label": 3, "fingerprint": None}]},
        {"versions": {"python": 3}},
        {"method": "minimality"},
        {"request": 3},
    ],
)
def test_a_header_that_no_result_has_is_no_answer_whatever_its_checksum(
    parts: tuple[Any, ...], header: dict[str, Any]
) -> None:
    path = stored(parts)
    forged(path)
    assert store.trusted(path)
    forged(path, **header)
    assert store.entries() == []
    assert store.set_aside() == [path.name]


@pytest.mark.parametrize(
    "change",
    [{"n": 2**62}, {"options": [-5]}, {"options": [3, 4]}, {"seed": -1}, {"n": 0}, {"task": "x"}],
)
def test_prompts_that_there_cannot_be_are_not_opened(
    parts: tuple[Any, ...], change: dict[str, Any]
) -> None:
    path = stored(parts)
    request = json.loads(path.read_text())["header"]["request"]
    forged(path, request=request | {"prompts": request["prompts"] | change})
    (entry,) = store.entries()
    with pytest.raises(UserError, match=r"(Choose|Ask for|Give one)"):
        studies.read(entry)


@pytest.mark.parametrize("place", ["DROPPED", "RESULTS"])
def test_files_from_another_machine_are_taken_in(parts: tuple[Any, ...], place: str) -> None:
    path = stored(parts)
    folder = getattr(store, place)
    folder.mkdir(exist_ok=True)
    text = path.read_text()
    path.unlink()
    (folder / "from the cluster.json").write_text(json.dumps({"results": [json.loads(text)]}))
    found = studies.find(REQUEST)
    assert found
    assert found.parts == parts
    assert [file.name for file in folder.glob("*.json")] == (
        [] if place == "DROPPED" else [path.name]
    )


def test_a_result_of_a_model_that_is_not_here_can_be_read(
    parts: tuple[Any, ...], copied: str
) -> None:
    named = tuple(
        METHODS["compare"].named(part, {"base": copied, "chat": "chat"}, "base") for part in parts
    )
    stored(named, replace(REQUEST, models=(copied, "chat")))
    shutil.rmtree(copied)
    (entry,) = store.entries()
    assert entry.header.models[0].name == copied
    found = studies.read(entry)
    assert identity(found.request) is None
    assert len(found.parts) == 2


def test_a_cache_that_cannot_be_written_loses_nothing(
    parts: tuple[Any, ...], caplog: pytest.LogCaptureFixture
) -> None:
    store.RESULTS.write_text("a file, not a folder")
    assert tuple(studies.run(REQUEST, silent)) == parts
    assert "cannot be kept" in caplog.text


def _write_often(folder: Path, n: int) -> None:
    store.RESULTS = folder
    request = replace(REQUEST, prompts=replace(PROMPTS, seed=7))
    header = studies._header(request, marks_of(request, patiently=True), 1.0)
    assert header
    for number in range(n):
        (folder / f"{header.key}.json").unlink(missing_ok=True)
        store.write(header, [{"number": number, "much": "x" * 100_000}])


def test_two_processes_write_at_once() -> None:
    store.RESULTS.mkdir()
    writers = [FORKING.Process(target=_write_often, args=(store.RESULTS, 150)) for _ in range(2)]
    for writer in writers:
        start(writer)
    n_read = 0
    while any(writer.is_alive() for writer in writers):
        for path in store.RESULTS.glob("*.json"):
            n_read += store.trusted(path) is not None
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert n_read > 0
    assert store.set_aside() == []
    assert len([*store.RESULTS.iterdir()]) == 1
