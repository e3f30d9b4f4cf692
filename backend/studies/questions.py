"""What a process on a cluster is asked about its models, and may be asked: nothing else.

Importing this module imports torch. Models are asked about as what they are, by the hashes of their
files: one that has changed is another model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from backend.core.errors import UserError
from backend.core.heads import ModelShape
from backend.core.progress import Report
from backend.core.serialize import from_json
from backend.core.statistics import Estimate
from backend.engine.answers import Answers
from backend.engine.attention import AttentionMass
from backend.models import loaded_models, registry
from backend.models.elsewhere import Elsewhere
from backend.models.fingerprints import Fingerprint, tokenizer_files
from backend.models.loading import LoadedModel, find
from backend.models.model_config import blueprint
from backend.models.model_files import CONFIG
from backend.models.prepared import get
from backend.studies import session as sessions
from backend.studies.patterns import Patterns, patterns
from backend.studies.remote import is_here
from backend.studies.session import LocalSession
from backend.tasks.prompts import Prompts
from backend.tasks.setting import Intervention, Mode, Reading, Setting


@dataclass(frozen=True)
class Loaded:
    """A model that is loaded there: its shape, the files of its tokenizer, by their names, and what
    is to be known of it."""

    shape: ModelShape
    tokenizer: Mapping[str, bytes]
    about_files: tuple[str, ...]


@dataclass(frozen=True)
class Prepared:
    """What a prepared session has that is small; prompts: a digest of them."""

    prompts: str
    whole: Answers
    attention: AttentionMass
    n_reference: int


@dataclass(frozen=True)
class Changed:
    """Instead of an answer: the files of the model are others by now."""

    model: Elsewhere


def _models(report: Report) -> tuple[Elsewhere, ...]:
    """Those whose files are there."""
    names = [name for name in registry.models() if is_here(name)]
    found = []
    for place, name in enumerate(names):
        report(f"Reading the files of {name}", place / len(names))
        found.append(_elsewhere(name))
    return tuple(found)


def _load(report: Report, name: str, files: Fingerprint) -> Loaded | Changed:
    loaded = loaded_models.load(name, told=report)
    if not _is(loaded, files):
        return Changed(_elsewhere(name))
    folder, _ = find(name)
    needed = [*tokenizer_files(folder), folder / CONFIG]
    return Loaded(
        loaded.shape,
        {path.name: path.read_bytes() for path in needed},
        loaded.about_files,
    )


def _unload(report: Report, name: str) -> None:
    loaded_models.unload(name)


def _prepare(report: Report, model: str, files: Fingerprint, prompts: Any) -> Prepared | Changed:
    session = _session(report, model, prompts)
    if not _is(session.loaded, files):
        return Changed(_elsewhere(model))
    return Prepared(session.prompts.digest, session.whole, session.attention, session.n_reference)


def _about(
    report: Report, model: str, files: Fingerprint, prompts: Any, what: str, *asked: Any
) -> Any:
    """What `_OF_SESSIONS` answers about a prepared session, which is prepared again if need be."""
    session = _session(report, model, prompts)
    if not _is(session.loaded, files):
        return Changed(_elsewhere(model))
    return _OF_SESSIONS[what](session, *asked)


def _patterns(
    report: Report,
    model: str,
    files: Fingerprint,
    prompts: Any,
    number: int,
    switched: Intervention | None,
) -> Patterns | Changed:
    if not _is(loaded_models.load(model, told=report), files):
        return Changed(_elsewhere(model))
    return patterns(model, _known(prompts), number, switched)


def _answers(session: LocalSession, step: Intervention) -> tuple[Answers, ...]:
    return sessions.read(session, step)


def _source(session: LocalSession, source: str, files: Fingerprint | None) -> None:
    there = loaded_models.fingerprint_of(source)
    if files and there and replace(there, precision=files.precision) != files:
        raise UserError(
            f"“{source}” is not the same model on the cluster. Copy its files there, or choose "
            "another source."
        )
    sessions.source_values(session, source)


def _alternate(session: LocalSession, desideratum: str) -> None:
    sessions.alternate(session, desideratum)


def _mode(session: LocalSession, reading: Reading, mode: Mode) -> None:
    sessions.prepare_mode(session, reading, mode)


def _contributions(session: LocalSession) -> tuple[tuple[Estimate, ...], ...]:
    return sessions.head_contributions(session)


QUESTIONS: Mapping[str, Callable[..., Any]] = {
    "models": _models,
    "load": _load,
    "unload": _unload,
    "prepare": _prepare,
    "about": _about,
    "patterns": _patterns,
}
_OF_SESSIONS: Mapping[str, Callable[..., Any]] = {
    "answers": _answers,
    "source": _source,
    "alternate": _alternate,
    "mode": _mode,
    "contributions": _contributions,
}


def _session(report: Report, model: str, prompts: Any) -> LocalSession:
    setting = Setting(model, _known(prompts))
    session: LocalSession | None = get(setting)
    if session and loaded_models.is_current(session.loaded):
        return session
    return sessions.prepare_here(setting, report)


def _known(prompts: Any) -> Prompts:
    try:
        found: Prompts = from_json(Prompts, prompts)
    except UserError as error:
        raise UserError(
            f"The cluster cannot ask these prompts: {error} Copy the file of the task or of the "
            "prompts there, as it is here, or choose another task."
        ) from error
    return found


def _is(loaded: LoadedModel, files: Fingerprint) -> bool:
    """Whether a loaded model is what was asked about, in whichever precision."""
    return loaded.files is not None and replace(loaded.files, precision=files.precision) == files


def _elsewhere(name: str) -> Elsewhere:
    entry, files = registry.entry(name), loaded_models.fingerprint_of(name)
    if files is None:
        raise UserError(f"The files of “{name}” are gone. Put them there again.")
    return Elsewhere(replace(entry, kind=registry.Kind.remote), files, blueprint(entry))
