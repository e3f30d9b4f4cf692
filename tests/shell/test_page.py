"""The Circuit page without a browser: every model, every control, and bad input."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from backend.core.heads import Head
from backend.core.metrics import Metric
from backend.engine.answers import Answers
from backend.models import catalogue
from backend.models.loaded_models import load
from backend.studies import jobs
from backend.studies.session import Session, answers, expected_answers, prepare
from backend.tasks.circuit import Circuit
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.ioi import IOI
from backend.tasks.prompts import Prompts
from backend.tasks.setting import Intervention, Mode, Reading, Setting, intervention
from shell.frame.history import History, Switches
from shell.frame.view import View
from tests.dashboard import ROOT
from tests.shell.apps import figures

APP = ROOT / "app.py"
SMALL = 50


def session_of(model: str) -> Session:
    """The session that the page will show, so that no test waits for it."""
    setting = Setting(model, Prompts(ENTITY_TRACKING, SMALL, 0, (7,)))
    jobs.forget(setting)  # a page that prepared it for another test holds no session in its job
    return jobs.job(setting, lambda report: iter([prepare(setting, report)])).future.result(120)[0]


def page(**query: str) -> AppTest:
    test = AppTest.from_file(str(APP), default_timeout=60)
    test.query_params.update({"n": str(SMALL)} | query)
    return test.run()


def state(test: AppTest, name: str) -> Any:
    return test.session_state[name]


@pytest.mark.parametrize("model", catalogue.bundled_models())
def test_every_model_shows_its_own_numbers(model: str) -> None:
    session = session_of(model)
    circuit = catalogue.circuit("base")
    everything = answers(session, intervention(circuit, Reading.circuit, Mode.mean))
    shown = figures(page(model=model))
    assert shown["Whole model"] == f"{session.whole.correct.mean():.3f}"
    assert shown["Circuit"] == f"{everything.correct.mean():.3f}"
    assert shown["Faithfulness"] == (
        f"{everything.correct.sum() / session.whole.correct.sum():.3f}"
    )
    assert shown["P(right answer)"] == f"{everything.probability.mean():.3f}"


@pytest.mark.parametrize("mode", [Mode.zero, Mode.counterfactual])
def test_the_measure_is_what_the_numbers_are(mode: Mode) -> None:
    session, circuit = session_of("base"), catalogue.circuit("base")
    alone = answers(session, intervention(circuit, Reading.circuit, mode))
    test = page(mode=mode.name)
    assert test.selectbox(key="metric").value is Metric.accuracy
    test.selectbox(key="metric").select(Metric.logit_difference).run()
    shown = figures(test)
    whole = session.whole.logit_difference.mean()
    assert shown["Whole model"] == f"{whole:.3f}"
    assert shown["Circuit"] == f"{alone.logit_difference.mean():.3f}"
    assert shown["Faithfulness"] == f"{alone.logit_difference.mean() / whole:.3f}"
    assert shown["P(right answer)"] == f"{alone.probability.mean():.3f}"
    (note,) = (caption.value for caption in test.caption if "not as in the paper" in caption.value)
    assert "ablation and logit difference: not as in the paper." in note
    assert test.query_params["metric"] == "logit_difference"
    test.selectbox(key="metric").select(Metric.probability).run()
    shown = figures(test)
    assert shown["Circuit"] == f"{alone.probability.mean():.3f}"
    assert shown["Accuracy"] == f"{alone.correct.mean():.3f}"


def test_a_model_whose_files_have_changed_is_shown_as_it_is_now(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(catalogue.BUNDLED / "base", tmp_path / "mine"))
    session_of(str(folder))
    session_of("chat")
    test = page(model=str(folder))
    before = figures(test)
    shutil.copy(catalogue.BUNDLED / "chat" / "model.safetensors", folder)
    test.run()
    session_of(str(folder))
    assert figures(test.run()) == figures(page(model="chat")) != before


@pytest.mark.parametrize("reading", list(Reading))
@pytest.mark.parametrize("mode", list(Mode))
def test_the_address_restores_heads_reading_and_mode(reading: Reading, mode: Mode) -> None:
    session, circuit = session_of("base"), catalogue.circuit("base")
    off = frozenset(circuit.members[::3])
    names = ",".join(f"{group}{str(head)[1:]}" for group, head in off)
    test = page(off=names, reading=reading.name, mode=mode.name, example="7")
    now = answers(session, intervention(circuit, reading, mode, off, source=View().source))
    part = {Reading.circuit: "Circuit", Reading.model: "Model minus heads"}[reading]
    assert figures(test)[part] == f"{now.correct.mean():.3f}"
    assert state(test, "history").now == Switches(off)
    assert any("Example 8 of 50" in element.value for element in test.markdown)


@pytest.mark.parametrize("reading", list(Reading))
def test_heads_that_give_an_alternate_prompts_value_move_the_answer(reading: Reading) -> None:
    session, circuit = session_of("base"), catalogue.circuit("base")
    fetchers = frozenset(("A", head) for head in circuit.heads("A"))
    step = intervention(circuit, reading, Mode.counterfactual, fetchers, desideratum="object")
    names = ",".join(f"{group}{str(head)[1:]}" for group, head in fetchers)
    test = page(off=names, reading=reading.name, mode="counterfactual", desideratum="object")
    shown = figures(test)
    own, expected = answers(session, step), expected_answers(session, step)
    assert expected.correct.mean() > 0.3 > own.correct.mean()
    assert shown == {
        "Base’s answer": f"{own.correct.mean():.3f}",
        "Expected answer": f"{expected.correct.mean():.3f}",
        "P(base’s answer)": f"{own.probability.mean():.3f}",
        "P(expected answer)": f"{expected.probability.mean():.3f}",
    }
    assert test.query_params["desideratum"] == "object"
    (pair,) = (h for h in test.main.get("html") if "Alternate prompt" in h.proto.body)
    assert pair.proto.body.count("Box") == 2 * (7 + 1)
    next(button for button in test.button if button.label == "All on").click()
    untouched = (
        session.whole
        if reading is Reading.model
        else answers(session, intervention(circuit, reading, Mode.mean))
    )
    assert figures(test.run())["Base’s answer"] == f"{untouched.correct.mean():.3f}"
    test.selectbox(key="desideratum").select("").run()
    assert "Base’s answer" not in figures(test)
    assert "desideratum" not in test.query_params


def test_a_test_that_the_tokenizer_cannot_write_says_why_and_another_can_be_chosen() -> None:
    session_of("base")
    test = page(mode="counterfactual", desideratum="random_text_start")
    assert not test.exception
    assert "does not know “There”" in test.error[0].value
    assert "Choose another test" in test.error[0].value
    test.selectbox(key="desideratum").select("position").run()
    assert "Expected answer" in figures(test)
    assert not test.error


def test_another_task_starts_without_a_test() -> None:
    session_of("base")
    test = page(mode="counterfactual", desideratum="position")
    test.selectbox(key="task").set_value(IOI).run()
    assert not test.exception
    assert state(test, "desideratum") == ""


def test_buttons_switch_undo_and_redo() -> None:
    session_of("base")
    circuit = catalogue.circuit("base")
    test = page()
    everything = figures(test)

    def press(label: str) -> None:
        next(button for button in test.button if button.label == label).click()
        test.run()

    press("All off")
    assert state(test, "history").now.off == frozenset(circuit.members)
    nothing = figures(test)
    assert float(nothing["Circuit"]) < float(everything["Circuit"])
    press("Undo")
    assert figures(test) == everything
    press("Redo")
    assert figures(test) == nothing
    press("Invert")
    assert figures(test) == everything
    press("Reset")
    assert state(test, "history") == History()


def test_the_first_example_is_one_that_the_model_answers_right() -> None:
    session, circuit = session_of("base"), catalogue.circuit("base")
    alone = answers(session, intervention(circuit, Reading.circuit, Mode.mean))
    right = np.flatnonzero(session.whole.correct & alone.correct)
    assert any(f"Example {right[0] + 1} of {SMALL}" in m.value for m in page().markdown)


def test_examples_step_and_go_round() -> None:
    session_of("base")
    test = page(example="0")
    next(button for button in test.button if button.label == "◀").click()
    test.run()
    assert state(test, "example") == SMALL - 1


def test_next_flip_goes_where_the_first_answer_changed() -> None:
    session, circuit = session_of("base"), catalogue.circuit("base")
    off = frozenset(member for member in circuit.members if member[0] == "B")
    names = ",".join(f"{group}{str(head)[1:]}" for group, head in off)
    before = answers(session, intervention(circuit, Reading.circuit, Mode.mean))
    after = answers(session, intervention(circuit, Reading.circuit, Mode.mean, off))
    changed = before.top_ids[:, 0] != after.top_ids[:, 0]
    test = page(off=names, example="0")
    flip = next(button for button in test.button if button.label.startswith("Next flip"))
    assert flip.label == f"Next flip ({changed.sum()})"
    flip.click()
    test.run()
    assert state(test, "example") == np.flatnonzero(changed[1:])[0] + 1


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"model": "no-such-model"}, "There is no model “no-such-model”"),
        ({"circuit": "no-such-circuit"}, "There is no circuit “no-such-circuit”"),
        ({"circuit": "../../etc/passwd"}, "There is no circuit"),
    ],
)
def test_unknown_names_get_a_message(query: dict[str, str], message: str) -> None:
    session_of("base")
    test = page(**query)
    if "model" in query:
        jobs.job(
            Setting(query["model"], Prompts(ENTITY_TRACKING, SMALL, 0, (7,))),
            lambda report: iter([]),
        ).future.exception(60)
        test.run()
    assert not test.exception
    assert message in test.error[0].value


def test_a_damaged_model_gets_a_message_and_the_page_goes_on(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    test = page(model=str(tmp_path))
    setting = Setting(str(tmp_path), Prompts(ENTITY_TRACKING, SMALL, 0, (7,)))
    jobs.job(setting, lambda report: iter([])).future.exception(60)
    test.run()
    assert not test.exception
    assert "cannot be read" in test.error[0].value
    session_of("base")
    test.session_state["model"] = "base"
    assert "Circuit" in figures(test.run())


def test_an_address_full_of_rubbish_is_named_and_the_page_works() -> None:
    session_of("base")
    test = page(off="A99.99,banana", seed="x", boxes="100", mode="-", example="-1", unknown="1")
    assert "Circuit" in figures(test)
    for part in ("off=A99.99,banana", "seed=x", "boxes=100", "mode=-", "example=-1"):
        assert part in test.warning[0].value


def test_heads_that_the_circuit_has_not_are_named() -> None:
    session_of("base")
    test = page(off="A99.99")
    assert "L99.99 in A" in test.warning[0].value
    assert state(test, "history").now == Switches()


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(catalogue, "ADDED_CIRCUITS", tmp_path)
    return tmp_path


def test_a_circuit_outside_the_model_gets_a_message(added: Path) -> None:
    session_of("base")
    (added / "big.json").write_text(
        Circuit.of(ENTITY_TRACKING, {"A": (Head(31, 31),)}, "big").to_json()
    )
    test = page(circuit="big")
    assert not test.exception
    assert "has head L31.31 in group A" in test.error[0].value


def test_a_malformed_circuit_gets_a_message(added: Path) -> None:
    session_of("base")
    (added / "bad.json").write_text('{"groups": {"A": [[1]]}}')
    assert "groups.A" in page(circuit="bad").error[0].value


def test_the_address_says_what_is_shown() -> None:
    session_of("base")
    test = page(example="0")
    next(button for button in test.button if button.label == "▶").click()
    test.run()
    assert test.query_params == {"n": str(SMALL), "example": "1"}


@pytest.mark.parametrize("when", [1, 2])
def test_a_full_memory_gets_a_message_and_the_model_stays_loaded(
    when: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = session_of("base").loaded
    calls: list[int] = []

    def full(session: Session, step: Intervention) -> Answers:
        calls.append(1)
        if len(calls) >= when:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return answers(session, step)

    with monkeypatch.context() as patched:
        patched.setattr("backend.studies.session.answers", full)
        test = page()
    assert not test.exception
    assert test.error[0].value.startswith("The memory is full. Choose fewer prompts")
    assert load("base") is loaded
    assert "Circuit" in figures(test.run())
