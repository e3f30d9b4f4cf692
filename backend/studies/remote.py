"""Models on a cluster, from here: which there are, and what is asked about them (no torch).

One process there (`backend.studies.model_host`) answers; it begins when it is first needed.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from backend.cluster import host as hosts
from backend.cluster.host import Host, Unreachable
from backend.cluster.where import Cluster
from backend.core.errors import UserError
from backend.core.placement import AUTO
from backend.core.progress import Report
from backend.core.serialize import to_json
from backend.models import catalogue, elsewhere, fingerprints, loaded_models
from backend.models.elsewhere import Elsewhere, RemoteModel
from backend.studies.model_host import ModelHost
from backend.tasks.prompts import Prompts
from backend.tasks.setting import Intervention, Setting

if TYPE_CHECKING:
    from collections.abc import Mapping

    from backend.studies.patterns import Patterns
    from backend.studies.questions import Loaded, Prepared

_host: Host | None = None
_where: Cluster | None = None
_asked: Cluster | None = None
_beginning = threading.Lock()
_changing = threading.Lock()


def is_remote(model: str) -> bool:
    """Whether a model is on the cluster that was asked, and not here."""
    return model in elsewhere.known()


def is_here(name: str) -> bool:
    """Whether there is a model of this name, and all of its files are on this computer."""
    try:
        return fingerprints.is_here(name)
    except (UserError, OSError):
        return False


def ask_for_models(where: Cluster, report: Report) -> tuple[str, ...]:
    """Ask a cluster for its models; those that are not here are known from now on, by name.

    Raises UserError where there is no Ray or no such cluster, and where versions differ.
    """
    global _where, _asked
    leave()
    _where = where
    found: tuple[Elsewhere, ...] = _ask("models", report=report)
    only_there = [each for each in found if not is_here(each.entry.name)]
    elsewhere.take(only_there)
    _asked = where
    return tuple(each.entry.name for each in only_there)


def asked() -> Cluster | None:
    """The cluster whose models are known."""
    return _asked


def leave() -> None:
    """End the process there; models that are only there are not known any more."""
    global _where, _asked
    elsewhere.take(())
    with _changing:
        _where = _asked = None
    _let_go()


def tokenizer_of(model: str, report: Report) -> Any:
    """The tokenizer of a model, which is loaded here or there; raises UserError as `load` does."""
    if is_remote(model):
        return load(model, report).tokenizer
    return loaded_models.load(model).tokenizer


def load(name: str, report: Report) -> RemoteModel:
    """A model, loaded there unless it is; its tokenizer is made here of the same files.

    Raises UserError like `loaded_models.load`, and where the cluster does not answer.
    """
    if known := elsewhere.loaded(name):
        return known
    report(f"Loading {catalogue.label(name)} on {_where}", 0.05)
    there = elsewhere.known()[name]
    found: Loaded = _about(name, "load", report=report)
    model = RemoteModel(name, found.shape, _tokenizer(found.tokenizer), there, found.about_files)
    elsewhere.keep(model)
    return model


def unload(name: str) -> None:
    """Let go of a model there."""
    _ask("unload", name)
    elsewhere.put(replace(elsewhere.known()[name]))


def prepare(setting: Setting, report: Report) -> Prepared:
    """A session on these prompts, prepared there; raises UserError as `load` does."""
    found: Prepared = _about(setting.model, "prepare", to_json(setting.prompts), report=report)
    return found


def ask(setting: Setting, what: str, *asked: Any, n_pieces: int = 1) -> Any:
    """One question about a session that was prepared there; raises UserError as `load` does."""
    return _about(setting.model, "about", to_json(setting.prompts), what, *asked, n_pieces=n_pieces)


def ping() -> None:
    """An empty message there and back."""
    _begun(None).ping()


def patterns(model: str, prompts: Prompts, number: int, switched: Intervention | None) -> Patterns:
    """As `backend.studies.patterns.patterns`; raises UserError as `load` does."""
    found: Patterns = _about(model, "patterns", to_json(prompts), number, switched)
    return found


def _about(
    model: str, what: str, *asked: Any, n_pieces: int = 1, report: Report | None = None
) -> Any:
    from backend.studies.questions import Changed

    there = elsewhere.known().get(model)
    if there is None:
        raise Unreachable(
            f"“{model}” was on a cluster that is not asked any more. Choose the cluster again on "
            "the Models page, or another model."
        )
    found = _ask(what, model, there.files, *asked, n_pieces=n_pieces, report=report)
    if isinstance(found, Changed):
        elsewhere.put(found.model)
        raise Unreachable(f"The files of “{model}” have changed on the cluster. Try again.")
    return found


def _ask(what: str, *asked: Any, n_pieces: int = 1, report: Report | None = None) -> Any:
    try:
        return _begun(report).ask(what, *asked, n_pieces=n_pieces, report=report)
    except Unreachable:
        # What was prepared there is out of date here; the models may be reached again.
        elsewhere.take(map(replace, elsewhere.known().values()))
        _let_go()
        raise


def _begun(report: Report | None) -> Host:
    global _host
    if known := _host:
        return known
    with _beginning:
        if known := _host:
            return known
        if not (where := _where):
            raise Unreachable("No cluster is asked any more. Choose one on the Models page.")
        placement = replace(loaded_models.usual(), device=AUTO)
        try:
            begun = hosts.begin(where, ModelHost, placement, report or _untold)
        except UserError as error:
            raise Unreachable(str(error)) from error
        with _changing:
            if where == _where:
                _host = begun
                return begun
    begun.end()  # another cluster was chosen meanwhile, which did not wait for this one
    raise Unreachable(f"The cluster {where} is not asked any more. Try again.")


def _let_go() -> None:
    global _host
    with _changing:
        left, _host = _host, None
    if left:
        left.end()


def _tokenizer(files: Mapping[str, bytes]) -> Any:
    from backend.models.loading import tokenizer_in

    with TemporaryDirectory() as folder:
        for name, data in files.items():
            (Path(folder) / Path(name).name).write_bytes(data)
        return tokenizer_in(Path(folder))


def _untold(stage: str, share: float) -> None:
    """Progress that nobody asked about."""
