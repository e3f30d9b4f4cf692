"""Ray, joined to a cluster or begun on this computer. Only here is it imported first.

Whoever may join a Ray cluster may run anything on its machines. So a cluster of this computer
listens to this computer alone, and every one asks for a token.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from backend.cluster.where import NO_RAY, Cluster
from backend.core.errors import UserError

_LISTENS_S = 10.0
_TOKEN = Path.home() / ".ray" / "auth_token"
"""Where Ray looks for it, unless the environment says so."""
ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_AUTO_CONNECT": "0",
}
"""The last one: where a cluster has gone, no question begins another one here."""
ON_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""What keeps Ray's ports on 127.0.0.1, on Linux as well."""
_PATIENCE = {"RAY_gcs_rpc_server_reconnect_timeout_s": str(10**8)}
"""Ray would end this process, a dashboard, a minute after its cluster has gone."""
_joining = threading.Lock()
_to: Cluster | None = None
"""The cluster that was joined here, rather than by a test."""
_n_users = 0


def join(where: Cluster) -> Any:
    """Ray, until `leave` was called by all who joined.

    A process is part of one cluster at a time. Raises UserError while others are in another one,
    where there is no Ray, and where there is no such cluster.
    """
    global _to, _n_users
    with _joining:
        ray = _imported(where)
        if _n_users and _to not in (None, where):
            raise UserError(
                f"This process is part of the cluster {_to}. Wait until its work there has ended, "
                "or cancel it, and start again."
            )
        if not ray.is_initialized():
            begin(ray, where)
            _to = where
        _n_users += 1
        return ray


def leave(ray: Any) -> None:
    """Leave the cluster, unless others are in it still."""
    global _to, _n_users
    with _joining:
        _n_users -= 1
        if not _n_users and _to:
            _to = None
            with suppress(Exception):
                ray.shutdown()


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
    """Begin Ray here, or join the cluster; raises UserError as `join` does."""
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if where.n_local:
            begun = {"num_cpus": where.n_local, "num_gpus": 0, "include_dashboard": False}
            # “local”, or it would be the cluster that this computer may be a machine of.
            ray.init(address="local", **begun, **quiet)
        else:
            _check_listens(where)
            with _patiently():
                ray.init(address=where.address, **quiet)
    except Exception as error:
        what = " ".join(line.strip() for line in str(error).strip().splitlines()[:2])
        said = f"No Ray cluster answers at {where}: {what.rstrip('.')}. {_next(where)}"
        raise UserError(said) from error
    if where.n_local and not _is_on_loopback(ray):
        ray.shutdown()
        raise UserError(
            "Ray would listen to other computers, as this process has been part of a cluster. "
            "Start the dashboard again, then choose this computer."
        )


def _check_listens(where: Cluster) -> None:
    """Raise OSError at once where Ray would try for minutes."""
    if where.place:
        socket.create_connection(where.place, timeout=_LISTENS_S).close()


@contextmanager
def _patiently() -> Iterator[None]:
    """Ray reads this when a process joins; processes that are started later are not to have it."""
    os.environ.update(_PATIENCE)
    try:
        yield
    finally:
        for name in _PATIENCE:
            del os.environ[name]


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
    if where.is_client:
        return (
            "Start it there with ray start --head --ray-client-server-port=10001, open the tunnel, "
            "and have the same token and the same versions of Python and Ray on both sides."
        )
    return (
        "Make this computer one of its machines with ray start --address=HOST:PORT, with the same "
        "token (RAY_AUTH_MODE=token, RAY_AUTH_TOKEN), or give local:2."
    )
