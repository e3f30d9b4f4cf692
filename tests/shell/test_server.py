"""What the server does besides pages."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from starlette.types import Message, Receive, Scope, Send

from shell.frame import server


@pytest.mark.parametrize(
    ("kind", "accept", "expected"),
    [
        ("http", "text/html,application/xhtml+xml,*/*;q=0.8", ["a browser", "answered"]),
        ("http", "*/*", ["answered"]),
        ("websocket", "text/html", ["answered"]),
    ],
)
def test_long_work_holds_before_a_page_is_sent(
    monkeypatch: pytest.MonkeyPatch, kind: str, accept: str, expected: list[str]
) -> None:
    seen = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append("answered")

    async def receive() -> Message:
        return {}

    async def send(message: Message) -> None:
        return None

    monkeypatch.setattr(server, "expect_browser", lambda: seen.append("a browser"))
    asked = {"type": kind, "headers": [(b"accept", accept.encode())]}

    async def ask() -> None:
        await server.expecting(app)(asked, receive, send)

    # In a thread of its own: where Playwright is at work, this one has a loop already.
    with ThreadPoolExecutor(1) as one:
        one.submit(lambda: asyncio.run(ask())).result(60)
    assert seen == expected
