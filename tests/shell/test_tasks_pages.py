"""Every page with another task than boxes: indirect objects, in a model planted for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from backend.commands.cli import main
from backend.methods.functions import carried
from backend.models import catalogue
from backend.models.loaded_models import fingerprint_of
from backend.studies import jobs
from backend.studies.patterns import patterns
from backend.studies.session import Session, answers, prepare
from backend.tasks.circuit import Circuit
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.ioi import IOI
from backend.tasks.prompts import Prompts
from backend.tasks.setting import Mode, Reading, Setting, intervention
from shell.frame.view import default_view, from_query, to_query
from tests import planted_ioi
from tests.dashboard import ROOT
from tests.shell.apps import figures

N = 50
CIRCUIT = Circuit.of(IOI, planted_ioi.CIRCUIT, "planted")
PAGES = (
    "circuit", "compare", "cmap", "discover", "function", "attention", "logits", "results", "paper",
    "models",
)  # fmt: skip


@pytest.fixture
def circuit_file(empty_cache: Path) -> Path:
    """The planted circuit, added under its name."""
    catalogue.add_circuit("planted.json", CIRCUIT.to_json().encode())
    return catalogue.ADDED_CIRCUITS / "planted.json"


@pytest.fixture(autouse=True)
def no_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of other tests is listed or running."""
    monkeypatch.setattr(jobs, "_jobs", type(jobs._jobs)())


def session_of(model: str) -> Session:
    """The session that the Circuit page will show, so that no test waits for it."""
    setting = Setting(model, Prompts(IOI, N, 0))
    return jobs.job(setting, lambda report: iter([prepare(setting, report)])).future.result(120)[0]


def patterns_of(model: str) -> None:
    """The same for what the Attention page will show."""
    asked = model, Prompts(IOI, N, 0), 0, None
    key = "patterns", fingerprint_of(model), *asked
    jobs.job(key, lambda report: iter([patterns(*asked)])).future.result(120)


def page(name: str = "circuit", **query: str) -> AppTest:
    test = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    test.switch_page(f"pages/{name}.py")
    test.query_params.update({"n": str(N)} | query)
    return sound(test.run())


def sound(test: AppTest) -> AppTest:
    assert not test.exception
    return test


def press(test: AppTest, label: str) -> AppTest:
    next(button for button in test.button if button.label == label).click()
    return sound(test.run())


def finished(test: AppTest) -> AppTest:
    """The page when what it started is done."""
    for job in [*jobs._jobs.values()]:
        job.future.exception(120)
    return sound(test.run())


def said(test: AppTest) -> str:
    """All words of the page itself."""
    words = (element.value for kind in ("markdown", "caption") for element in test.main.get(kind))
    return "\n".join(words)


def tables(test: AppTest) -> str:
    return "\n".join(element.proto.body for element in test.main.get("html"))


def test_the_circuit_page_shows_what_the_engine_gives(model: str, circuit_file: Path) -> None:
    session = session_of(model)
    off = frozenset({("SI", head) for head in planted_ioi.CIRCUIT["SI"]})
    now = answers(session, intervention(CIRCUIT, Reading.circuit, Mode.mean, off))
    test = page(task="ioi", model=model, circuit="planted", off="SI3.1")
    shown = figures(test)
    assert shown["Whole model"] == f"{session.whole.correct.mean():.3f}" == "1.000"
    assert shown["Circuit"] == f"{now.correct.mean():.3f}"
    assert float(shown["Circuit"]) < 0.5
    assert shown["P(right answer)"] == f"{now.probability.mean():.3f}"
    assert IOI.text in said(test)
    for group in IOI.groups:
        assert f"**{group.key}, {group.name}**" in said(test)
    for words in ("box", "Value Fetcher", "label"):
        assert words not in said(test)


def test_compare_measures_the_circuit_and_each_of_its_groups(
    model: str, circuit_file: Path
) -> None:
    session = session_of(model)
    alone = answers(session, intervention(CIRCUIT, Reading.circuit, Mode.mean))
    test = page("compare", task="ioi", model=model, circuit="planted")
    test = finished(press(test, "Run"))
    assert f"{session.whole.correct.mean():.3f}" in tables(test)
    assert f"{alone.correct.mean():.3f}" in tables(test)
    assert "1 PT, 2 IN, 1 SI, 2 NM" in said(test)
    assert "the answers that compete" in said(test)


def test_cmap_has_maps_and_ticks_of_the_task(model: str, circuit_file: Path) -> None:
    test = page("cmap", task="ioi", model=model, source=model, circuit="planted")
    test = finished(press(test, "Run"))
    for position in IOI.positions:
        words = position.words
        assert f"**{words[0].upper()}{words[1:]}**" in said(test)
    assert [*test.main.get("button_group")[-1].options] == ["PT", "IN", "SI", "NM"]
    test.session_state["ticked_groups"] = ["NM"]
    test.session_state["pinned"] = [*CIRCUIT.sites][:2]
    sound(test.run())
    for task in (ENTITY_TRACKING, IOI):
        test.selectbox(key="task").set_value(task)
        sound(test.run())


def test_discover_finds_the_planted_circuit_and_the_job_leads_back_to_it(model: str) -> None:
    test = page("discover", task="ioi", model=model)
    assert "What is found stands here" in said(test)
    for key, heads in planted_ioi.CIRCUIT.items():
        test.session_state[f"discover_keep_{key}"] = len(heads)
    test.session_state["discover_n"] = 40
    test = finished(press(sound(test.run()), "Run all four stages"))
    assert "**Into** the keys of IN, at the token after S1" in said(test)
    assert f"**Kept:** {planted_ioi.CIRCUIT['PT'][0]}." in said(test)
    press(test, "Open in the Circuit page")
    (saved,) = catalogue.circuits_for(IOI)
    assert catalogue.circuit(saved).nodes == CIRCUIT.nodes

    other = page("models")
    assert other.session_state["task"] == ENTITY_TRACKING
    press(other, "Open")
    assert other.session_state["task"] == IOI
    assert other.session_state["circuit"] == saved
    assert other.session_state["discover_keep_IN"] == 2


def test_function_says_what_the_planted_groups_encode_and_by_which_heads(
    model: str, circuit_file: Path
) -> None:
    session_of(model)
    test = finished(page("function", task="ioi", model=model, circuit="planted"))
    assert "If the heads carry the" in tables(test)
    test = finished(press(test, "Run"))
    parts = test.session_state[f"functions of {model}"].job.parts
    assert {("NM", "answer"), ("SI", "name")} <= {*carried(parts)}
    for part in parts:
        for each in part.groups.values():
            assert f"{each.expected.value:.3f}" in tables(test)
    test.session_state["dcm_n"] = 160
    test.session_state["function_group_ioi"] = "NM"
    test = finished(press(sound(test.run()), "Learn the mask"))
    (mask,) = test.session_state["mask"].job.parts
    assert {*mask.heads} <= {*planted_ioi.CIRCUIT["NM"]}
    assert mask.is_carried


@pytest.mark.parametrize("name", ["circuit", "compare", "cmap"])
def test_without_a_circuit_a_page_says_how_to_get_one(name: str) -> None:
    test = page(name, task="ioi")
    assert test.session_state["circuit"] == ""
    assert "There is no circuit for indirect object identification yet" in said(test)
    assert "Base knows only the words of entity tracking" in said(test)
    assert not test.error
    assert test.query_params == {"n": str(N), "task": "ioi"}
    assert "Discover" in said(test)


@pytest.mark.parametrize("name", PAGES)
def test_every_page_goes_from_task_to_task_and_back(
    name: str, model: str, circuit_file: Path
) -> None:
    session_of(model)
    patterns_of(model)
    test = page(name, task="ioi", model=model, circuit="planted")
    test.session_state["discover_keep_NM"] = 3
    for task, circuit in ((ENTITY_TRACKING, "base"), (IOI, "planted")):
        test.selectbox(key="task").set_value(task)
        sound(test.run())
        assert test.session_state["circuit"] == circuit
        assert test.session_state["model"] == model
    assert test.session_state["discover_keep_NM"] == 3


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ({"task": "ioi", "circuit": "base"}, "is for entity tracking, and the prompts are of"),
        ({"circuit": "planted"}, "is for indirect object identification, and the prompts are of"),
    ],
)
@pytest.mark.parametrize("name", ["circuit", "compare", "cmap", "discover", "attention"])
def test_a_circuit_of_another_task_is_refused(
    name: str, query: dict[str, str], reason: str, circuit_file: Path
) -> None:
    test = page(name, **query)
    assert reason in test.error[0].value


@pytest.mark.parametrize("command", ["faithfulness", "edges"])
def test_commands_refuse_it_too(
    command: str, circuit_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "base", "--task", "ioi", "--circuit", "base"]) == 1
    assert "is for entity tracking, and the prompts are of" in capsys.readouterr().err
    assert main([command, "base", "--circuit", str(circuit_file)]) == 1
    assert "is for indirect object identification" in capsys.readouterr().err


def test_a_model_without_the_words_says_so(circuit_file: Path) -> None:
    test = page(task="ioi", circuit="planted")
    with pytest.raises(Exception, match="names"):
        jobs.known(Setting("base", Prompts(IOI, N, 0))).future.result(60)  # type: ignore[union-attr]
    assert "of the 127 names as one token each" in sound(test.run()).error[0].value


@pytest.mark.parametrize(
    "query",
    [
        {"task": "ioi"},
        {"task": "ioi", "circuit": "mine", "model": "gpt2", "off": "NM9.9,PT2.2"},
        {"circuit": "mine", "off": "A4.1", "boxes": "3"},
        {},
    ],
)
def test_addresses_come_back(query: dict[str, Any]) -> None:
    view, complaints = from_query(query)
    assert not complaints
    assert to_query(view) == query


def test_an_address_of_before_is_of_the_first_task() -> None:
    view, _ = from_query({"circuit": "base", "off": "A4.1"})
    assert (view.task, view.circuit) == (ENTITY_TRACKING, "base")
    assert default_view(IOI).circuit == ""
