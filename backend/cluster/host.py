"""One process on the machine of a cluster that has most GPUs, which answers questions from here.

A question is one message there and one back. The answer comes as pieces that are small enough to
travel in that message: larger ones Ray would leave there, to be fetched with more of them.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from secrets import token_hex
from typing import Any, NamedTuple

from backend.cluster.joining import join, leave
from backend.cluster.versions import difference, versions
from backend.cluster.where import Cluster
from backend.core.errors import UserError
from backend.core.placement import Placement
from backend.core.progress import Report

_LOOK_S = 0.2
_PATIENCE_S = 30.0
"""How long it may take to say that it is at work."""
_AT_ONCE = 16
"""Questions that are answered at the same time."""
_NEXT = "Try again; if it stays so, see whether the cluster runs and the tunnel is there."


class Unreachable(UserError):
    """The process on the cluster does not answer, is gone, or has another model by now."""


class Outcome(Enum):
    """What an answer is."""

    answered = "answered"
    refused = "refused"
    """What is asked cannot be, or not there; the answer says why."""


class Answer(NamedTuple):
    """How a question ended, and what came of it."""

    outcome: Outcome
    value: Any


class Told(NamedTuple):
    """What is done now, and the share of it that is done."""

    stage: str
    share: float


def packed(answer: Answer, n_pieces: int) -> Any:
    """An answer in so many pieces, as an actor returns several values."""
    data = pickle.dumps(answer, protocol=5)
    size = -(-len(data) // n_pieces)
    pieces = [data[start * size : (start + 1) * size] for start in range(n_pieces)]
    return pieces if n_pieces > 1 else pieces[0]


@dataclass(frozen=True, eq=False)
class Host:
    """The process there, from here. actor: answers `answer`, `told` and `cancel`."""

    ray: Any
    actor: Any
    where: Cluster

    def ask(self, what: str, *asked: Any, n_pieces: int = 1, report: Report | None = None) -> Any:
        """What the process answers; what takes long tells how far it is, and can be cancelled by
        an error that `report` raises.

        Raises UserError as the process there does, and Unreachable.
        """
        from ray.exceptions import GetTimeoutError

        ticket = token_hex(8)
        look_s = _LOOK_S if report else _PATIENCE_S
        try:
            sent = self.actor.answer.options(num_returns=n_pieces).remote(
                ticket, n_pieces, what, asked
            )
            while True:
                try:
                    pieces = self.ray.get(sent, timeout=look_s)
                    break
                except GetTimeoutError:
                    told: Told = self.ray.get(self.actor.told.remote(ticket), timeout=_PATIENCE_S)
                if report:
                    self._tell(report, told, ticket)
        except _failures() as error:
            line = str(error).strip().partition("\n")[0].rstrip(".")
            raise Unreachable(
                f"The cluster {self.where} does not answer: {line}. {_NEXT}"
            ) from error
        # What is read comes from a machine that may run anything here as well.
        answer: Answer = pickle.loads(b"".join(pieces) if n_pieces > 1 else pieces)
        if answer.outcome is not Outcome.answered:
            raise UserError(answer.value)
        return answer.value

    def ping(self) -> None:
        """An empty message there and back."""
        # Ray Client asks, in another message, how many values there are, unless it is told.
        self.ray.get(self.actor.told.options(num_returns=1).remote(""))

    def end(self) -> None:
        """End the process there, and leave the cluster."""
        with suppress(Exception):  # it may be gone
            self.ray.kill(self.actor)
        leave(self.ray)

    def _tell(self, report: Report, told: Told, ticket: str) -> None:
        try:
            report(*told)
        except BaseException:
            self.actor.cancel.remote(ticket)
            raise


def begin(where: Cluster, kind: type, given: Placement, report: Report) -> Host:
    """Begin such a process there, and give it that, once the versions of both sides are found to be
    the same.

    Raises UserError where there is no Ray or no such cluster, and where versions differ.
    """
    report(f"Joining {where}", 0.1)
    ray = join(where)
    try:
        report(f"Comparing versions with {where}", 0.3)
        node = _with_most_gpus(ray)
        _compare(_versions_there(ray, node), where)
        report(f"Beginning a process on {where}", 0.6)
        options = _options(node) | {"max_concurrency": _AT_ONCE}
        return Host(ray, ray.remote(kind).options(**options).remote(given), where)
    except BaseException:
        leave(ray)
        raise


def _with_most_gpus(ray: Any) -> Mapping[str, Any]:
    """The machine that has most; of such the first one, at which the cluster was begun."""

    def rank(node: Mapping[str, Any]) -> tuple[float, ...]:
        has = node["Resources"]
        return tuple(has.get(kind, 0) for kind in ("GPU", "node:__internal_head__", "CPU"))

    found: Mapping[str, Any] = max((each for each in ray.nodes() if each["Alive"]), key=rank)
    return found


def _options(node: Mapping[str, Any]) -> dict[str, Any]:
    """On that machine, with all of its GPUs in sight and none of them taken from long work."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    n_threads = max(1, int(node["Resources"].get("CPU", 1)))
    variables = {"OMP_NUM_THREADS": str(n_threads), "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    return {
        "num_cpus": 0,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
        "runtime_env": {"env_vars": variables},
    }


def _versions_there(ray: Any, node: Mapping[str, Any]) -> Mapping[str, str]:
    def asked() -> Any:  # goes there as it is, and asks what is there
        from backend.cluster.versions import versions

        return versions()

    from ray.exceptions import RayError

    try:
        found: Mapping[str, str] = ray.get(ray.remote(asked).options(**_options(node)).remote())
    except RayError as error:
        line = str(error).strip().rpartition("\n")[2]
        raise UserError(
            f"The machines of the cluster do not find this tool ({line}). Start Ray there in its "
            "folder, with its packages."
        ) from error
    return found


def _compare(there: Mapping[str, str], where: Cluster) -> None:
    if other := difference(versions(), there):
        raise UserError(
            f"The cluster {where} is not like this computer: {other}. Install the same on both, "
            "start Ray there again, and ask again."
        )


def _failures() -> tuple[type[Exception], ...]:
    """What Ray raises when a process or a cluster is gone."""
    from ray.exceptions import RayError

    return RayError, ConnectionError
