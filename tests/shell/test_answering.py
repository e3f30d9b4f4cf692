"""A click that is answered before the page runs: with what the page then shows, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from backend.models import prepared
from backend.studies import jobs
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.prompts import Prompts
from backend.tasks.setting import Setting
from shell.circuit.answering import address_of, route
from shell.frame.view import from_query
from tests.shell.apps import drawn, ready
from tests.shell.test_page import page, session_of


@pytest.fixture
def client() -> Iterator[TestClient]:
    with TestClient(Starlette(routes=[route()])) as started:
        yield started


def asked(client: TestClient, **query: str) -> Any:
    """What the browser gets that asks from a page with this query, as the circuit asks."""
    query = {"n": "50"} | query
    switches = {name: query.pop(name, "") for name in ("off", "switched")}
    view, complaints = from_query(query)
    assert not complaints
    address = address_of(view)
    return client.post(f"{address}&off={switches['off']}&switched={switches['switched']}")


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"off": "A4.2,B3.3"},
        {"off": "A4.2", "switched": "A4.1", "metric": "probability"},
        {"off": "C0.0", "reading": "model", "metric": "logit_difference"},
        {"off": "A4.2", "mode": "zero"},
        {"off": "A4.2", "mode": "counterfactual", "reading": "model"},
        {"off": "A4.2,A4.3", "mode": "counterfactual", "desideratum": "object"},
        {"off": "B3.3", "mode": "other", "source": "arithmetic-lora"},
        {"off": "A4.2,B3.3", "presenting": "1"},
        {"off": "B3.3", "mode": "counterfactual", "desideratum": "position", "presenting": "1"},
    ],
    ids=str,
)
def test_the_answer_is_what_the_page_shows(client: TestClient, query: dict[str, str]) -> None:
    session_of("base")
    shown = drawn(ready(page(**query)))
    answer = asked(client, **query)
    assert answer.status_code == 200
    assert answer.json() == shown
    assert shown["shown"]


def test_the_page_is_asked_where_nothing_is_prepared(client: TestClient) -> None:
    setting = Setting("base", Prompts(ENTITY_TRACKING, 50, 77, (7,)))
    assert asked(client, seed="77").status_code == 204
    assert prepared.get(setting) is None
    assert jobs.known(setting) is None


def test_no_other_model_is_loaded_for_it(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    session_of("base")
    monkeypatch.setattr("shell.circuit.answering.loaded_models.loaded", dict)
    assert asked(client, mode="other", source="arithmetic-full", off="A4.2").status_code == 204


@pytest.mark.parametrize(
    "spoilt",
    [
        "off=A4.7",  # not of this circuit
        "off=Z4.2",
        "off=A99.2",
        "switched=A4.2",  # of this circuit
        "off=banana",
        "circuit=nowhere",
        "model=../../etc/passwd",
        "n=7",
        "task=nothing",
    ],
)
def test_what_does_not_fit_is_left_to_the_page(client: TestClient, spoilt: str) -> None:
    session_of("base")
    name, value = spoilt.split("=")
    query = {"n": "50", "off": "", "switched": ""} | {name: value}
    assert client.post("/figures", params=query).status_code == 204


def test_it_is_not_fetched_by_a_link_or_a_picture(client: TestClient) -> None:
    """Other pages can have those fetched without saying where they are from."""
    assert client.get("/figures?n=50").status_code == 405


def test_it_is_under_the_path_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    view, _ = from_query({"off": "A4.2"})
    assert address_of(view) == "/figures?"
    monkeypatch.setattr("streamlit.get_option", lambda name: "/lab/demo/")
    assert address_of(view) == "/lab/demo/figures?"
    assert route().path == "/lab/demo/figures"
