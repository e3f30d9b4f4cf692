"""Ray, joined to a cluster or begun on this computer. Only here is it imported first.

Whoever may join a Ray cluster may run anything on its machines. So a cluster of this computer
listens to this computer alone, and every one asks for a token.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from backend.cluster.where import NO_RAY, Cluster
from backend.core.errors import UserError
from backend.core.progress import Report

_LOOK_S = 0.2
_TOKEN = Path.home() / ".ray" / "auth_token"
"""Where Ray looks for it, unless the environment says so."""
ENVIRONMENT = {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}
ON_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""What keeps Ray's ports on 127.0.0.1, on Linux as well."""
_lock = threading.Lock()


@contextmanager
def joined(where: Cluster, report: Report) -> Iterator[Any]:
    """Ray; left again, and ended if it was begun here. One study of a process at a time.

    Raises UserError where there is no Ray, or no such cluster.
    """
    while not _lock.acquire(timeout=_LOOK_S):
        report("Waiting for the cluster", 0.0)
    try:
        report(f"Joining {where}", 0.0)
        ray = _imported(where)
        if ray.is_initialized():
            yield ray
            return
        begin(ray, where)
        try:
            yield ray
        finally:
            with suppress(Exception):
                ray.shutdown()
    finally:
        _lock.release()


def _imported(where: Cluster) -> Any:
    for name, value in (ENVIRONMENT | (ON_LOOPBACK if where.n_local else {})).items():
        os.environ.setdefault(name, value)
    _have_token()  # Ray reads it when it is imported.
    try:
        import ray
    except ImportError as error:
        raise UserError(NO_RAY) from error
    return ray


def begin(ray: Any, where: Cluster) -> None:
    """Begin Ray here, or join the cluster; raises UserError as `joined` does."""
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if where.n_local:
            ray.init(num_cpus=where.n_local, num_gpus=0, include_dashboard=False, **quiet)
        else:
            ray.init(address=where.address, **quiet)
    except Exception as error:
        what = str(error).strip().partition("\n")[0]
        raise UserError(f"No Ray cluster answers at {where}: {what} {_next(where)}") from error
    if where.n_local and not _is_on_loopback(ray):
        ray.shutdown()
        raise UserError(
            "Ray would listen to other computers, as this process has been part of a cluster. "
            "Start the dashboard again, then choose this computer."
        )


def _have_token() -> None:
    """Make a token that nobody else can read, where there is none; Ray would make it readable."""
    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return
    with suppress(OSError):
        _TOKEN.parent.mkdir(mode=0o700, exist_ok=True)
        handle = os.open(_TOKEN, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_hex(32))


def _is_on_loopback(ray: Any) -> bool:
    return all(ip_address(node["NodeManagerAddress"]).is_loopback for node in ray.nodes())


def _next(where: Cluster) -> str:
    if where.n_local:
        return "Give fewer processes, or none."
    return (
        "Make this computer one of its machines with ray start --address=HOST:PORT, with the same "
        "token (RAY_AUTH_MODE=token, RAY_AUTH_TOKEN), or give local:2."
    )
