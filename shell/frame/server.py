"""What the server answers besides pages: whether it is well; and what it writes into its log."""

from __future__ import annotations

import logging
from collections import Counter

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

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


def log_jobs() -> None:
    """Write a line for each job that ends: who asked, for what, how it ended, and how long."""
    logger = logging.getLogger("backend")
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
