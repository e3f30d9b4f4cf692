"""Where the processes of a crew are: on this computer, or on a Ray cluster (no Ray)."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

from backend.core.errors import UserError
from backend.core.files import shown

AUTO = "auto"
VARIABLE = "CIRCUIT_EXPLORER_RAY"
"""Says where work is, unless a command does."""
MOST = 1024
"""So many processes on this computer."""
_MOST_PER_GPU = 16
_LAST_PORT = 65535
NO_RAY = "Ray is not installed. Install it with: pip install -r requirements-cluster.txt"


@dataclass(frozen=True)
class Cluster:
    """`n_local` processes here, each with one thread; or, with an address (`auto` for that of the
    environment), `per_gpu` for each GPU of a cluster, else one for each machine."""

    address: str = ""
    n_local: int = 0
    per_gpu: int = 1

    @property
    def is_client(self) -> bool:
        """Whether it is reached by Ray Client, from a computer that is none of its machines."""
        return self.address.startswith("ray://")

    @property
    def place(self) -> tuple[str, int] | None:
        """Host and port; None where the address does not say."""
        host, _, port = self.address.removeprefix("ray://").rpartition(":")
        return (host.strip("[]"), int(port)) if host else None

    def __str__(self) -> str:
        if self.n_local:
            return f"local:{self.n_local}"
        return self.address + (f"/{self.per_gpu}" if self.per_gpu > 1 else "")


def is_ray_installed() -> bool:
    """Whether there can be a cluster; imports nothing."""
    return find_spec("ray") is not None


def cluster(text: str) -> Cluster:
    """`local:N`, `auto`, HOST:PORT or ray://HOST:PORT; the latter three with `/N` where N processes
    are to share each GPU. Raises UserError for anything else."""
    host, _, number = text.rpartition(":")
    if host == "local" and (n := _number(number, MOST)):
        return Cluster(n_local=n)
    before, _, sharing = text.rpartition("/")
    per_gpu = _number(sharing, _MOST_PER_GPU)
    address = before if per_gpu else text
    host, _, port = address.rpartition(":")
    is_place = host not in ("", "local") and text.isprintable() and _number(port, _LAST_PORT)
    if address == AUTO or is_place:
        return Cluster(address, per_gpu=per_gpu or 1)
    raise UserError(
        f"“{shown(text)[:40]}” is no cluster. Give local:2 for two processes on this computer, or "
        "auto, HOST:PORT or ray://HOST:PORT for a Ray cluster; auto/2 lets two share each GPU."
    )


def _number(text: str, most: int) -> int:
    """The number from 1 on that a text says; 0 if it says none."""
    found = int(text) if text.isdecimal() and len(text) < 6 else 0
    return found if found <= most else 0
