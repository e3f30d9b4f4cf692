"""Folders that were made of GGUF files: where they are, and what they were made of (no torch)."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from backend.core.errors import UserError
from backend.core.files import LOCAL, is_file
from backend.models.model_files import INDEX, WEIGHTS, is_adapter, is_folder, read_object

MADE = LOCAL / "models"
_ORIGIN = "gguf.json"
_ENDING = ".gguf"


@dataclass(frozen=True)
class Origin:
    """The GGUF file that a folder was made of.

    sha256: of its content; quantisation: the types of its tensors, as “Q4_1 and Q8_0”.
    """

    file: str
    sha256: str
    quantisation: str

    def __str__(self) -> str:
        return f"{self.quantisation}, made float32"


def gguf_at(place: str) -> Path | None:
    """The GGUF file that a path names, or the only one in a folder without other weights.

    Raises UserError when the folder holds several.
    """
    if not place.strip():
        return None
    try:
        path = Path(place.strip()).expanduser()
    except RuntimeError:  # the home of a user that there is not
        return None
    if path.suffix == _ENDING and is_file(path):
        return path.resolve()
    has_weights = is_adapter(path) or is_file(path / WEIGHTS) or is_file(path / INDEX)
    if has_weights or not is_folder(path):
        return None
    held = sorted(each for each in path.glob(f"*{_ENDING}") if is_file(each))
    if len(held) > 1:
        raise UserError(
            f"{path} holds {len(held)} GGUF files. Give the path of one, such as {held[0]}."
        )
    return held[0].resolve() if held else None


def folder_for(file: Path, sha256: str) -> Path:
    """Where the folder is made of a GGUF file with this content: one for each content."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", file.stem).strip(".-")[:64]
    return MADE / f"{stem or 'model'}-{sha256[:12]}"


def write_origin(folder: Path, origin: Origin) -> None:
    """Note in a folder what it was made of; raises OSError."""
    (folder / _ORIGIN).write_text(json.dumps(asdict(origin), indent=2) + "\n", encoding="utf-8")


def note_of(folder: Path) -> str:
    """What is to be known of a folder that was made of a GGUF file; empty for any other."""
    origin = origin_of(folder)
    return f"Its weights are those of {origin.file} ({origin})." if origin else ""


def origin_of(place: Path | str) -> Origin | None:
    """What a folder was made of; None for any other place."""
    if not isinstance(place, Path) or not is_file(place / _ORIGIN):
        return None
    try:
        match read_object(place / _ORIGIN):
            case {"file": str(file), "sha256": str(sha256), "quantisation": str(quantisation)}:
                return Origin(file, sha256, quantisation)
    except UserError:
        pass
    return None
