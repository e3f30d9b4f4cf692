"""What the server does besides pages: it says whether it is well, makes room for a browser that
comes, and writes a log."""

from __future__ import annotations

import logging
from collections import Counter

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from backend.core.priority import expect_browser
from backend.core.read_only import is_read_only
from backend.models import loaded_models
from backend.studies import jobs

HEALTH = "/health"


def _health(_: Request) -> JSONResponse:
    """How many models are loaded, and how many jobs there are in which state."""
    states = Counter(state.value for state in jobs.states())
    return JSONResponse(
        {
            "status": "ok",
            "read_only": is_read_only(),
            "models_loaded": len(loaded_models.loaded()),
            "jobs": states,
        }
    )


ROUTES = [Route(HEALTH, _health)]


def expecting(app: ASGIApp) -> ASGIApp:
    """The app, before which long work holds while a browser opens a page of it."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and "text/html" in Headers(scope=scope).get("accept", ""):
            expect_browser()
        await app(scope, receive, send)

    return answer


MAKING_ROOM = Middleware(expecting)


def log_jobs() -> None:
    """Write a line for each job that ends: who asked, for what, how it ended, and how long."""
    logger = logging.getLogger("backend")
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
