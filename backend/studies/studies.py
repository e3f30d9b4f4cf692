"""Studies: what is asked yields its parts, each kept in the store once it is finished.

What is stored already is not computed again, neither by a page nor by the command line, and a study
that was cut off goes on after its last finished part, from what the next one kept
(`backend.engine.checkpoints`).
Importing this module imports no torch.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from time import monotonic
from typing import Any

from backend.cluster import crew, keeping
from backend.cluster.where import VARIABLE, Cluster, cluster
from backend.core.errors import UserError
from backend.core.kept import Folder
from backend.core.progress import Report, cost_of
from backend.core.read_only import check_allowed
from backend.core.serialize import from_json, to_json
from backend.methods.registry import METHODS, method_of, n_parts, plan_of, title_of
from backend.methods.requests import Request, circuit_of, models_of
from backend.models import loaded_models
from backend.studies import remote, store
from backend.studies.device_locks import turn
from backend.studies.keys import identity, key_of, marks_of, ran_as

Marks = tuple[store.ModelMark, ...] | None
"""What the models of a request are; None while their files are not all here."""
_log = logging.getLogger(__name__)
_cluster: Cluster | None = None


@dataclass(frozen=True)
class Stored:
    """What the store has of a request, in the request's own names for models and circuit."""

    request: Request
    parts: tuple[Any, ...]
    entry: store.Entry


def run(request: Request, report: Report) -> Iterator[Any]:
    """Yield the parts of a study: those that are stored, then the rest, stored as they come.

    Raises UserError for what cannot be measured; the parts before it are kept.
    """
    stored = find(request)
    parts = stored.parts if stored else ()
    yield from parts
    if len(parts) == n_parts(request):
        return
    with turn(devices_of(models_of(request)), title_of(request), report) as told:
        yield from _rest(request, len(parts), told)


def _rest(request: Request, n_yielded: int, report: Report) -> Iterator[Any]:
    """The parts after the first few; others may have stored some more of them meanwhile."""
    loaded_models.renew(models_of(request))
    marks = marks_of(request, patiently=True)
    stored = _found(request, marks)
    parts = stored.parts if stored else ()
    yield from parts[n_yielded:]
    before = stored.entry.header.seconds if stored else 0.0
    started = monotonic()
    if len(parts) < n_parts(request):
        for part in _work(request, parts, report):
            parts = (*parts, part)
            marks = marks or marks_of(request, patiently=True)
            if not ran_as(marks or ()):
                raise UserError(
                    "A model was loaded anew, from other files or in other numbers, while it was "
                    "measured. Start again."
                )
            _keep(request, marks, parts, before + monotonic() - started)
            yield part


def work_on(where: Cluster | None) -> None:
    """Let the processes of a cluster do the work from now on; None for what the environment says,
    `CIRCUIT_EXPLORER_RAY`, or else for this process. Raises Refused for a change in a read-only
    dashboard."""
    global _cluster
    if where != _cluster:
        check_allowed("To change where long work runs")
        remote.leave()
        keeping.let_go()
    _cluster = where


def chosen_cluster() -> Cluster | None:
    """What was last said to `work_on`."""
    return _cluster


def where_work_is() -> Cluster | None:
    """The cluster that does the work; raises UserError if the environment says none that can be."""
    text = os.environ.get(VARIABLE, "")
    return _cluster or (cluster(text) if text else None)


def devices_of(models: Collection[str]) -> frozenset[str]:
    """The processors of this computer that long work on these models needs for itself.

    Raises UserError when one is not there.
    """
    where = where_work_is()
    if where and where.address:
        return frozenset()
    return loaded_models.devices_of(models)


def _work(request: Request, parts: tuple[Any, ...], report: Report) -> Iterator[Any]:
    kept_in = partial(unfinished, request)
    where = where_work_is()
    for name in models_of(request):
        if remote.is_remote(name) and not (where and where.address):
            raise UserError(
                f"“{name}” is on a cluster, and long work does not run there. Choose the cluster "
                "on the Models page, or another model."
            )
    if where:
        return crew.work(request, parts, report, kept_in, loaded_models.usual().device, where)
    return method_of(request).work(request, parts, report, kept_in)


def find(request: Request, patiently: bool = True) -> Stored | None:
    """What the store has of this request; None as well while a model's files are not all here.

    Unless asked `patiently`, None when gigabytes would have to be read to know.
    """
    return _found(request, marks_of(request, patiently))


def _found(request: Request, marks: Marks) -> Stored | None:
    entry = store.find(key_of(request, marks)) if marks else None
    if not entry:
        return None
    try:
        return replace(read(entry), request=request, parts=_parts(entry, request))
    except UserError as error:
        store.distrust(entry, str(error))
        return None


def unfinished(request: Request, part: int) -> Folder | None:
    """Where a part keeps what is finished of it; None while it is not known what the models are.

    None as well when they are not what is on disk any more.
    """
    marks = marks_of(request, patiently=False)
    if not marks or not ran_as(marks):
        return None
    return Folder(store.unfinished(key_of(request, marks)) / str(part))


def is_begun(request: Request) -> bool:
    """Whether something is kept of a part that is not finished."""
    key = identity(request)
    return key is not None and store.has_unfinished(key)


def pace_of(method: str, models: Collection[str]) -> float | None:
    """Seconds for each unit of cost in the latest study of this kind here; None if there is none.

    What came with this tool was measured elsewhere, and says nothing.
    """
    for entry in store.entries():
        header = entry.header
        known = {mark.name for mark in header.models}
        if entry.is_shipped or header.method != method or not known >= {*models}:
            continue
        with suppress(UserError):
            plan = plan_of(from_json(METHODS[method].request, header.request))[: len(entry.parts)]
            if cost_of(plan) and header.seconds:
                return header.seconds / cost_of(plan)
    return None


def read(entry: store.Entry) -> Stored:
    """What an entry is of, also of models that are not on this machine.

    Raises UserError when it does not hold what its header says, or is of an earlier version and in
    another form.
    """
    try:
        return _read(entry)
    except UserError as error:
        if entry.header.engine == store.ENGINE:
            raise
        raise UserError(
            "It was measured with an earlier version of this tool, in another form, and stays in "
            "its file. Measure it again."
        ) from error


def _read(entry: store.Entry) -> Stored:
    method = METHODS.get(entry.header.method)
    if method is None:
        raise UserError(f"There is no method “{entry.header.method}”. Update this tool.")
    request: Request = from_json(method.request, entry.header.request)
    names = tuple(mark.name for mark in entry.header.models)
    if names != models_of(request):
        raise UserError("Its models are not those of its request. Compute it again.")
    return Stored(request, _parts(entry, request), entry)


def as_data(request: Request, parts: tuple[Any, ...]) -> dict[str, Any]:
    """A result as its file in the store has it, be it stored or not."""
    stored = find(request)
    if stored and len(stored.parts) >= len(parts):
        return store.as_data(stored.entry.header, stored.entry.parts)
    marks = marks_of(request, patiently=True)
    header = _header(request, marks, 0.0) if ran_as(marks or ()) else None
    return store.as_data(header, to_json(parts)) if header else {"parts": to_json(parts)}


def _keep(request: Request, marks: Marks, parts: tuple[Any, ...], seconds: float) -> None:
    """Store the parts as what really ran; a result that cannot be written is still a result."""
    header = _header(request, marks, seconds)
    if not header:
        _log.warning("The result is not kept: the files of its models are no longer all there.")
        return
    try:
        store.write(header, to_json(parts))
    except OSError as error:
        _log.warning("The result cannot be kept in %s (%s).", store.RESULTS, error.strerror)
    else:
        store.forget_unfinished(header.key)


def _header(request: Request, marks: Marks, seconds: float) -> store.Header | None:
    if not marks:
        return None
    key, name = key_of(request, marks), method_of(request).name
    return store.new_header(key, name, marks, to_json(request), n_parts(request), seconds)


def _parts(entry: store.Entry, request: Request) -> tuple[Any, ...]:
    """The parts of an entry, checked, with the request's names in place of the entry's."""
    method = METHODS[entry.header.method]
    kinds = method.parts(request)
    if len(kinds) != entry.header.n_parts:
        raise UserError("It has another number of parts than its request. Compute it again.")
    names = dict(zip((m.name for m in entry.header.models), models_of(request), strict=True))
    circuit = circuit_of(request)
    try:
        return tuple(
            method.named(from_json(kind, data), names, circuit.name if circuit else "")
            for kind, data in zip(kinds, entry.parts, strict=False)
        )
    except KeyError as error:
        raise UserError(f"It is about another model, {error}. Compute it again.") from error
