"""Presentation mode without a browser: what is shown, and that nothing of others is marked up."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import pytest

from backend.core.statistics import Estimate
from backend.models import catalogue
from backend.studies.session import answers, expected_answers
from backend.tasks.setting import Mode, Reading, intervention
from circuitviz.charts import BEFORE, LOOKS, RIGHT
from circuitviz.figures import Figure
from shell.circuit import numbers, presented
from shell.circuit.numbers import Measured
from shell.circuit.presented import answers_html
from tests.shell.apps import drawn, figures
from tests.shell.test_page import page, session_of


def test_the_large_numbers_are_those_of_the_page() -> None:
    session_of("base")
    plain, staged = page(off="A4.2,A4.3"), page(off="A4.2,A4.3", presenting="1")
    assert staged.query_params["presenting"] == "1"
    shown = figures(plain)
    assert figures(staged) == {
        label: shown[label] for label in ("Whole model", "Circuit", "Faithfulness")
    }
    changes = {figure["label"]: figure["change"] for figure in drawn(plain)["shown"]}
    for figure in drawn(staged)["shown"]:
        assert figure["change"] in changes[figure["label"]]
        assert "n = 50" in figure["below"]
    assert "95 % intervals" in drawn(staged)["note"]


@pytest.mark.parametrize("read_out", [numbers.read_out, presented.read_out])
def test_a_figure_below_zero_has_minus_signs(read_out: Callable[[Measured], Figure]) -> None:
    shown = read_out(Measured("Logit difference", Estimate(-0.25, -0.5, -0.125, 50), -0.0625))
    assert (shown.value, shown.change.split()[0]) == ("−0.250", "−0.062")
    assert "−0.500 to −0.125, n = 50" in shown.below


def test_a_test_of_heads_shows_both_answers() -> None:
    session, circuit = session_of("base"), catalogue.circuit("base")
    fetchers = frozenset(("A", head) for head in circuit.heads("A"))
    step = intervention(circuit, Reading.model, Mode.counterfactual, fetchers, desideratum="object")
    names = ",".join(f"{group}{str(head)[1:]}" for group, head in fetchers)
    test = page(
        off=names, reading="model", mode="counterfactual", desideratum="object", presenting="1"
    )
    own, expected = answers(session, step), expected_answers(session, step)
    assert (
        figures(test).items()
        >= {
            "Base’s answer": f"{own.correct.mean():.3f}",
            "Expected answer": f"{expected.correct.mean():.3f}",
        }.items()
    )


@pytest.mark.parametrize("name", ["compare", "models"])
def test_p_is_a_button_of_every_page_and_so_is_the_way_back(name: str) -> None:
    test = page().switch_page(f"pages/{name}.py").run()
    test.button(key="present").click().run()
    assert test.query_params["presenting"] == "1"
    assert "present" not in {button.key for button in test.button}
    test.button(key="leave_presenting").click().run()
    assert "presenting" not in test.query_params


def test_bars_are_as_long_as_probabilities_and_words_stay_words() -> None:
    frame = pd.DataFrame(
        {
            "word": ["<b>x", "y"],
            "before": [0.5, float("nan")],
            "after": [0.25, float("nan")],
            "kind": ["after, right", "after"],
        }
    )
    html = answers_html(frame, LOOKS)
    assert "&lt;b&gt;x" in html
    assert "<b>x" not in html
    assert f'style="width: 50.0%; background: {BEFORE}"' in html
    assert f'style="width: 25.0%; background: {RIGHT}"' in html
    assert html.count('style="width: 0.0%') + html.count('style="width: 0%') == 2
    assert "<b>–</b>" in html
