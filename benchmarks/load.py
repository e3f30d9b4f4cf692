"""Several people at once: `python -m benchmarks.load`.

Sessions speak to a new server as browsers do, without the browsers, which would take more of a
small machine than the server does. What is measured: how long clicks wait while several sessions
click, how long sessions with a setting each wait for their first numbers, and what many sessions
and clicks leave behind in memory.
"""

from __future__ import annotations

import asyncio
import random
import time
from statistics import median, quantiles

import psutil

from tests.dashboard import ROOT, serving
from tests.visitor import Visitor, visiting

N_SESSIONS = 8
CLICKS_EACH = 15
EVERY_S = 2.0
N_SETTINGS = 16
N_CLOSED = 50
CLICKS_OF_CLOSED = 10
_PATIENCE_S = 10.0
_LONG_PATIENCE_S = 300.0
_FORGET_S = 2
"""Streamlit keeps a closed session this long, in case that it comes back; 120 by default."""


def main() -> None:
    """Measure and print all three."""
    with serving(ROOT / "app.py", f"--server.disconnectedSessionTTL={_FORGET_S}") as address:
        (server,) = psutil.Process().children()
        asyncio.run(_several(address, server))
        asyncio.run(_closed(address, server))
        asyncio.run(_settings(address, server))


async def _several(address: str, server: psutil.Process) -> None:
    before = time.monotonic()
    async with visiting(address) as first:
        await first.painted(_LONG_PATIENCE_S)
    print(f"first numbers on a new server: {time.monotonic() - before:.1f} s")
    before = _cpu_s(server)
    answers = await asyncio.gather(*(_session(address, number) for number in range(N_SESSIONS)))
    waited = [seconds for session in answers for seconds in session if seconds is not None]
    n_clicks = N_SESSIONS * CLICKS_EACH
    print(
        f"{N_SESSIONS} sessions, a click each every {EVERY_S:.0f} s, {n_clicks} clicks: "
        f"median {median(waited):.2f} s, 95th percentile {quantiles(waited, n=20)[-1]:.2f} s, "
        f"longest {max(waited):.2f} s, {n_clicks - len(waited)} lost; "
        f"{(_cpu_s(server) - before) / n_clicks:.3f} s of a core a click"
    )


async def _session(address: str, number: int) -> list[float | None]:
    """What each click waited in a session that clicks at its own times; None for a lost one."""
    waited: list[float | None] = []
    async with visiting(address) as visitor:
        await visitor.painted(_LONG_PATIENCE_S)
        await asyncio.sleep(EVERY_S * number / N_SESSIONS)
        for head in _some_heads(visitor, number, CLICKS_EACH):
            start = time.monotonic()
            try:
                await visitor.click(head, _PATIENCE_S)
                waited.append(time.monotonic() - start)
            except TimeoutError:
                waited.append(None)
            await asyncio.sleep(max(0.0, start + EVERY_S - time.monotonic()))
    return waited


async def _closed(address: str, server: psutil.Process) -> None:
    await _open_and_close(address, 5, 2)
    await _forgotten(address)
    before = server.memory_info().rss, server.num_fds()
    await _open_and_close(address, N_CLOSED, CLICKS_OF_CLOSED)
    await _forgotten(address)
    after = server.memory_info().rss, server.num_fds()
    print(
        f"{N_CLOSED} sessions opened and closed, {N_CLOSED * CLICKS_OF_CLOSED} clicks: "
        f"{before[0] / 1e6:.0f} MB before, {after[0] / 1e6:.0f} MB after "
        f"({after[0] / before[0] - 1:+.1%}); {before[1]} open files before, {after[1]} after"
    )


async def _open_and_close(address: str, n_sessions: int, n_clicks: int) -> None:
    for number in range(n_sessions):
        async with visiting(address) as visitor:
            await visitor.painted(_LONG_PATIENCE_S)
            for head in _some_heads(visitor, number, n_clicks):
                await visitor.click(head, _PATIENCE_S)


async def _forgotten(address: str) -> None:
    """Wait until closed sessions may go; they do when a later one ends."""
    await asyncio.sleep(_FORGET_S + 1)
    async with visiting(address) as visitor:
        await visitor.painted(_LONG_PATIENCE_S)
    await asyncio.sleep(1)


async def _settings(address: str, server: psutil.Process) -> None:
    start, before = time.monotonic(), server.memory_info().rss

    async def paint(seed: int) -> float | None:
        async with visiting(address, seed=seed) as visitor:
            try:
                await visitor.painted(_LONG_PATIENCE_S)
            except TimeoutError:
                return None
            return time.monotonic() - start

    painted = await asyncio.gather(*(paint(1 + seed) for seed in range(N_SETTINGS)))
    times = [seconds for seconds in painted if seconds is not None]
    print(
        f"{N_SETTINGS} sessions with a setting each: {len(times)} painted, the first after "
        f"{min(times, default=0):.0f} s, the last after {max(times, default=0):.0f} s; "
        f"{before / 1e6:.0f} MB before, {server.memory_info().rss / 1e6:.0f} MB after"
    )


def _some_heads(visitor: Visitor, seed: int, n: int) -> list[str]:
    """Heads in an order of the session's own, so that few clicks have been made before."""
    return random.Random(seed).choices(visitor.heads, k=n)


def _cpu_s(server: psutil.Process) -> float:
    times = server.cpu_times()
    return times.user + times.system


if __name__ == "__main__":
    main()
