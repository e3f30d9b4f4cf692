"""The dashboard answers its own pages only, and asks nobody for anything."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.dashboard import ROOT, serving

# Notes every name that the process looks up and every place that it connects to.
_EAVESDROPPER = """
import sys

_EVENTS = {
    "socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname",
    "socket.gethostbyaddr",
}

def _note(*words):
    with open(%r, "a") as notes:
        print(*words, file=notes)

_note("heard")
sys.addaudithook(lambda event, arguments: event in _EVENTS and _note(event, *arguments[-2:]))
"""


@contextmanager
def overheard(place: Path) -> Iterator[Path]:
    """Processes that are started now note whom they ask, in this file."""
    notes = place / "notes"
    (place / "sitecustomize.py").write_text(_EAVESDROPPER % str(notes))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(place))
        yield notes


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A dashboard whose pages nobody has looked at yet."""
    with serving(ROOT / "app.py") as started:
        yield started


def _answer(address: str, path: str, **headers: str) -> tuple[int, dict[str, str]]:
    """The status and the headers of the answer to a GET with these headers."""
    place = urlsplit(address)
    sent = {"Host": place.netloc, "Connection": "close"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in sent.items())]
    with socket.create_connection((place.hostname, place.port), timeout=20) as connection:
        connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        received = b""
        while b"\r\n\r\n" not in received and (more := connection.recv(65536)):
            received += more
    first, *rest = received.decode("latin-1").split("\r\n\r\n")[0].split("\r\n")
    return int(first.split()[1]), {
        name.lower(): value for name, _, value in (line.partition(": ") for line in rest)
    }


_HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec_WebSocket_Version": "13",
    "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec_WebSocket_Protocol": "streamlit",
}

HERE, ELSEWHERE = True, False


@pytest.mark.parametrize(
    ("host", "origin", "is_ours"),
    [
        ("localhost:{port}", None, HERE),
        ("localhost:{port}", "http://localhost:{port}", HERE),
        ("127.0.0.1:{port}", "http://127.0.0.1:{port}", HERE),
        ("[::1]:{port}", "http://[::1]:{port}", HERE),
        ("localhost", "https://localhost", HERE),
        # A name of somebody else's that points here: DNS rebinding.
        ("evil.test", None, ELSEWHERE),
        ("evil.test", "http://evil.test", ELSEWHERE),
        ("evil.test:{port}", "http://evil.test:{port}", ELSEWHERE),
        ("localhost.evil.test", "http://localhost.evil.test", ELSEWHERE),
        ("localhost@evil.test", None, ELSEWHERE),
        # A page of somebody else's, or of another port of this computer.
        ("localhost:{port}", "http://evil.test", ELSEWHERE),
        ("localhost:{port}", "http://localhost:1", ELSEWHERE),
        ("localhost:{port}", "http://127.0.0.1:{port}", ELSEWHERE),
        ("localhost:{port}", "http://0.0.0.0:{port}", ELSEWHERE),
        ("localhost:{port}", "https://share.streamlit.io", ELSEWHERE),
        ("localhost:{port}", "null", ELSEWHERE),
        ("localhost:{port}", "file://", ELSEWHERE),
        ("localhost:{port}", "http://[", ELSEWHERE),
        ("localhost:{port}", "", ELSEWHERE),
    ],
)
def test_only_its_own_pages_are_answered(
    address: str, host: str, origin: str | None, is_ours: bool
) -> None:
    port = str(urlsplit(address).port)
    headers = {"Host": host.replace("{port}", port)}
    if origin is not None:
        headers["Origin"] = origin.replace("{port}", port)
    status, _ = _answer(address, "/_stcore/stream", **_HANDSHAKE, **headers)
    assert status == (101 if is_ours else 403)
    for path in ("/", "/_stcore/health", "/_stcore/host-config"):
        status, _ = _answer(address, path, **headers)
        assert status == (200 if is_ours else 403)


def test_hosts_and_pages_can_be_allowed() -> None:
    allowed = (
        "--server.allowedHosts=circuits.test",
        "--server.corsAllowedOrigins=https://lab.test",
    )
    with serving(ROOT / "app.py", *allowed, health_host="circuits.test") as address:
        for host, origin, status in [
            ("circuits.test", "https://circuits.test", 101),
            ("circuits.test", "https://lab.test", 101),
            ("circuits.test", "https://other.test", 403),
            ("localhost", "http://localhost", 403),
        ]:
            headers = _HANDSHAKE | {"Host": host, "Origin": origin}
            assert _answer(address, "/_stcore/stream", **headers)[0] == status


@pytest.mark.parametrize("path", ["/", "/compare", "/cmap", "/discover", "/paper", "/results"])
def test_pages_may_not_be_framed_nor_ask_others(address: str, path: str) -> None:
    status, headers = _answer(address, path)
    assert status == 200
    policy = dict(
        rule.partition(" ")[::2] for rule in headers["content-security-policy"].split("; ")
    )
    assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    allowed = {word for rule in policy.values() for word in rule.split()}
    host = urlsplit(address).netloc
    assert {word for word in allowed if ":" in word} == {
        "blob:", "data:", f"ws://{host}", f"wss://{host}"
    }  # fmt: skip
    assert "'unsafe-eval'" not in allowed
    assert "'unsafe-inline'" not in policy["script-src"]


@pytest.mark.parametrize("listening_to", ["localhost", "0.0.0.0"])
def test_nobody_is_asked_anything(tmp_path: Path, listening_to: str) -> None:
    """Streamlit looks up this computer's address in the world: to print it when it listens to all,
    and to compare it with an origin that it does not know."""
    options = (
        f"--server.address={listening_to}",
        "--server.corsAllowedOrigins=https://lab.test",
    )
    with overheard(tmp_path) as notes, serving(ROOT / "app.py", *options) as address:
        for origin, status in [
            ("http://evil.test", 403),
            (address, 101),
            ("https://lab.test", 101),
        ]:
            headers = _HANDSHAKE | {"Origin": origin}
            assert _answer(address, "/_stcore/stream", **headers)[0] == status
        heard = notes.read_text().splitlines()
    assert "heard" in heard
    assert [line for line in heard if line != "heard" and "localhost" not in line] == []
