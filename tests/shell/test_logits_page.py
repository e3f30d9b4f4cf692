"""The Logits page without a browser: the methods’ figures, prompts one by one, and bad input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from backend.core.heads import Head
from backend.core.statistics import mean_estimate
from backend.methods.copying import CopyingRequest
from backend.methods.logit_attribution import LogitAttributionRequest, parts_of
from backend.methods.logit_lens import LogitLensRequest, after, first_clear
from backend.models import catalogue
from backend.studies import jobs, studies
from backend.tasks.circuit import Circuit
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.ioi import IOI
from backend.tasks.prompts import Prompts
from shell.frame import places
from shell.logits.marks import at_the_last_token, group_of
from tests import planted_ioi, tiny
from tests.dashboard import ROOT

SMALL = Prompts(ENTITY_TRACKING, 50, 0, (3,))
PAIR = ("base", "arithmetic-full")
CIRCUIT = catalogue.circuit("base")
MINUS = "\N{MINUS SIGN}"


@pytest.fixture(autouse=True)
def _forget_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_jobs", type(jobs._jobs)())


def measured(*requests: Any) -> list[Any]:
    """Parts of what is measured and stored now."""
    return [[*studies.run(request, lambda *_: None)] for request in requests]


def page(read: str = "Direct attribution", **query: str) -> AppTest:
    test = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    test.switch_page("pages/logits.py")
    test.query_params.update({"n": str(SMALL.n), "boxes": "3"} | query)
    test.session_state["logits_read"] = read
    return sound(test.run())


def sound(test: AppTest) -> AppTest:
    assert not test.exception
    return test


def press(test: AppTest, label: str) -> AppTest:
    next(button for button in test.button if button.label == label).click()
    return sound(test.run())


def said(test: AppTest) -> str:
    return "\n".join(e.value for kind in ("markdown", "caption") for e in test.main.get(kind))


def tables(test: AppTest) -> str:
    return " ".join(element.proto.body for element in test.main.get("html"))


def in_words(value: float) -> str:
    return f"{value:.2f}".replace("-", MINUS)


def test_a_run_shows_the_methods_sums_for_both_models() -> None:
    test = page()
    assert "Press Run to split the logit difference" in test.info[0].value
    press(test, "Run")
    test.session_state["logit_attribution"].job.future.result(120)
    sound(test.run())
    request = LogitAttributionRequest(PAIR, SMALL)
    stored = studies.find(request)
    assert stored
    fetchers = CIRCUIT.heads("A")
    base, tuned = map(parts_of, stored.parts)
    for figure in (
        mean_estimate(base.of_heads(fetchers)),
        mean_estimate(tuned.mlps.sum(1)),
        mean_estimate(tuned.of_heads(fetchers) - base.of_heads(fetchers)),
    ):
        assert in_words(figure.value) in tables(test)
        assert f"{in_words(figure.low)} to {in_words(figure.high)}, n = 50" in tables(test)
    assert f"Logit difference **+{stored.parts[0].difference.value:.2f}**" in said(test)
    assert "held at what it is on each prompt" in said(test)
    assert len(test.get("vega_lite_chart")) == 2


def test_prompts_are_gone_through_one_by_one_and_the_address_says_which() -> None:
    ((base, _),) = measured(LogitAttributionRequest(PAIR, SMALL))
    test = page()
    test.session_state["attribution_shown"] = "One prompt"
    sound(test.run())
    press(test, "▶")
    assert "Prompt 2 of 50" in said(test)
    assert base.answers[1] in said(test)
    assert f"+{parts_of(base).difference[1]:.2f}".replace("+-", MINUS) in said(test)
    assert test.query_params["example"] in ("1", ["1"])
    press(press(test, "◀"), "◀")
    assert "Prompt 50 of 50" in said(test)


def test_the_lens_says_from_where_on_the_answer_is_first() -> None:
    ((base, tuned),) = measured(LogitLensRequest(PAIR, SMALL))
    test = page("Logit lens")
    for model, found in zip(PAIR, (base, tuned), strict=True):
        depth = first_clear(found.tokens["last"])
        assert depth
        label = catalogue.label(model)
        assert f"**{label}**: answer first on most prompts: **{after(depth)}**" in said(test)
    assert len(test.get("vega_lite_chart")) == 2 * len(base.tokens)
    for measure in ("Rank", "First of all", "First of its competitors"):
        test.session_state["lens_measure"] = measure
        sound(test.run())
    assert "At the query’s label" in said(test)


def test_copying_says_what_chance_is_and_goes_word_by_word() -> None:
    ((base, _),) = measured(CopyingRequest(PAIR, SMALL))
    test = page("Copying")
    assert f"{base.chance:.3f} for a head that writes any of these words" in said(test)
    head = Head(4, 3)
    test.selectbox(key="copying_head").set_value(head)
    sound(test.run())
    frame = test.dataframe[0].value
    assert frame["word"].tolist() == [*base.words]
    assert frame["Base: rank"].tolist() == base.copied[base.heads.index(head)].tolist()
    test.session_state["copying_score"] = "Negative copying"
    sound(test.run())
    assert len(test.get("vega_lite_chart")) == 2


@pytest.mark.parametrize(
    "request_type", [LogitAttributionRequest, LogitLensRequest, CopyingRequest]
)
def test_a_stored_result_opens_with_its_choices(request_type: Any) -> None:
    request = request_type(("chat",), Prompts(ENTITY_TRACKING, 50, 3, (4,)))
    measured(request)
    stored = studies.find(request)
    assert stored
    assert places.page_of(request) == "pages/logits.py"
    assert places.title_of("pages/logits.py") == "Logits"
    assert places.obstacle(stored) is None
    script = (
        "import streamlit as st\n"
        "from shell.frame import places, state\n"
        "from backend.studies import store, studies\n"
        "state.restore()\n"
        "(entry,) = store.entries()\n"
        "places.open_stored(studies.read(entry))\n"
    )
    test = sound(AppTest.from_string(script, default_timeout=60).run())
    assert test.session_state["logits_models"] == ["chat"]
    assert (test.session_state["seed"], test.session_state["options"]) == (3, (4,))
    kinds = {
        "Direct attribution": LogitAttributionRequest,
        "Logit lens": LogitLensRequest,
        "Copying": CopyingRequest,
    }
    assert kinds[test.session_state["logits_read"]] is request_type


def test_names_are_read_of_a_model_planted_for_them(tmp_path: Path, empty_cache: Path) -> None:
    planted_ioi.saved(tmp_path)
    circuit = Circuit.of(IOI, planted_ioi.CIRCUIT, "planted")
    catalogue.add_circuit("planted.json", circuit.to_json().encode())
    prompts = Prompts(IOI, 50, 0)
    model = str(tmp_path)
    (((found,),)) = measured(LogitAttributionRequest((model,), prompts))
    query = {"task": "ioi", "model": model, "circuit": "planted"}
    test = page(**query)
    movers = mean_estimate(parts_of(found).of_heads(planted_ioi.CIRCUIT["NM"]))
    assert in_words(movers.value) in tables(test)
    assert "NM, Name Mover" in tables(test)
    for words in ("box", "Value Fetcher"):
        assert words not in tables(test) + said(test)
    assert "Press Run to score every head" in page("Copying", **query).info[0].value


def test_without_a_circuit_the_models_are_read_all_the_same(tmp_path: Path) -> None:
    model = planted_ioi.saved(tmp_path)
    measured(LogitAttributionRequest((model,), Prompts(IOI, 50, 0)))
    test = page(task="ioi", model=model)
    assert "all heads" in tables(test)
    assert "Framed" not in said(test)


def test_wrong_input_is_told_with_what_to_do(tmp_path: Path) -> None:
    assert "There is no circuit “nowhere”" in page(circuit="nowhere").error[0].value
    test = page(model="no such model")
    press(test, "Run")
    test.session_state["logit_attribution"].job.future.exception(120)
    sound(test.run())
    assert "There is no model “no such model”" in test.error[0].value
    tiny.granite().save_pretrained(tmp_path)
    tiny.word_tokenizer().save_pretrained(tmp_path)
    for read, study in (("Logit lens", "logit_lens"), ("Copying", "copying")):
        test = press(page(read, model=str(tmp_path)), "Run")
        test.session_state[study].job.future.exception(120)
        sound(test.run())
        assert "this model can only be run whole" in test.error[0].value
        assert test.error[0].value.endswith("choose another model.")
    test.multiselect(key="logits_models").set_value([]).run()
    assert next(button for button in test.button if button.label == "Run").disabled


def test_heads_are_marked_once_and_only_at_the_last_token() -> None:
    both = Head(4, 3)
    circuit = Circuit.of(
        ENTITY_TRACKING, {"A": (both,), "B": (both, Head(2, 2)), "C": (Head(1, 1),)}
    )
    assert [(group.key, {*heads}) for group, heads in at_the_last_token(circuit)] == [
        ("A", {both}),
        ("B", {Head(2, 2)}),
    ]
    assert group_of(both, circuit) == ENTITY_TRACKING.group("A")
    assert group_of(Head(1, 1), circuit) is None
    assert group_of(None, circuit) is None
