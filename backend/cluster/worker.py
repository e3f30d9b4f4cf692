"""A process of a crew: it runs the whole study, and makes the blocks of it that nobody else makes.

What is not in blocks, such as means over reference prompts, each makes for itself.
"""

from __future__ import annotations

import platform
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from time import monotonic, sleep
from typing import Any, NamedTuple

from backend.cluster.versions import difference, versions
from backend.core.errors import OutOfMemory, UserError
from backend.core.placement import Dtype, Placement
from backend.core.progress import Report
from backend.core.serialize import from_json, to_json
from backend.core.tidying import tidy_up

_LOOK_S = 0.05
_TELL_S = 0.2


class Anew(Exception):
    """Batches have another size now, as they did not fit into the memory of a process."""


class Outcome(Enum):
    """How a process ended that did not die."""

    finished = "finished"
    refused = "refused"
    """What is asked cannot be measured, or not here."""
    failed = "failed"


class End(NamedTuple):
    """How a process ended, what it says of that, and what is to be known of its models."""

    outcome: Outcome
    text: str = ""
    trace: str = ""
    notes: Mapping[str, tuple[str, ...]] = {}


class Like(NamedTuple):
    """What a model is to be: its fingerprint, empty where that is not known; and its numbers."""

    fingerprint: str
    dtype: Dtype
    tf32: bool


class Task(NamedTuple):
    """What a process is asked, as JSON: parts that are finished are given. And what it has to be
    like: versions by name, and its models by theirs."""

    method: str
    request: Any
    finished: Sequence[Any]
    versions: Mapping[str, str]
    models: Mapping[str, Like]


@dataclass(frozen=True)
class Shared:
    """A place on the board. board: its actor; place: what the names there begin with; n_changes:
    how often sizes of batches had changed when this process began."""

    board: Any
    worker: int
    n_changes: int
    place: str
    is_shared: bool = True

    def inside(self, name: str) -> Shared:
        """A place in the place."""
        return Shared(self.board, self.worker, self.n_changes, f"{self.place}{name}/")

    def names(self) -> Iterable[str]:
        """The blocks that are there."""
        return _ask(self.board.names, self.place)

    def read(self, name: str) -> bytes | None:
        """A block, if it is there."""
        return _ask(self.board.read, self.place + name)

    def write(self, name: str, data: bytes) -> None:
        """Put a block there."""
        _ask(self.board.write, self.place + name, data)

    def to_make(self, names: Sequence[str]) -> Iterator[str]:
        """Those that nobody else makes, until all are there; raises Anew."""
        whole = [self.place + name for name in names]
        while True:
            block, are_all_there, n_changes = _ask(self.board.take, whole, self.worker)
            if n_changes != self.n_changes:
                raise Anew
            if block is not None:
                yield block.removeprefix(self.place)
            elif are_all_there:
                return
            else:
                sleep(_LOOK_S)


class Worker:
    """The actor, which loads models onto this device."""

    def __init__(self, device: str) -> None:
        self._device = device

    def run(self, task: Task, board: Any, number: int) -> End:
        """Make the parts after those that are finished. number: of this process in its crew."""
        try:
            self._take(task.models)
            _check(task)
            while not _is_done(task, board, number):
                _let_go(task.models)  # what was kept is in batches of the size before
            notes = _notes(task)
        except UserError as error:
            return End(Outcome.refused, str(error))
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            return End(Outcome.failed, text, traceback.format_exc())
        finally:
            tidy_up()
        return End(Outcome.finished, notes=notes)

    def rounding(self, name: str, task: str) -> str:
        """What the numbers of a model that was at work here do to its scores in a task, by its
        name; empty where there is nothing to be said."""
        from backend.methods.noise import told
        from backend.models.loaded_models import loaded
        from backend.tasks.registry import task_named

        model = loaded().get(name)
        return told(model, task_named(task)) if model else ""

    def _take(self, models: Mapping[str, Like]) -> None:
        """Load models in these numbers from now on; of those that are there, keep only these."""
        from backend.models import loaded_models

        _let_go(loaded_models.loaded().keys() - models.keys())
        loaded_models.renew(models)
        loaded_models.place_by_default(
            Placement(self._device),
            {name: Placement(self._device, like.dtype, like.tf32) for name, like in models.items()},
        )


def _is_done(task: Task, board: Any, number: int) -> bool:
    """Work to the end; or until batches have to be smaller, here or elsewhere."""
    try:
        _work(task, board, number)
    except Anew:
        return False
    except OutOfMemory:
        if not _ask(board.shrink):
            raise
        return False
    return True


def _work(task: Task, board: Any, number: int) -> None:
    from backend.engine.memory import sizes_agreed
    from backend.methods.registry import METHODS

    method = METHODS[task.method]
    request = from_json(method.request, task.request)
    kinds = method.parts(request)
    parts = tuple(from_json(*each) for each in zip(kinds, task.finished, strict=False))
    n_changes = _ask(board.begin, number)

    def place_of(part: int) -> Shared:
        return Shared(board, number, n_changes, f"{part}/")

    def agree(what: str, size: int) -> int:
        agreed: int = _ask(board.agree, what, size)
        return agreed

    with sizes_agreed(agree):
        made = method.work(request, parts, _told(board), place_of)
        for place, part in enumerate(made, len(parts)):
            _ask(board.finish, place, to_json(part))


def _notes(task: Task) -> Mapping[str, tuple[str, ...]]:
    from backend.methods.registry import METHODS
    from backend.models.loaded_models import notes_of

    request = from_json(METHODS[task.method].request, task.request)
    return {name: notes_of(name, request.prompts.task) for name in task.models}


def _check(task: Task) -> None:
    """Raise UserError where something is not as with the process that asked."""
    from backend.methods.registry import METHODS
    from backend.models.loaded_models import fingerprint_of

    if other := difference(task.versions, versions()):
        raise UserError(
            f"The machine {platform.node()} is not like the one that asks: {other}. Install the "
            "same on both, and start again."
        )
    if task.method not in METHODS:
        raise UserError(
            f"The processes of the cluster do not know the method “{task.method}”, which was "
            "added from outside. Measure it without a cluster."
        )
    for name, like in task.models.items():
        if like.fingerprint and str(fingerprint_of(name)) != like.fingerprint:
            raise UserError(
                f"The model “{name}” is not the same on the machine {platform.node()}. Copy its "
                "files there, and start again."
            )


def _let_go(names: Iterable[str]) -> None:
    """Of models, and of all that was kept with them."""
    from backend.models import loaded_models

    for name in names:
        loaded_models.unload(name)


def _told(board: Any) -> Report:
    """What is done now is told at once, how far it is from time to time."""
    last, said = float("-inf"), ""

    def report(stage: str, share: float) -> None:
        nonlocal last, said
        if stage != said or monotonic() - last > _TELL_S:
            last, said = monotonic(), stage
            board.report.remote(stage, share)

    return report


def _ask(method: Any, *arguments: Any) -> Any:
    import ray

    return ray.get(method.remote(*arguments))
