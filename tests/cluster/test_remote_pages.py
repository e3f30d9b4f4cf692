"""Every page with a model that only a cluster has: it works, or says why not and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray")

from streamlit.testing.v1 import AppTest

from backend.cluster import where
from backend.models import catalogue
from backend.studies import jobs, remote
from tests.cluster.test_remote import CIRCUIT, n_asked
from tests.dashboard import ROOT
from tests.shell.apps import figures, ready, rerun

pytestmark = pytest.mark.usefixtures("two")
PAGES = [path.stem for path in sorted((ROOT / "pages").glob("*.py"))]
_PATIENCE_S = 300


@pytest.fixture(autouse=True)
def dashboard(monkeypatch: pytest.MonkeyPatch, empty_cache: Path) -> None:
    """One that was told of the cluster, with a circuit for the planted model."""
    monkeypatch.setenv(where.VARIABLE, "auto")
    monkeypatch.setattr(jobs, "_jobs", type(jobs._jobs)())
    catalogue.add_circuit("planted.json", CIRCUIT.to_json().encode())


@pytest.fixture(scope="module", autouse=True)
def left() -> Iterator[None]:
    remote.leave()
    yield
    remote.leave()


def page(name: str, **query: str) -> AppTest:
    """A page once nothing is on its way any more."""
    asked = {"task": "ioi", "model": "planted", "circuit": "planted", "n": "50"} | query
    test = AppTest.from_file(str(ROOT / "app.py"), default_timeout=_PATIENCE_S)
    test.query_params.update(asked)
    rerun(test)
    return ready(test.switch_page(f"pages/{name}.py"))


def said(test: AppTest) -> str:
    return "\n".join(str(each.value) for each in (*test.error, *test.warning))


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_it_or_says_why_not(name: str) -> None:
    test = page(name)
    assert not test.exception
    told = said(test)
    if name == "prompt":
        assert "is on the cluster, and this needs it on this computer" in told
    else:
        assert not told


def test_the_numbers_of_the_circuit_page_are_there_and_a_click_is_one_message() -> None:
    test = page("circuit")
    shown = figures(test)
    before = n_asked()
    clicked = page("circuit", off="NM4.0")
    assert figures(clicked) != shown
    assert n_asked() == before + 1
    ready(clicked)
    assert n_asked() == before + 1, "nothing that is on the page is asked twice"


def test_a_process_that_died_is_told_and_a_button_prepares_anew(two: Any) -> None:
    test = page("circuit")
    assert remote._host
    two.kill(remote._host.actor)
    press(test, "All off")
    assert "does not answer" in said(test)
    press(test, "Try again")
    assert not said(ready(test))
    assert figures(test)


def press(test: AppTest, label: str) -> None:
    next(button for button in test.button if button.label == label).click()
    rerun(test)
