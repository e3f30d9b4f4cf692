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
NO_RAY = "Ray is not installed. Install it with: pip install -r requirements-cluster.txt"


@dataclass(frozen=True)
class Cluster:
    """`n_local` processes here, each with one thread; or, with an address (`auto` for that of the
    environment), one for each GPU of a cluster, else one for each machine."""

    address: str = ""
    n_local: int = 0

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
        return f"local:{self.n_local}" if self.n_local else self.address


def is_ray_installed() -> bool:
    """Whether there can be a cluster; imports nothing."""
    return find_spec("ray") is not None


def cluster(text: str) -> Cluster:
    """`local:N`, `auto`, HOST:PORT or ray://HOST:PORT; raises UserError for anything else."""
    host, _, number = text.rpartition(":")
    if host == "local" and number.isdecimal() and 1 <= int(number) <= MOST:
        return Cluster(n_local=int(number))
    if text == AUTO or (host not in ("", "local") and number.isdecimal() and text.isprintable()):
        return Cluster(text)
    raise UserError(
        f"“{shown(text)[:40]}” is no cluster. Give local:2 for two processes on this computer, or "
        "auto, HOST:PORT or ray://HOST:PORT for a Ray cluster."
    )
