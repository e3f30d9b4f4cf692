"""A port that leads to another one, as if that were far away: every byte takes its time."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from time import monotonic, sleep

_AT_ONCE = 1 << 16


@contextmanager
def far_away(place: tuple[str, int], seconds: float) -> Iterator[int]:
    """A port of this computer, through which `place` is so many seconds away, each way."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_accept, args=(server, place, seconds), daemon=True).start()
        yield server.getsockname()[1]


def _accept(server: socket.socket, place: tuple[str, int], seconds: float) -> None:
    with suppress(OSError):  # the port is closed
        while True:
            near, _ = server.accept()
            far = socket.create_connection(place)
            for each in (near, far):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _lead(near, far, seconds)
            _lead(far, near, seconds)


def _lead(source: socket.socket, target: socket.socket, seconds: float) -> None:
    on_its_way: SimpleQueue[tuple[float, bytes]] = SimpleQueue()

    def take() -> None:
        data = b"any"
        while data:
            try:
                data = source.recv(_AT_ONCE)
            except OSError:
                data = b""
            on_its_way.put((monotonic() + seconds, data))

    def give() -> None:
        with suppress(OSError):
            while True:
                arrives, data = on_its_way.get()
                sleep(max(0.0, arrives - monotonic()))
                if not data:
                    target.shutdown(socket.SHUT_WR)
                    return
                target.sendall(data)

    for work in (take, give):
        threading.Thread(target=work, daemon=True).start()
