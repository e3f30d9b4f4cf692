"""What is prepared for clicks: shared, within its budget, not in the way of what is in use."""

from __future__ import annotations

import threading
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some

from backend.core.errors import UserError
from backend.core.heads import Head
from backend.engine.memory import bytes_in
from backend.models import loaded_models, prepared
from backend.studies import session
from backend.tasks.circuit import Circuit
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.prompts import Prompts
from backend.tasks.setting import Mode, Reading, Setting, intervention
from tests.tiny import llama, word_tokenizer

GB = 1_000_000_000
WHOLE = {key: object() for key in "abcd"}
CIRCUIT = Circuit.of(ENTITY_TRACKING, {"A": (Head(3, 0),), "D": (Head(0, 2),)})
STEP = intervention(CIRCUIT, Reading.circuit, Mode.mean)


class Clock:
    """Stands in for the time, which goes on when it is told or somebody sleeps."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Nothing is prepared yet, and ten gigabytes may be."""
    clock = Clock()
    monkeypatch.setattr(prepared, "_kept", type(prepared._kept)())
    monkeypatch.setattr(prepared, "monotonic", clock)
    monkeypatch.setattr(prepared, "sleep", clock.sleep)
    monkeypatch.setenv(prepared.VARIABLE, "10")
    return clock


@pytest.fixture(scope="module")
def name(tmp_path_factory: pytest.TempPathFactory) -> str:
    place = tmp_path_factory.mktemp("model")
    llama(0).save_pretrained(place)
    word_tokenizer().save_pretrained(place)
    return str(place)


def keep(key: str, gigabytes: float) -> None:
    prepared.keep(key, WHOLE[key], int(gigabytes * GB), key)


def room(gigabytes: float) -> list[str]:
    """What was said while it was waited for."""
    said: list[str] = []
    prepared.make_room(int(gigabytes * GB), lambda: True, said.append)
    return said


def there() -> list[str]:
    return [key for key in WHOLE if key in prepared._kept]


def part(key: str, name: str, gigabytes: float, whole: Any = None) -> str:
    whole = whole or WHOLE[key]
    return prepared.part(key, whole, name, lambda: name, lambda _: int(gigabytes * GB))


def test_what_was_used_least_recently_makes_room(clock: Clock) -> None:
    for key in "abc":
        keep(key, 3)
        clock.sleep(1)
    clock.sleep(prepared.IN_USE_S)
    assert prepared.get("a") is WHOLE["a"]
    assert room(4) == []
    assert there() == ["a", "c"]
    assert prepared.used() == 6 * GB


def test_what_is_in_use_is_waited_for_with_a_word(clock: Clock) -> None:
    keep("a", 6)
    began = clock()
    said = room(5)
    assert clock() - began > prepared.IN_USE_S
    assert "6.0 GB" in said[0]
    assert "10.0 GB are for them" in said[0]
    assert "5.0 GB more are needed" in said[0]
    assert there() == []


def test_waiting_can_be_ended() -> None:
    keep("a", 6)

    def cancelled(said: str) -> None:
        raise InterruptedError(said)

    with pytest.raises(InterruptedError):
        prepared.make_room(5 * GB, lambda: True, cancelled)
    assert there() == ["a"]


def test_a_full_memory_makes_room_as_well(clock: Clock) -> None:
    keep("a", 1)
    keep("b", 1)
    clock.sleep(prepared.IN_USE_S + 1)
    prepared.make_room(GB, lambda: len(there()) < 2, lambda said: None)
    assert there() == ["b"]
    prepared.make_room(GB, lambda: False, lambda said: None)
    assert there() == [], "what does not fit alone is the caller's to explain"


def test_what_is_too_large_alone_says_what_to_choose() -> None:
    keep("a", 1)
    with pytest.raises(UserError, match=r"12\.0 GB.*10\.0 GB are.*fewer prompts.*PREPARED_GB=13"):
        room(12)
    assert there() == ["a"]


def test_parts_go_first_and_with_their_whole(clock: Clock) -> None:
    keep("a", 4)
    assert part("a", "click", 4) == "click"
    assert prepared.used() == 8 * GB
    assert room(5) == [], "a click is soon made again"
    assert there() == ["a"]
    part("a", "click", 1)
    prepared.forget("a")
    assert prepared.used() == 0


def test_only_the_last_clicks_are_kept() -> None:
    keep("a", 5)
    for click in "123":
        part("a", click, 0.2)
    part("a", "1", 0.2)
    part("a", "4", 0.2)
    assert [name for key in prepared._kept for name in "1234" if key == ("a", name)] == ["1", "4"]
    part("a", "large", 3)
    assert prepared.used() == 8 * GB


def test_nothing_is_kept_of_a_whole_that_is_gone() -> None:
    keep("a", 1)
    part("a", "click", 1, whole="an older one")
    part("b", "click", 1)
    assert prepared.used() == GB


def test_a_part_of_several_models_goes_with_any_of_them() -> None:
    keep("a", 1)
    prepared.part("a", WHOLE["a"], "click", lambda: 1, lambda _: GB, frozenset({"source"}))
    prepared.forget("source")
    assert (there(), prepared.used()) == (["a"], GB)


def test_a_part_is_made_once_for_all_who_ask() -> None:
    keep("a", 1)
    begun, go_on, made = threading.Event(), threading.Event(), []

    def make() -> str:
        made.append(1)
        begun.set()
        assert go_on.wait(10)
        return "made"

    got: list[str] = []
    ask = [
        threading.Thread(
            target=lambda: got.append(prepared.part("a", WHOLE["a"], "click", make, lambda _: 1))
        )
        for _ in range(3)
    ]
    ask[0].start()
    assert begun.wait(10)
    for each in ask[1:]:
        each.start()
    go_on.set()
    for each in ask:
        each.join(10)
    assert (got, made) == (["made"] * 3, [1])


def test_who_waits_for_a_part_that_fails_makes_it() -> None:
    def fail() -> str:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        prepared.part("a", WHOLE["a"], "click", fail, lambda _: 1)
    assert part("a", "click", 1) == "click"


@given(
    some.lists(
        some.tuples(
            some.sampled_from(["keep", "part", "get", "room", "wait"]),
            some.sampled_from([*WHOLE]),
            some.floats(0.1, 9.9),
        ),
        max_size=30,
    )
)
def test_the_budget_is_never_exceeded(steps: list[tuple[str, str, float]]) -> None:
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepared, "_kept", type(prepared._kept)())
        patch.setattr(prepared, "monotonic", clock)
        patch.setattr(prepared, "sleep", clock.sleep)
        for step, key, size in steps:
            if step == "keep":
                keep(key, size)
                assert prepared.get(key) is WHOLE[key]
            elif step == "part":
                part(key, f"{size}", size)
            elif step == "room":
                room(size)
                assert prepared.used() + int(size * GB) <= 10 * GB
            elif step == "get":
                prepared.get(key)
            else:
                clock.sleep(10 * size)
            assert prepared.used() <= 10 * GB


@pytest.mark.parametrize("text", ["four", "-1", "0", "nan", "inf"])
def test_a_budget_that_is_no_number_is_explained(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv(prepared.VARIABLE, text)
    with pytest.raises(UserError, match=r"is not a number of gigabytes\. Choose"):
        prepared.budget()


@pytest.mark.parametrize("n", [3, 40])
def test_a_bench_takes_no_more_than_it_was_expected_to(name: str, n: int) -> None:
    ready = session.prepare(Setting(name, Prompts(ENTITY_TRACKING, n, 0, (3,))), lambda *_: None)
    expected = session.bytes_expected(ready.loaded.model, *ready.prompts.input_ids.shape, 3)
    assert session.bytes_of(ready) <= expected
    assert prepared.used() == session.bytes_of(ready)
    session.answers(ready, STEP)
    assert session.bytes_of(ready) < prepared.used() < 2 * expected


def test_what_is_expected_of_many_prompts_is_about_what_they_take(name: str) -> None:
    ready = session.prepare(Setting(name, Prompts(ENTITY_TRACKING, 500, 0, (5,))), lambda *_: None)
    expected = session.bytes_expected(ready.loaded.model, *ready.prompts.input_ids.shape, 3)
    assert session.bytes_of(ready) <= expected < 2 * session.bytes_of(ready)


def test_bytes_are_those_of_each_memory_once() -> None:
    table = torch.zeros(100, dtype=torch.float64)
    arrays = (table, table[:10], [{"x": table.numpy().copy()}], torch.nn.Linear(9, 9), "word")
    assert bytes_in(arrays) == 2 * 800


def test_a_setting_that_does_not_fit_is_refused_before_it_runs(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(prepared.VARIABLE, "0.001")
    with pytest.raises(UserError, match=r"once prepared.*Choose fewer prompts"):
        session.prepare(Setting(name, Prompts(ENTITY_TRACKING, 40, 0, (3,))), lambda *_: None)


def test_unloading_a_model_lets_go_of_what_was_prepared_with_it_alone(
    name: str, tmp_path: Path
) -> None:
    llama(1).save_pretrained(tmp_path)
    word_tokenizer().save_pretrained(tmp_path)
    settings = [
        Setting(each, Prompts(ENTITY_TRACKING, 5, 0, (3,))) for each in (name, str(tmp_path))
    ]
    gone, stays = (weakref.ref(session.prepare(each, lambda *_: None)) for each in settings)
    loaded_models.unload(name)
    assert gone() is None
    assert stays() is prepared.get(settings[1])
    loaded_models.unload(str(tmp_path))
