"""What a second process on this computer saves: python -m benchmarks.cluster

All stages of a discovery by this process, by one other on Ray and by two, a thread each, on the
clock: it says something only where nobody else takes the cores. Each first discovers on a few other
prompts, which is mostly beginning, as processes and models then stay.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from backend.cluster.where import Cluster
    from backend.tasks.setting import Setting

_FEW = 8


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print; nothing is kept, and nothing that was kept is used."""
    parser = argparse.ArgumentParser(description="What a second process on this computer saves.")
    parser.add_argument("--model", default="base", help="a bundled one, a folder or a hub name")
    parser.add_argument("--task", default="entity-tracking")
    parser.add_argument("--prompts", type=int, default=1000)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args(arguments)
    with TemporaryDirectory() as place:
        # Before the engine is imported, which reads them once.
        os.environ |= {"CIRCUIT_EXPLORER_LOCAL": place, "OMP_NUM_THREADS": "1"}
        compare(options.model, options.task, options.prompts, options.processes)


def compare(model: str, task: str, n: int, processes: Sequence[int]) -> None:
    """Print the seconds of both discoveries by each, and this process’s to those of the second.

    Raises AssertionError where scores are not the same, to the last bit.
    """
    from backend.cluster.where import Cluster
    from backend.tasks.prompts import Prompts
    from backend.tasks.registry import task_named
    from backend.tasks.setting import Setting

    prompts = [Prompts(task_named(task), *each) for each in ((_FEW, 1), (n, 0))]
    print(
        f"All stages of {model}, {prompts[1]}; {os.cpu_count()} processors, of which "
        f"{os.getloadavg()[0]:.1f} were busy in the minute before.\n\n"
        f"                 to begin, with {_FEW} prompts / s   {n:5} prompts / s   ratio",
        flush=True,
    )
    expected, alone = "", 0.0
    for where in (None, *(Cluster(n_local=each) for each in processes)):
        (begun, few), (seconds, many) = (
            discovered(Setting(model, each), where) for each in prompts
        )
        expected, alone = expected or few + many, alone or seconds
        assert few + many == expected, f"{where} finds other scores"
        name = str(where or "this process")
        print(f"{name:16} {begun:28.1f} {seconds:19.1f} {alone / seconds:7.2f}", flush=True)


def discovered(setting: Setting, where: Cluster | None) -> tuple[float, str]:
    """Seconds that a discovery took there, and what it found."""
    from backend.core.serialize import to_json
    from backend.methods.stages import Criteria
    from backend.studies import store, studies
    from backend.studies.stages import run_stages

    studies.work_on(where)
    start = perf_counter()
    stages = [*run_stages(setting, Criteria(), (), setting.prompts.task.keys[-1], lambda *_: None)]
    seconds = perf_counter() - start
    for entry in store.entries():
        if not entry.is_shipped:
            store.delete(entry)
    return seconds, json.dumps(to_json(tuple(stages)))


if __name__ == "__main__":
    main()
