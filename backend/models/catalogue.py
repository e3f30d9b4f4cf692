"""Which models and circuits there are, and what to call them (no torch)."""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from backend.core.errors import UserError
from backend.core.files import LOCAL, MB, Absent, read, write_atomically
from backend.core.names import plain_name as plain_name
from backend.core.read_only import check_allowed
from backend.models import registry
from backend.models.registry import BUNDLED as BUNDLED
from backend.models.registry import Entry
from backend.tasks.circuit import Circuit
from backend.tasks.registry import known_tasks
from backend.tasks.task import Task

SHIPPED_CIRCUIT = BUNDLED / "circuit.json"
ADDED_CIRCUITS = LOCAL / "circuits"
MAX_CIRCUIT_MB = 32
"""With the scores of all heads, and the weights of 100,000 edges."""


def bundled_models() -> tuple[str, ...]:
    """Names of the bundled models, the base first."""
    return tuple(registry.bundled())


def models() -> tuple[str, ...]:
    """Names of all models that are known: bundled, the paper's, added here."""
    return tuple(registry.models())


def about(name: str) -> Entry | None:
    """What is known of a model; None for a folder or a hub name."""
    return registry.models().get(name)


def label(name: str) -> str:
    """What to call a model on screen."""
    known = about(name)
    return known.label if known else name


def circuits() -> dict[str, Path]:
    """Circuit files by name: the one found in the bundled base, then those added here."""
    added = {path.stem: path for path in sorted(ADDED_CIRCUITS.glob("*.json"))}
    return {
        "base": SHIPPED_CIRCUIT,
        **{name: path for name, path in added.items() if name.isprintable() and name != "base"},
    }


def circuits_for(task: Task) -> tuple[str, ...]:
    """Names of the circuits for a task; those that cannot be read are among them."""
    known = frozenset(known_tasks().values())
    return tuple(
        name for name, path in circuits().items() if _task_of(path, known) in (task.family, None)
    )


def _task_of(path: Path, known: frozenset[Task]) -> str | None:
    with suppress(OSError):
        return _read_task(path, path.stat().st_mtime_ns, known)
    return None


@lru_cache(maxsize=256)
def _read_task(path: Path, changed: int, known: frozenset[Task]) -> str | None:
    try:
        return read_circuit(path).task.family
    except UserError:
        return None


def circuit(name: str) -> Circuit:
    """The circuit of this name; raises UserError for an unknown name or a malformed file."""
    known = circuits()
    if name not in known:
        raise UserError(
            f"There is no circuit “{name}”. Choose one of {', '.join(known)}, or add its file."
        )
    return read_circuit(known[name])


def read_circuit(path: Path) -> Circuit:
    """Read a circuit file; raises UserError when it is malformed, Unreadable or Absent."""
    return Circuit.from_json(read(path, MAX_CIRCUIT_MB * MB))


def named_circuit(name_or_file: str) -> Circuit:
    """The circuit of this name or in this file; raises UserError when there is none."""
    with suppress(Absent):
        if name_or_file not in circuits():
            return read_circuit(Path(name_or_file))
    return circuit(name_or_file)


def circuit_name(name: str) -> str:
    """The name, if a circuit may be added under it; raises UserError otherwise."""
    if name == "base":
        raise UserError("“base” is the circuit that comes with this tool. Choose another name.")
    return plain_name(name)


def add_circuit(file_name: str, content: bytes) -> str:
    """Keep a circuit file in `cache/local/circuits`, checked, and return its name.

    Raises UserError for a name that is not plain and for a malformed file.
    """
    check_allowed("To keep a circuit")
    name = circuit_name(Path(file_name).stem)
    if len(content) > MAX_CIRCUIT_MB * MB:
        raise UserError(f"This circuit has more than {MAX_CIRCUIT_MB} MB. Choose a smaller one.")
    checked = Circuit.from_json(content)
    path = ADDED_CIRCUITS / f"{name}.json"
    try:
        write_atomically(path, checked.to_json())
    except OSError as error:
        raise UserError(
            f"The circuit cannot be written to {path} ({error.strerror}). Make room or "
            "rights there."
        ) from error
    return name
