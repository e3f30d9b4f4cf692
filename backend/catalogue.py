"""Which models and circuits there are, and what their names may be (no torch)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend.circuit import Circuit
from backend.errors import UserError

BUNDLED = Path(__file__).parent / "models"
SHIPPED_CIRCUIT = BUNDLED / "circuit.json"
ADDED_CIRCUITS = Path(__file__).parent.parent / "cache" / "local" / "circuits"
_PLAIN_NAME = re.compile(r"[\w-]{1,64}", re.ASCII)
_CONFIGS = ("config.json", "adapter_config.json")
_HUB_NAME = re.compile(r"[\w][\w.-]{0,95}/[\w][\w.-]{0,95}", re.ASCII)


@dataclass(frozen=True)
class Card:
    """What the card of a bundled model says about it."""

    name: str
    label: str
    finetuned_on: str
    paper_counterpart: str
    details: Mapping[str, Any]


def bundled_models() -> tuple[str, ...]:
    """Names of the bundled models, the base first."""
    folders = sorted(path.parent.name for path in BUNDLED.glob("*/card.json"))
    return tuple(sorted(folders, key=lambda name: name != "base"))


def card(name: str) -> Card | None:
    """The card of a bundled model; None for any other model."""
    if name not in bundled_models():
        return None
    details = json.loads((BUNDLED / name / "card.json").read_text())
    return Card(
        name, details["label"], details["finetuned_on"], details["paper_counterpart"], details
    )


def label(name: str) -> str:
    """What to call a model on screen."""
    known = card(name)
    return known.label if known else name


def resolve(name: str) -> Path | str:
    """A bundled name or a folder as a path, a hub name as it is.

    Raises UserError for anything else, before it can become a path or a request.
    """
    if name in bundled_models():
        return BUNDLED / name
    folder = Path(name).expanduser()
    if any((folder / config).is_file() for config in _CONFIGS):
        return folder.resolve()
    if _HUB_NAME.fullmatch(name) and ".." not in name:
        return name
    raise UserError(
        f"There is no model “{name}”. Choose one of {', '.join(bundled_models())}, or give the "
        "folder of a Hugging Face model (it holds config.json) or a hub name such as owner/name."
    )


def circuits() -> dict[str, Path]:
    """Circuit files by name: the one found in the bundled base, then those added here."""
    added = sorted(ADDED_CIRCUITS.glob("*.json"))
    return {"base": SHIPPED_CIRCUIT} | {path.stem: path for path in added}


def circuit(name: str) -> Circuit:
    """The circuit of this name; raises UserError for an unknown name or a malformed file."""
    known = circuits()
    if name not in known:
        raise UserError(
            f"There is no circuit “{name}”. Choose one of {', '.join(known)}, or add its file."
        )
    return read_circuit(known[name])


def read_circuit(path: Path) -> Circuit:
    """Read a circuit file; raises UserError when it is missing or malformed."""
    try:
        return Circuit.from_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"The circuit file {path} cannot be read ({error}). "
            "Choose a JSON file saved by this tool."
        ) from error


def plain_name(name: str) -> str:
    """The name, if it can be that of a file in every system; raises UserError otherwise."""
    if not _PLAIN_NAME.fullmatch(name):
        raise UserError(
            f"“{name}” cannot be used as a name. Choose another: up to 64 letters, digits, "
            "“-” and “_”."
        )
    return name


def circuit_name(name: str) -> str:
    """The name, if a circuit may be added under it; raises UserError otherwise."""
    if name == "base":
        raise UserError("“base” is the circuit that comes with this tool. Choose another name.")
    return plain_name(name)


def add_circuit(file_name: str, content: bytes) -> str:
    """Keep a circuit file in `cache/local/circuits`, checked, and return its name.

    Raises UserError for a name that is not plain and for a malformed file.
    """
    name = circuit_name(Path(file_name).stem)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError("This file is not text. Choose a JSON file saved by this tool.") from error
    checked = Circuit.from_json(text)
    path = ADDED_CIRCUITS / f"{name}.json"
    try:
        ADDED_CIRCUITS.mkdir(parents=True, exist_ok=True)
        path.write_text(checked.to_json(), encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"The circuit cannot be written to {path} ({error.strerror}). Make room or "
            "rights there."
        ) from error
    return name
