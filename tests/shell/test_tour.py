"""The first visit: which head the tour asks to click, and what every page says with nothing run."""

from __future__ import annotations

import re

import pytest
from streamlit.testing.v1 import AppTest

from backend.core.heads import Head
from backend.models import catalogue
from backend.tasks.circuit import Circuit
from backend.tasks.entity_tracking import ENTITY_TRACKING
from circuitviz.provenance import scores_of
from shell.circuit.tour import head_to_click, steps
from shell.talk import kept
from tests.dashboard import ROOT
from tests.shell.test_page import session_of


def test_the_strongest_head_that_writes_the_answer_is_to_be_clicked() -> None:
    circuit = catalogue.circuit("base")
    head = head_to_click(circuit)
    assert head is not None
    assert head[0] == "A"
    scores = scores_of(circuit, circuit.members)
    assert all(abs(scores[head]) >= abs(scores["A", other]) for other in circuit.heads("A"))
    assert str(head[1]) in steps(circuit, head)[1][0]


def test_circuits_without_scores_or_heads_have_a_tour_or_none() -> None:
    few = Circuit.of(ENTITY_TRACKING, {"D": (Head(0, 1),)})
    assert head_to_click(few) == ("D", Head(0, 1))
    assert head_to_click(Circuit.of(ENTITY_TRACKING, {})) is None


WHAT_TO_DO = re.compile(
    r"Press|press|Click|click|Choose|choose|Run|Load|add|Type|type|Write|write", re.ASCII
)


AT_ONCE = {"circuit", "prompt"}
"""Pages on which something is shown without a press of a button."""


@pytest.mark.parametrize("page", [each for each in kept.PAGES if each not in AT_ONCE])
def test_a_page_with_nothing_run_says_what_to_do(page: str) -> None:
    session_of("base")
    test = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    test.query_params["n"] = "50"
    test.run().switch_page(f"pages/{page}.py").run()
    assert not test.exception
    said = [each.value for kind in ("info", "caption", "markdown") for each in test.main.get(kind)]
    assert any(WHAT_TO_DO.search(words) for words in said), said
