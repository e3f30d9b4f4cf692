"""The store: found again when asked the same, anew for anything else, and never trusted blindly."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from backend import catalogue, fingerprints, shelf, store, studies
from backend.circuit import Group, Head
from backend.keys import identity
from backend.methods import METHODS
from backend.requests import (
    CmapRequest,
    ComparisonRequest,
    CompletenessRequest,
    MinimalityRequest,
    Prompts,
    Request,
    StageRequest,
    heads_of,
)
from backend.results import Part
from backend.saved import plain
from backend.shelf import fingerprint_of
from tests import planted

PROMPTS = Prompts(20, 3, 0)
HEADS = heads_of(catalogue.circuit("base"))
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
    return tuple(METHODS["compare"].work(REQUEST, (), silent))


def stored(parts: tuple[Any, ...], request: Request = REQUEST) -> Path:
    studies._keep(request, parts, 12.0)
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
    assert header["request"]["prompts"] == {"n": 20, "boxes": 3, "seed": 0}
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
    replace(REQUEST, prompts=replace(PROMPTS, boxes=4)),
    replace(REQUEST, prompts=replace(PROMPTS, seed=1)),
    replace(REQUEST, heads=replace(HEADS, members=HEADS.members - {min(HEADS.members, key=str)})),
    CmapRequest("base", "chat", HEADS, Part.output, PROMPTS),
    CmapRequest("chat", "base", HEADS, Part.output, PROMPTS),
    CmapRequest("base", "chat", HEADS, Part.k, PROMPTS),
    CmapRequest("base", "chat", HEADS, Part.k, PROMPTS, (("A", frozenset()),)),
    StageRequest("base", PROMPTS, Group.B, (Head(4, 0),)),
    StageRequest("base", PROMPTS, Group.C, (Head(4, 0),)),
    StageRequest("base", PROMPTS, Group.B, (Head(4, 1),)),
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
    monkeypatch.setattr(shelf, "precision_of", lambda name: "bfloat16")
    keys.append(identity(REQUEST))
    assert len(set(keys)) == len(keys)


def test_names_and_places_do_not_count(parts: tuple[Any, ...], copied: str) -> None:
    stored(parts)
    other = replace(REQUEST, models=(copied, "chat"), heads=replace(HEADS, name="mine"))
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
        heads = HEADS.__class__("planted", frozenset({(Group.A, Head(3, 1))}))
        request = ComparisonRequest((folder,), heads, Prompts(20, 2, 0))
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
    header = studies._header(REQUEST, 1.0)
    assert header
    foreign = replace(parts[0], figures=replace(parts[0].figures, name="other"))
    for wrong in ([{"figures": 3}], [3], plain([foreign])):
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


def test_a_file_under_another_key_is_no_answer(parts: tuple[Any, ...]) -> None:
    other = replace(REQUEST, prompts=replace(PROMPTS, seed=9))
    path = stored(parts)
    path.rename(store.RESULTS / f"{identity(other)}.json")
    assert studies.find(other) is None
    assert len(store.set_aside()) == 1


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
    named = tuple(studies._named(part, {"base": copied, "chat": "chat"}, "base") for part in parts)
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
    header = studies._header(request, 1.0)
    assert header
    for number in range(n):
        (folder / f"{header.key}.json").unlink(missing_ok=True)
        store.write(header, [{"number": number, "much": "x" * 100_000}])


def test_two_processes_write_at_once() -> None:
    store.RESULTS.mkdir()
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write_often, args=(store.RESULTS, 150)) for _ in range(2)]
    for writer in writers:
        writer.start()
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
