"""Turns of processes: who has one is waited for, seen and stopped, and loses it with its end."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from backend.commands import cli
from backend.core import priority
from backend.core.errors import UserError
from backend.core.placement import CPU
from backend.core.progress import Cancelled, Report
from backend.methods.accuracy import AccuracyRequest
from backend.studies import device_locks, studies
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.prompts import Prompts
from tests.dashboard import ROOT

PATIENCE = 60
TITLE = "Minimality: Base"
HOLDER = f"""
import sys
from backend.studies.device_locks import turn
with turn(["cpu"], {TITLE!r}, lambda stage, share: None) as report:
    report("Removing heads", 0.25)
    print("held", flush=True)
    while sys.stdin.readline():
        for step in range(10**9):
            report("Removing heads", 0.5)
"""


class Enough(Exception):
    """Told to who waits, so that the test goes on."""


def unheard(stage: str, share: float) -> None:
    pass


@pytest.fixture
def holder(empty_cache: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the CPU's turn until it reads a line."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER],
        cwd=ROOT,
        env=os.environ | {"CIRCUIT_EXPLORER_LOCAL": str(empty_cache)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def who_is_waited_for() -> str:
    def report(stage: str, share: float) -> None:
        raise Enough(stage)

    with pytest.raises(Enough) as told, device_locks.turn([CPU], "Mine", report):
        pass
    return str(told.value)


def test_who_has_a_turn_is_named_to_who_waits(holder: subprocess.Popen[str]) -> None:
    assert who_is_waited_for() == f"Waiting for process {holder.pid} on the same device"


@pytest.mark.parametrize("end", [subprocess.Popen.kill, lambda process: process.communicate("")])
def test_a_turn_ends_with_its_block_and_with_its_process(
    holder: subprocess.Popen[str], end: Callable[[Any], Any]
) -> None:
    waits, has_it = Event(), Event()

    def wait() -> None:
        with device_locks.turn([CPU], "Mine", lambda stage, share: waits.set()):
            has_it.set()

    Thread(target=wait, daemon=True).start()
    assert waits.wait(PATIENCE)
    assert not has_it.is_set()
    end(holder)
    assert has_it.wait(PATIENCE)


def test_other_devices_are_not_waited_for(
    holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_locks, "lasting_name", lambda device: f"another {device}")
    seen: list[str] = []

    def report(stage: str, share: float) -> None:
        assert "Waiting" not in stage
        seen.append(stage)

    with device_locks.turn([CPU], "Mine", report) as told:
        told("at once", 0.5)
    assert seen == ["at once"]


def test_what_another_process_does_is_seen_while_it_does_it(holder: subprocess.Popen[str]) -> None:
    (notice,) = device_locks.elsewhere()
    assert (notice.title, notice.process) == (TITLE, holder.pid)
    assert (notice.stage, notice.share) == ("Removing heads", 0.25)
    assert notice.seconds > 0
    assert notice.seconds_left is None  # said once: nothing tells how fast it goes
    holder.kill()
    holder.wait()
    assert device_locks.elsewhere() == []


def test_a_notice_says_what_is_left_at_the_rate_of_the_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(device_locks, "_TELL_S", -1.0)
    monkeypatch.setattr(device_locks, "monotonic", iter(map(float, range(100))).__next__)
    with device_locks.turn([CPU], "Mine", unheard) as told:
        for share in (0.1, 0.2, 0.3, 0.4):
            told("at work", share)
        notice = device_locks._read(device_locks._place(CPU))
    assert notice
    assert notice.seconds_left
    rate = 0.1 / (notice.seconds / 4)
    assert notice.seconds_left == pytest.approx(0.6 / rate, rel=0.3)


def test_ones_own_turn_is_not_elsewhere() -> None:
    with device_locks.turn([CPU], "Mine", unheard) as report:
        report("now", 0.5)
        assert device_locks.elsewhere() == []


def test_another_process_stops_when_it_is_asked_to(holder: subprocess.Popen[str]) -> None:
    (notice,) = device_locks.elsewhere()
    device_locks.stop(notice)
    _, err = holder.communicate("go on\n", PATIENCE)
    assert holder.returncode == 1
    assert err.strip().endswith("Cancelled")
    assert not [*priority.TURNS.glob("*.stop")]


def test_a_stop_that_cannot_be_asked_for_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(priority, "TURNS", tmp_path / "file" / "turns")
    with pytest.raises(UserError, match=r"Process 7 cannot be asked to stop .* End it there"):
        device_locks.stop(device_locks.Notice("0" * 32, 7, "Theirs", 0.0))


def test_a_stop_is_for_the_work_it_was_meant_for() -> None:
    with device_locks.turn([CPU], "First", unheard) as report:
        report("now", 0.5)
    device_locks.stop(device_locks.Notice("another", os.getpid(), "First", 0.0))
    with device_locks.turn([CPU], "Second", unheard) as report:
        report("now", 0.5)


def test_where_nothing_can_be_locked_work_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(priority, "TURNS", tmp_path / "file" / "turns")
    with device_locks.turn([CPU], "Mine", unheard) as report:
        report("now", 0.5)
    assert device_locks.elsewhere() == []


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[" * 100_000,
        '{"id": 3}',
        '{"id": "../x", "process": 1, "title": ""}',
        f'{{"id": "{"0" * 32}", "process": 1, "title": "", "share": 7}}',
        f'{{"id": "{"0" * 32}", "process": 1, "title": "", "seconds": null}}',
    ],
)
def test_a_damaged_notice_is_passed_over(holder: subprocess.Popen[str], text: str) -> None:
    (place,) = priority.TURNS.glob("*.json")
    place.write_text(text)
    assert device_locks.elsewhere() == []
    assert who_is_waited_for() == "Waiting for another process on the same device"


def test_a_turn_of_two_devices_waits_for_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_locks, "lasting_name", lambda device: device)
    with ExitStack() as held:
        held.enter_context(device_locks.turn(["b"], "Theirs", unheard))
        seen: list[str] = []

        def report(stage: str, share: float) -> None:
            seen.append(stage)
            held.close()

        with device_locks.turn(["a", "b"], "Mine", report):
            assert seen == ["Waiting for another process on the same device"]


def test_what_another_process_stored_meanwhile_is_not_computed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    request = AccuracyRequest(("base",), Prompts(ENTITY_TRACKING, 20, 0, (3,)))
    first = [*studies.run(request, unheard)]
    (entry,) = (stored.entry for stored in [studies.find(request)] if stored)
    text = entry.path.read_text()
    entry.path.unlink()

    @contextmanager
    def late(devices: Any, title: str, report: Report) -> Iterator[Report]:
        entry.path.write_text(text)
        yield unexpected

    def unexpected(stage: str, share: float) -> None:
        raise AssertionError(stage)

    monkeypatch.setattr(studies, "turn", late)
    assert [*studies.run(request, unheard)] == first


def test_a_command_that_is_stopped_says_what_is_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @contextmanager
    def stopped(*_: Any) -> Iterator[Report]:
        raise Cancelled
        yield

    monkeypatch.setattr(studies, "turn", stopped)
    assert cli.main(["accuracy", "base", "--prompts", "20"]) == 130
    assert "stopped from the dashboard. What was finished is kept" in capsys.readouterr().err


@pytest.mark.parametrize("written", [0, 10**9, 10**11])
def test_work_holds_while_someone_clicks_in_another_process(
    monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    """Whatever the clock says by which files are dated: long ago, or far in the future."""
    now = [1000.0]
    held: list[float] = []

    def sleep(seconds: float) -> None:
        held.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(priority, "monotonic", lambda: now[0])
    monkeypatch.setattr(priority, "sleep", sleep)
    mark = priority.TURNS / "urgent"
    with device_locks.turn([CPU], "Mine", unheard) as report:
        report("without a mark", 0.1)
        with priority.urgent():
            report("marked by this process", 0.2)
        assert mark.read_text().split()[0] == str(os.getpid())
        assert not held
        mark.write_text(f"another {written}")
        os.utime(mark, (written, written))
        report("marked by another", 0.3)
        assert sum(held) == pytest.approx(0.5, abs=0.06)
        report("long ago", 0.4)
        assert sum(held) == pytest.approx(0.5, abs=0.06)
