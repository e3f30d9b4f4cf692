"""Who may reach the dashboard: this address and its own pages only, and they reach nothing else.

A web page that somebody has open elsewhere can send requests to localhost, under a name of its own
that it lets point there (DNS rebinding), or from another port. So every request must name a host of
`server.allowedHosts`, and a page that sends one must be of that same host and port, or of
`server.corsAllowedOrigins`. All of this is decided here and on the spot: Streamlit would look up
this computer's address in the world, to compare it with an origin that it does not know.
"""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha256
from pathlib import Path

import streamlit
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from streamlit.web.server.server_util import is_allowed_origin
from streamlit.web.server.starlette.starlette_websocket import is_host_allowed


def _inline_scripts() -> str:
    """The scripts that Streamlit's page holds in itself, by hash."""
    page = Path(streamlit.__file__).with_name("static") / "index.html"
    scripts = re.findall(r"<script>(.*?)</script>", page.read_text(encoding="utf-8"), re.DOTALL)
    hashes = (b64encode(sha256(script.encode()).digest()).decode() for script in scripts)
    return " ".join(f"'sha256-{each}'" for each in hashes)


_POLICY = {
    "default-src": "'none'",
    "script-src": f"'self' blob: {_inline_scripts()}",  # the clickable circuit comes as a blob
    "style-src": "'self' 'unsafe-inline'",  # Streamlit writes its style into the page
    "font-src": "'self' data:",
    "img-src": "'self' data: blob:",
    "connect-src": "'self' ws://{host} wss://{host}",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}
_HEADERS = {
    "Content-Security-Policy": "; ".join(map(" ".join, _POLICY.items())),
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_REFUSAL = (
    "Refused: the dashboard does not answer to this host, or not to pages of another one. If both "
    "are yours, see “Who may do what” in the README."
)


def protected(app: ASGIApp) -> ASGIApp:
    """The app, answering only its own pages, which it tells to ask nobody else."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        host = headers.get("host", "")

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                sent = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    sent[name] = value.format(host=host)
            await send(message)

        if is_welcome(host, headers.get("origin")):
            await app(_decided(scope), receive, send_with_headers)
        elif scope["type"] == "http":
            await PlainTextResponse(_REFUSAL, 403)(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    return answer


def _decided(scope: Scope) -> Scope:
    """The request, without what Streamlit would decide upon again, in its own way."""
    if scope["type"] == "http":
        return scope
    kept = [(name, value) for name, value in scope["headers"] if name.lower() != b"origin"]
    return {**scope, "headers": kept}


def is_welcome(host: str, origin: str | None) -> bool:
    """Whether a request to this host, from a page of this origin if from any, is answered."""
    if not is_host_allowed(host):
        return False
    own = None, f"http://{host}", f"https://{host}"
    return origin in own or is_allowed_origin(origin)


MIDDLEWARE = [Middleware(protected)]
