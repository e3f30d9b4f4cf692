"""Turns of processes: the dashboard and commands on one machine work on a device one at a time.

Whoever has a device's turn holds a lock, which ends with the process, however that ends. Beside the
lock lies a notice of what is being done, for those who wait and for the dashboard, which can ask
for it to stop. Only processes that share `cache/local` know of each other.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic, sleep
from uuid import uuid4

from filelock import FileLock, Timeout

from backend.core import priority
from backend.core.devices import lasting_name
from backend.core.errors import UserError
from backend.core.files import MB, read_json, write_atomically
from backend.core.pace import Pace
from backend.core.progress import Cancelled, Report
from backend.core.serialize import from_json, to_json

_ID = re.compile("[0-9a-f]{32}")
_LOOK_S = 0.2
_TELL_S = 1.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Notice:
    """What a process does in its turn, how far it is, and after how many seconds it said so.

    No moment is in it: clocks of processes differ, as on two machines, and may be set.
    """

    id: str
    process: int
    title: str
    stage: str = "Starting"
    share: float = 0.0
    seconds: float = 0.0
    seconds_left: float | None = None


@contextmanager
def turn(devices: Collection[str], title: str, report: Report) -> Iterator[Report]:
    """Wait until no other process works on these devices, and keep others waiting in the block.

    Gives the report to be used in the block: other processes see what it says, it holds while
    someone clicks in one of them, and raises Cancelled when one wants the work to stop. Where files
    cannot be locked, nobody waits.
    """
    with ExitStack() as held:
        places = sorted(_place(device) for device in devices)
        for place in places:
            try:
                _take(place, report, held)
            except (OSError, NotImplementedError) as error:
                _log.warning("Other processes are not waited for: %s", error)
        yield _told(Notice(uuid4().hex, os.getpid(), title), places, report)


def elsewhere() -> list[Notice]:
    """What other processes are doing in their turns, the latest first."""
    found = {
        notice.id: notice
        for place in priority.TURNS.glob("*.json")
        if (notice := _read(place)) and notice.process != os.getpid() and _is_held(place)
    }
    return sorted(found.values(), key=lambda notice: notice.seconds)


def stop(notice: Notice) -> None:
    """Ask the process to end what it does; it will at its next step.

    Raises UserError when it cannot be asked.
    """
    try:
        write_atomically(_wish(notice), "")
    except OSError as error:
        raise UserError(
            f"Process {notice.process} cannot be asked to stop ({error.strerror}). End it there "
            "where it was started."
        ) from error


def _place(device: str) -> Path:
    return priority.TURNS / f"{re.sub(r'[^A-Za-z0-9-]', '_', lasting_name(device))}.json"


def _wish(notice: Notice) -> Path:
    return priority.TURNS / f"{notice.id}.stop"


def _lock(place: Path) -> FileLock:
    # Whichever thread ends the work lets go of it.
    return FileLock(place.with_suffix(".lock"), thread_local=False)


def _take(place: Path, report: Report, held: ExitStack) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    lock = _lock(place)
    while True:
        try:
            held.enter_context(lock.acquire(timeout=0))
        except Timeout:
            other = _read(place)
            who = f"process {other.process}" if other else "another process"
            report(f"Waiting for {who} on the same device", 0.0)
            sleep(_LOOK_S)
        else:
            return


def _told(notice: Notice, places: Collection[Path], report: Report) -> Report:
    """The report, which keeps the notice up to date and hears when the work is to stop."""
    started, last, pace = monotonic(), float("-inf"), Pace()

    def tell(stage: str, share: float) -> None:
        nonlocal last, pace
        report(stage, share)
        pace = pace.told(share, monotonic())
        priority.hold_for_others(lambda: report("Holding while someone clicks elsewhere", share))
        if monotonic() - last < _TELL_S:
            return
        last = monotonic()
        if _wish(notice).exists():
            _wish(notice).unlink(missing_ok=True)
            raise Cancelled
        seconds, left = last - started, pace.seconds_left(last)
        now = replace(notice, stage=stage, share=pace.share, seconds=seconds, seconds_left=left)
        with suppress(OSError):  # others then see an older notice
            for place in places:
                write_atomically(place, json.dumps(to_json(now)))

    return tell


def _read(place: Path) -> Notice | None:
    try:
        notice: Notice = from_json(Notice, read_json(place, MB))
    except UserError:
        return None
    is_ours = _ID.fullmatch(notice.id) and 0 <= notice.share <= 1 and notice.seconds >= 0
    return notice if is_ours else None


def _is_held(place: Path) -> bool:
    try:
        with _lock(place).acquire(timeout=0):
            return False
    except (Timeout, OSError, NotImplementedError):
        return True
