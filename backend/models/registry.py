"""Which models are known by a name: the bundled ones, the paper's, and those added here (no torch).

Models added here live in `cache/local/models.toml`, which may also be written by hand. What is
wrong in it is told, and everything else in it still works.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from backend.core.errors import UserError
from backend.core.files import LOCAL, MB, Absent, Unreadable, is_file, read_text, write_atomically
from backend.core.names import is_hub_name, plain_name
from backend.core.read_only import check_allowed
from backend.models import elsewhere
from backend.models.adapter_kinds import adapter_config
from backend.models.model_files import (
    ADAPTER_CONFIG,
    CONFIG,
    is_adapter,
    is_folder,
    read_object,
    what_else,
)

BUNDLED = Path(__file__).parents[1] / "bundled" / "weights"
ADAPTERS = BUNDLED.parent.resolve() / "adapters"
"""On the real model of `backend.models.real_model`, which adds them with it."""
PAPER = Path(__file__).parent / "registry.toml"
ADDED = LOCAL / "models.toml"
_FIELDS = ("source", "adapter", "label", "finetuned_on")
_LONGEST = 500
_LONGEST_FILE = MB


class Kind(Enum):
    """Where the registry knows a model from."""

    bundled = "bundled with this tool"
    paper = "the paper’s"
    added = "added here"
    typed = "typed: a folder or a hub name"
    remote = "on the cluster, and not here"


@dataclass(frozen=True)
class Entry:
    """A model and where its weights come from.

    source: a folder or a hub name; adapter: likewise, of a PEFT adapter on the source. The source
    of a typed name may itself be an adapter, which names its base.
    """

    name: str
    label: str
    source: Path | str
    adapter: Path | str | None = None
    finetuned_on: str = "not known"
    paper_counterpart: str = ""
    kind: Kind = Kind.typed


@dataclass(frozen=True)
class Added:
    """The models added here, and what in their file could not be used."""

    entries: Mapping[str, Entry]
    complaint: str | None = None


def models() -> dict[str, Entry]:
    """Every model that is known by a name: bundled, the paper's, added here, or on a cluster."""
    there = {name: each.entry for name, each in elsewhere.known().items()}
    return models_here() | there


def models_here() -> dict[str, Entry]:
    """Those that this computer knows itself: bundled, the paper's, added here."""
    return {**bundled(), **paper(), **added().entries}


def entry(name: str) -> Entry:
    """The model of this name; a folder or a hub name stands for itself.

    Raises UserError for anything else, before it can become a path or a request.
    """
    known = models()
    if name in known:
        return known[name]
    check_allowed("A model that is not on the Models page")
    return Entry(name, name, place(name))


def place(text: str) -> Path | str:
    """A folder that holds a model or an adapter as a path, a hub name as it is.

    Raises UserError for anything else.
    """
    folder = _folder(text)
    if any(is_file(folder / config) for config in (CONFIG, ADAPTER_CONFIG)):
        return folder.resolve()
    held = what_else(folder) if is_folder(folder) or is_file(folder) else ""
    if is_hub_name(text) and not held:
        return text
    raise UserError(
        f"There is no model “{text[:_LONGEST]}”. {held}{' ' if held else ''}Choose one of "
        f"{', '.join(models())}, or give the folder of a Hugging Face model (it holds config.json "
        "and safetensors) or a hub name such as owner/name."
    )


def base_of(adapter: Path) -> Path | str:
    """Where the base of an adapter is, as it says; one named like a folder beside it is that one.

    Raises UserError when it does not say, when there is no such place, and when there is another
    adapter.
    """
    name = read_object(adapter / ADAPTER_CONFIG).get("base_model_name_or_path")
    with_base = (
        f"Add it with the model that it was trained on: `python -m backend add NAME BASE --adapter "
        f"{adapter}`, or on the Models page."
    )
    if not isinstance(name, str) or not name:
        raise UserError(f"The adapter {adapter} does not name its base. {with_base}")
    beside = adapter.parent / Path(name).name
    if is_folder(beside) and beside != adapter:
        found: Path | str = beside
    else:
        try:
            found = place(name)
        except UserError as error:
            raise UserError(
                f"The adapter {adapter} names “{name[:_LONGEST]}” as its base, and that is not on "
                f"this machine. {with_base}"
            ) from error
    if isinstance(found, Path) and is_adapter(found):
        raise UserError(f"The adapter {adapter} names another adapter as its base. {with_base}")
    return found


@cache
def bundled() -> dict[str, Entry]:
    """The bundled models as their cards describe them, the base first."""
    names = sorted((path.parent.name for path in BUNDLED.glob("*/card.json")), key=_base_first)
    return {name: _bundled(name) for name in names}


@cache
def paper() -> dict[str, Entry]:
    """The paper's models."""
    tables = tomllib.loads(PAPER.read_text(encoding="utf-8"))
    entries = [_read(name, table) for name, table in tables.items()]
    return {e.name: replace(e, kind=Kind.paper, paper_counterpart=e.label) for e in entries}


def added() -> Added:
    """The models added here; read again when their file has changed."""
    try:
        about = ADDED.stat()
    except OSError:
        return Added({})
    return _read_added(ADDED, about.st_mtime_ns, about.st_size)


def add(
    name: str, source: str, adapter: str = "", finetuned_on: str = "", label: str = ""
) -> Entry:
    """Add a model under a plain name, and return it.

    Raises UserError for a name that is taken or not plain, for a source that is neither a folder
    of a model nor a hub name, for an adapter that does not lead to its base or is of a kind that
    the engine cannot work with, and when the file of added models cannot be read or written.
    """
    check_allowed("To add a model")
    check_is_free(name)
    if complaint := added().complaint:
        raise UserError(complaint)
    given = {"source": source, "adapter": adapter, "label": label, "finetuned_on": finetuned_on}
    table = {field: text.strip() for field, text in given.items() if text.strip()}
    for field in ("source", "adapter"):
        if isinstance(found := place(table[field]) if field in table else None, Path):
            table[field] = str(found)
    new = _read(name, table)
    for folder in (new.source, new.adapter):
        if isinstance(folder, Path) and is_adapter(folder):
            adapter_config(folder)
    if isinstance(new.source, Path) and is_adapter(new.source) and not new.adapter:
        base_of(new.source)
    lines = [f"{field} = {json.dumps(text, ensure_ascii=False)}" for field, text in table.items()]
    _write("\n".join([*([before] if (before := _text()) else []), f"[{name}]", *lines, ""]))
    elsewhere.forget(name)
    return new


def check_is_free(name: str) -> None:
    """Raise UserError for a name that is taken or not plain."""
    if plain_name(name) in models_here():
        raise UserError(f"There is a model “{name}” already. Choose another name.")


def remove(name: str) -> None:
    """Forget a model that was added here; its files stay.

    Raises UserError when it was not added, or when its file cannot be read or written.
    """
    check_allowed("To remove a model")
    if name not in added().entries:
        raise UserError(f"“{name}” was not added here. Choose a model that was.")
    # By tables, so that what a user wrote around them stays.
    tables = re.split(r"(?m)^(?=[ \t]*\[)", _text())
    header = re.compile(rf"""[ \t]*\[[ \t]*["']?{re.escape(name)}["']?[ \t]*\]""")
    _write("".join(table for table in tables if not header.match(table)))
    if name in added().entries:
        raise UserError(f"“{name}” could not be taken out of {ADDED}. Delete it there by hand.")


@lru_cache(maxsize=4)
def _read_added(path: Path, _: int, __: int) -> Added:
    try:
        tables = tomllib.loads(read_text(path, _LONGEST_FILE))
    except Unreadable as error:
        return Added({}, str(error))
    except (ValueError, RecursionError) as error:
        return Added({}, f"{path} cannot be read: {error}. Mend it or delete it.")
    entries, wrong = {}, []
    for name, table in tables.items():
        try:
            if name in bundled() or name in paper():
                raise UserError(f"“{name}” is the name of another model. Choose another name.")
            entries[name] = _read(name, table)
        except UserError as error:
            wrong.append(str(error))
    complaint = f"In {path}: {' '.join(wrong)}" if wrong else None
    return Added(entries, complaint)


def _read(name: str, table: Any) -> Entry:
    """An entry as the files have it; a folder need not be there yet, or any more."""
    plain_name(name)
    if not isinstance(table, dict) or "source" not in table:
        raise UserError(f'The model “{name}” has no source. Write source = "owner/name".')
    for field, text in table.items():
        if field not in _FIELDS:
            raise UserError(f"“{name}” has an unknown field “{field}”. Use {', '.join(_FIELDS)}.")
        if not isinstance(text, str) or not text.isprintable() or not 0 < len(text) <= _LONGEST:
            raise UserError(f"The field “{field}” of “{name}” must be a line of text. Mend it.")
    return Entry(
        name,
        table.get("label", name),
        _place_of(name, table["source"]),
        _place_of(name, table["adapter"]) if "adapter" in table else None,
        table.get("finetuned_on", "not known"),
        kind=Kind.added,
    )


def _place_of(name: str, text: str) -> Path | str:
    if (folder := _folder(text)).is_absolute():
        return folder
    if is_hub_name(text):
        return text
    raise UserError(
        f"“{text}”, of “{name}”, is neither a hub name such as owner/name nor the whole path of a "
        "folder. Mend it."
    )


def _folder(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:  # the home of a user that there is not
        return Path(text)


def _bundled(name: str) -> Entry:
    folder = BUNDLED / name
    card = read_object(folder / "card.json")
    has_base = is_adapter(folder)
    base = base_of(folder) if has_base else folder
    return Entry(
        name,
        card["label"],
        base,
        folder if has_base else None,
        card["finetuned_on"],
        card["paper_counterpart"],
        Kind.bundled,
    )


def _base_first(name: str) -> tuple[bool, str]:
    return name != "base", name


def _text() -> str:
    try:
        return read_text(ADDED, _LONGEST_FILE)
    except Absent:
        return ""


def _write(text: str) -> None:
    try:
        write_atomically(ADDED, text)
    except OSError as error:
        raise UserError(
            f"{ADDED} cannot be written ({error.strerror}). Make room or rights there."
        ) from error
