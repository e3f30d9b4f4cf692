"""A click answered before the page runs: the figures of an address, if what they need is there.

The browser asks as soon as a head is clicked, and tells its session of the click afterwards. Here,
nothing is kept or changed but runs that the page itself would make and keep.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from urllib.parse import urlencode

import streamlit as st
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from backend.core.errors import UserError
from backend.core.priority import urgent
from backend.models import catalogue, loaded_models, prepared
from backend.tasks.setting import Mode
from circuitviz.figures import Figures
from shell.frame.view import View, from_query, to_query


def route() -> Route:
    """What the server answers here, under its path if it has one."""
    return Route(_path(), _answer, methods=["POST"])


def address_of(view: View) -> str:
    """Where the browser asks for the figures of a view with other switches."""
    asked = to_query(replace(view, off=frozenset(), switched=frozenset()))
    return f"{_path()}?{urlencode(asked)}"


def _answer(request: Request) -> Response:
    """The figures of the view in the query; no content where the page has to be asked."""
    view, complaints = from_query(request.query_params)
    found = None if complaints else figures_if_prepared(view)
    return JSONResponse(asdict(found)) if found else Response(status_code=204)


def figures_if_prepared(view: View) -> Figures | None:
    """The figures of a view; None where a model or prompts would have to be prepared first, where
    it has heads that its circuit has not, or where the memory is full."""
    session = prepared.get(view.setting)
    if session is None or not loaded_models.is_current(session.loaded):
        return None
    if view.mode is Mode.other and not (
        view.source in loaded_models.loaded() or prepared.holds(view.setting, view.source)
    ):
        return None
    # Only now: the server starts with this module, and its first page is to be there soon.
    from circuitviz.graph import outside_heads
    from shell.circuit.figures import figures

    try:
        circuit = catalogue.circuit(view.circuit)
        shape = session.loaded.shape
        circuit.check(shape, view.model)
        if not (
            view.off <= {*circuit.members} and view.switched <= {*outside_heads(circuit, shape)}
        ):
            return None
        with urgent():
            return figures(session, circuit, view)
    except (UserError, RuntimeError):
        return None


def _path() -> str:
    base = st.get_option("server.baseUrlPath").strip("/")
    return f"/{base}/figures" if base else "/figures"
