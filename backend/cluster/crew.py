"""A study by many processes on Ray: on this machine, or on all machines of a cluster.

Each process runs the study and makes some of its blocks (`backend.engine.checkpoints`), so that
there is no second way in which anything is computed: parts, blocks and their names are those of one
process. A process that dies loses the blocks that it was making, which others then make; a machine
that comes later gets a process.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from time import sleep
from typing import Any, NamedTuple

from backend.cluster.board import Board, News
from backend.cluster.keeping import Kept, Terms, kept
from backend.cluster.versions import versions
from backend.cluster.where import Cluster
from backend.cluster.worker import End, Like, Outcome, Task, Worker
from backend.core.errors import UserError
from backend.core.files import LOCAL, VARIABLE
from backend.core.kept import Folder
from backend.core.placement import AUTO, CPU, SPREAD
from backend.core.progress import Report
from backend.core.serialize import from_json, to_json
from backend.methods.method import Finished
from backend.methods.registry import method_of
from backend.methods.requests import Request, models_of
from backend.models.loaded_models import fingerprint_of, note, placement_of

_WAIT_S = 0.2
_LAST_S = 2.0
_MOST_LOST = 3
"""How often processes may die, for each that works, before it is given up."""
_OURS = "CIRCUIT_EXPLORER_"
"""What settings of this tool begin with, in the environment."""
_NEXT = "Start again, with fewer prompts or another cluster; what was finished is kept."
_log = logging.getLogger(__name__)


class Room(NamedTuple):
    """Where a process may be: a machine, and what it takes of it."""

    node: str
    cpus: float
    gpus: float


def work(
    request: Request,
    finished: Finished,
    report: Report,
    unfinished: Callable[[int], Folder | None],
    device: str,
    where: Cluster,
) -> Iterator[Any]:
    """The parts that come after those that are finished, as `Method.work` gives them.

    What is kept of them is taken from there, and new blocks are kept there. Models are in the
    numbers that they have here, on a device of that kind. Raises UserError for
    what cannot be measured, where there is no such cluster or no Ray, and when its processes die
    again and again.
    """
    method, parts = method_of(request), [*finished]
    kinds = method.parts(request)
    models = {name: _like(name) for name in models_of(request)}
    with kept(Terms(where, device, _settings()), report) as there:
        folders = {part: unfinished(part) for part in range(len(parts), len(kinds))}
        crew = _Crew(there, _board(there.ray, folders))
        try:
            while len(parts) < len(kinds):
                done = to_json(tuple(parts))
                crew.tend(Task(method.name, to_json(request), done, versions(), models))
                news = crew.news()
                for name, data in news.blocks.items():
                    _keep(folders, name, data)
                report(f"{news.stage} · {_processes(news.n_working)} on {where}", news.share)
                for number, part in sorted(news.parts.items()):
                    if number == len(parts):
                        parts.append(from_json(kinds[number], part))
                        yield parts[number]
            for name, notes in crew.finish().items():
                note(models[name].fingerprint, request.prompts.task, notes)
        finally:
            crew.dismiss()


@dataclass
class _Crew:
    """The processes that work now; new ones where some have died, or machines have come."""

    there: Kept
    board: Any
    _running: dict[Any, tuple[int, Any, Room]] = field(default_factory=dict)
    _notes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _n_begun: int = 0
    _n_lost: int = 0

    def tend(self, task: Task) -> None:
        """Begin where there is room, wait a moment, and raise what made a process fail."""
        ray, terms = self.there.ray, self.there.terms
        taken = Counter(room for _, _, room in self._running.values())
        for room in (Counter(_rooms(ray, terms.where, terms.device)) - taken).elements():
            idle = self.there.idle[room]
            actor = idle.pop() if idle else _begun(ray, room, terms.where, terms.device)
            reference = actor.run.remote(task, self.board, self._n_begun)
            self._running[reference] = self._n_begun, actor, room
            self._n_begun += 1
        if not self._running:
            sleep(_WAIT_S)
            return
        ended, _ = ray.wait([*self._running], num_returns=1, timeout=_WAIT_S)
        for reference in ended:
            self._look_at(reference)

    def news(self) -> News:
        """What the board has of new."""
        from ray.exceptions import RayError

        try:
            news: News = self.there.ray.get(self.board.news.remote())
        except RayError as error:
            raise UserError(f"The cluster is gone: {_line(error)}. {_NEXT}") from error
        return news

    def finish(self) -> Mapping[str, tuple[str, ...]]:
        """Let all stay; what they say of their models. Who is not at the end of it, as it was late,
        ends when it next asks the board, which is gone."""
        from ray.exceptions import RayError

        ray, running = self.there.ray, [*self._running]
        ended = ray.wait(running, num_returns=1, timeout=_LAST_S)[0] if running else []
        for reference in ended:
            with suppress(RayError):
                self._notes |= ray.get(reference).notes
        for _, actor, room in self._running.values():
            self.there.idle[room].append(actor)
        self._running.clear()
        return self._notes

    def dismiss(self) -> None:
        """End all that work still."""
        for _, actor, _ in self._running.values():
            self.there.ray.kill(actor)
        self.there.ray.kill(self.board)

    def _look_at(self, reference: Any) -> None:
        from ray.exceptions import OutOfMemoryError, RayError

        ray = self.there.ray
        try:
            end: End = ray.get(reference)
        except OutOfMemoryError as error:
            ray.get(self.board.shrink.remote())
            self._lose(reference, error)
        except RayError as error:
            self._lose(reference, error)
        else:
            if end.outcome is Outcome.refused:
                raise UserError(end.text)
            if end.outcome is Outcome.failed:
                _log.error("A process of the cluster failed\n%s", end.trace)
                raise UserError(f"A process of the cluster failed: {end.text}. {_NEXT}")
            self._notes |= end.notes
            _, actor, room = self._running.pop(reference)
            self.there.idle[room].append(actor)

    def _lose(self, reference: Any, error: Exception) -> None:
        self._n_lost += 1
        if self._n_lost > _MOST_LOST * len(self._running):
            raise UserError(
                f"The cluster’s processes die again and again: {_line(error)}. {_NEXT}"
            ) from error
        number, actor, _ = self._running.pop(reference)
        self.there.ray.kill(actor)
        self.there.ray.get(self.board.release.remote(number))
        _log.warning("A process of the cluster died; others make what it was making. %s", error)


def _begun(ray: Any, room: Room, where: Cluster, device: str) -> Any:
    """A new process there."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    options = {
        "num_cpus": room.cpus,
        "num_gpus": room.gpus,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(room.node, soft=False),
        "runtime_env": {"env_vars": _environment(room, where)},
    }
    # Where one GPU is given to it, it sees no other.
    there = AUTO if device.startswith("cuda") else device
    return ray.remote(Worker).options(**options).remote(there)


def _like(name: str) -> Like:
    placement = placement_of(name)
    return Like(str(fingerprint_of(name) or ""), placement.dtype, placement.tf32)


def _environment(room: Room, where: Cluster) -> dict[str, str]:
    """On this computer as here; machines of a cluster have models and tasks in folders of their
    own."""
    place = {VARIABLE: str(LOCAL)} if where.n_local else {}
    return {**dict(_settings()), **place, "OMP_NUM_THREADS": str(max(1, int(room.cpus)))}


def _settings() -> frozenset[tuple[str, str]]:
    """What the environment says of this tool, but for where it keeps what is made."""
    ours = {name: value for name, value in os.environ.items() if name.startswith(_OURS)}
    ours.pop(VARIABLE, None)
    return frozenset(ours.items())


def _rooms(ray: Any, where: Cluster, device: str) -> Sequence[Room]:
    """Where processes may be now."""
    if where.n_local:
        return [Room(ray.get_runtime_context().get_node_id(), 1, 0)] * where.n_local
    found: list[Room] = []
    for node in ray.nodes():
        if node["Alive"]:
            cpus, gpus = (int(node["Resources"].get(kind, 0)) for kind in ("CPU", "GPU"))
            gpus = 0 if device == CPU else gpus
            per_gpu = 0 if device == SPREAD else where.per_gpu
            found += _rooms_of(node["NodeID"], cpus, gpus, per_gpu)
    return found


def _rooms_of(node: str, cpus: int, gpus: int, per_gpu: int) -> Sequence[Room]:
    """per_gpu: how many share a GPU; 0 where one takes them all."""
    if n := gpus * per_gpu:
        return [Room(node, cpus // n, 1 / per_gpu)] * n
    return [Room(node, cpus, gpus)] if cpus else []


def _board(ray: Any, kept: Mapping[int, Folder | None]) -> Any:
    """The board, beside this process, with all blocks that are kept."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    blocks: dict[str, bytes] = {}
    for part, place in kept.items():
        if place:
            blocks |= {f"{part}/{name}": data for name, data in place.everything().items()}
    return ray.remote(Board).options(num_cpus=0, scheduling_strategy=here).remote(blocks)


def _keep(kept: Mapping[int, Folder | None], name: str, data: bytes) -> None:
    part, _, block = name.partition("/")
    if place := kept[int(part)]:
        place.write(block, data)


def _processes(n: int) -> str:
    return f"{n or 'no'} process{'' if n == 1 else 'es'}{'' if n else ' yet'}"


def _line(error: Exception) -> str:
    """The first line of what Ray says."""
    return str(error).strip().partition("\n")[0].rstrip(".")
