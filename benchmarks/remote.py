"""What a click costs on a model that a cluster has, beside one that is here and an empty message.

    python -m benchmarks.remote
    python -m benchmarks.remote --ray ray://127.0.0.1:10001 --away 20

The second one is as if the cluster were 20 ms away, each way (ray:// only).

The bundled base is on both sides, so the same clicks are made on both, in turns with messages that
ask for nothing; each is a new one, so that nothing is kept of it.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from statistics import median
from time import perf_counter
from typing import Any

from backend.cluster.where import Cluster, cluster
from backend.core.heads import Site
from backend.engine.answers import Answers
from backend.models import catalogue, elsewhere, loaded_models, registry
from backend.models.elsewhere import Elsewhere
from backend.models.model_config import blueprint
from backend.studies import remote
from backend.studies import session as sessions
from backend.studies.session import RemoteSession, Session
from backend.tasks.prompts import N_PROMPTS, Prompts
from backend.tasks.setting import Intervention, Mode, Reading, Setting
from benchmarks.far_away import far_away

LIMIT = 1.5
MODEL = "base"


def main(arguments: list[str] | None = None) -> None:
    """Measure, and print a line for each way to click."""
    parser = ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--ray", default="local:1", help="local:1, auto, HOST:PORT or ray://…")
    parser.add_argument("--prompts", type=int, default=N_PROMPTS)
    parser.add_argument("--clicks", type=int, default=60)
    parser.add_argument(
        "--away", type=float, default=0.0, help="milliseconds each way; ray:// only"
    )
    options = parser.parse_args(arguments)
    where = cluster(options.ray)
    if where.is_client and where.place and options.away:
        with far_away(where.place, options.away / 1000) as port:
            compare(Cluster(f"ray://127.0.0.1:{port}"), options.prompts, options.clicks)
    else:
        compare(where, options.prompts, options.clicks)


def compare(where: Cluster, n_prompts: int, n_clicks: int) -> None:
    """Prepare on both sides, and print a line for each reading."""
    circuit = catalogue.circuit(MODEL)
    prompts = Prompts(circuit.task, n_prompts, 0)
    remote.ask_for_models(where, _silent)
    try:
        here = sessions.prepare(Setting(str(registry.entry(MODEL).source), prompts), _silent)
        with _as_if_not_here():
            there = sessions.prepare(Setting(MODEL, prompts), _silent)
            assert isinstance(there, RemoteSession)
            print(f"{MODEL}, {prompts}, {where}")
            for reading in Reading:
                steps = clicks(reading, sorted(circuit.sites, key=str), n_clicks)
                print(f"{reading.value:8}", report(*measured(here, there, steps)))
    finally:
        remote.leave()


def clicks(reading: Reading, sites: list[Site], n: int) -> Iterator[Intervention]:
    """So many ways to switch heads off, each another one."""
    for number in range(n):
        off = frozenset(site for place, site in enumerate(sites) if (number + 1) >> place & 1)
        yield Intervention(reading, Mode.mean, frozenset(sites) - off, off)


def click(session: Session, step: Intervention) -> Answers:
    """As the Circuit page answers it: first of all the model has to be what it was."""
    assert loaded_models.is_current(session.loaded)
    return sessions.answers(session, step)


def measured(
    here: Session, there: RemoteSession, steps: Iterator[Intervention]
) -> tuple[float, ...]:
    """Median seconds of a click here, of one there, of an empty message, and of the click there
    when it is kept there, so that nothing is computed."""
    times: list[tuple[float, ...]] = []
    for step in steps:
        asked = (
            partial(click, here, step),
            partial(click, there, step),
            remote.ping,
            partial(there.ask, "answers", step),
        )
        local, far, empty, kept = (seconds(each) for each in asked)
        times.append((local, far, empty, kept))
    # The first ones also load what is only needed once.
    return tuple(median(each) for each in zip(*times[len(times) // 10 :], strict=True))


def report(local: float, far: float, empty: float, kept: float) -> str:
    """The line that is printed."""
    ratio = (far - local) / empty
    held = "below" if ratio < LIMIT else "NOT below"
    ms = [f"{1000 * each:.2f} ms" for each in (local, far, empty)]
    return (
        f"a click here {ms[0]}, there {ms[1]}, an empty message there and back {ms[2]}: "
        f"({ms[1]} − {ms[0]}) / {ms[2]} = {ratio:.2f}, {held} {LIMIT}; a click that is kept there "
        f"{1000 * kept:.2f} ms"
    )


def seconds(do: Callable[[], Any]) -> float:
    """How long it takes."""
    started = perf_counter()
    do()
    return perf_counter() - started


@contextmanager
def _as_if_not_here() -> Iterator[None]:
    entry, files = registry.entry(MODEL), loaded_models.fingerprint_of(MODEL)
    assert files
    kind = registry.Kind.remote
    elsewhere.put(Elsewhere(replace(entry, kind=kind), files, blueprint(entry)))
    try:
        yield
    finally:
        elsewhere.forget(MODEL)


def _silent(stage: str, share: float) -> None:
    """Progress that nobody asked about."""


if __name__ == "__main__":
    main()
