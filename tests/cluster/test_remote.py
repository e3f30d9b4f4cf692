"""Models that only a cluster has: as local ones to whoever asks, with one message for a click."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest

pytest.importorskip("ray")

from backend.cluster import host, joining
from backend.cluster.where import Cluster
from backend.commands.cli import main
from backend.core.errors import UserError
from backend.core.heads import Head
from backend.core.progress import Cancelled, Report
from backend.engine.answers import Answers
from backend.methods.stage import StageRequest
from backend.models import catalogue, elsewhere, loaded_models, prepared, registry
from backend.studies import questions, remote, session, studies
from backend.studies.model_host import ModelHost
from backend.studies.patterns import patterns
from backend.tasks.circuit import Circuit
from backend.tasks.ioi import IOI
from backend.tasks.prompts import Prompts
from backend.tasks.setting import Intervention, Mode, Reading, Setting, intervention
from tests import planted_ioi
from tests.cluster.test_crew import in_text, silent

THERE = Cluster("auto")
CIRCUIT = Circuit.of(IOI, planted_ioi.CIRCUIT)
PROMPTS = Prompts(IOI, 20, 0)
OFF = frozenset({("NM", Head(4, 0)), ("SI", Head(3, 1))})
pytestmark = pytest.mark.usefixtures("two")


@pytest.fixture(scope="module", autouse=True)
def asked(two: Any) -> Iterator[None]:
    remote.ask_for_models(THERE, silent)
    yield
    remote.leave()


@pytest.fixture
def far() -> session.Session:
    """Of the model that is only there."""
    return prepare("planted")


@pytest.fixture
def near(there: Path) -> session.Session:
    """Of the same model, from its folder."""
    return prepare(str(there / "planted"))


def prepare(model: str) -> session.Session:
    setting = Setting(model, PROMPTS)
    return prepared.get(setting) or session.prepare(setting, silent)


def click(
    reading: Reading = Reading.circuit, mode: Mode = Mode.mean, off: Any = OFF, **asked: str
) -> Intervention:
    return intervention(CIRCUIT, reading, mode, off, **asked)


def n_asked() -> int:
    """How many messages have reached the process there."""
    assert remote._host
    found: int = remote._host.ray.get(remote._host.actor.n_asked.remote())
    return found


def as_arrays(answers: Answers) -> Mapping[str, np.ndarray]:
    return {each.name: getattr(answers, each.name) for each in fields(answers)}


def test_models_that_are_only_there_are_known_as_they_are_called_there(there: Path) -> None:
    assert {*elsewhere.known()} == {"planted", "replanted"}
    known = catalogue.about("planted")
    assert known
    assert (known.kind, known.source) == (registry.Kind.remote, there / "planted")
    base = catalogue.about("base")
    assert base
    assert base.kind is registry.Kind.bundled, "what is here stays here"
    found = loaded_models.fingerprint_of("planted")
    assert found == loaded_models.fingerprint_of(str(there / "planted"))


def test_a_page_reads_of_it_what_it_reads_of_a_local_one(
    far: session.Session, near: session.Session
) -> None:
    assert far.loaded.shape == near.loaded.shape
    assert far.prompts.texts == near.prompts.texts
    words = [far.loaded.tokenizer.decode([token]) for token in far.prompts.input_ids[0]]
    assert words == [near.loaded.tokenizer.decode([token]) for token in near.prompts.input_ids[0]]
    np.testing.assert_equal(as_arrays(far.whole), as_arrays(near.whole))
    np.testing.assert_equal(dict(far.attention.mass), dict(near.attention.mass))
    assert far.loaded.notes(IOI) == near.loaded.notes(IOI) == loaded_models.notes_of("planted", IOI)


@pytest.mark.parametrize("reading", list(Reading))
@pytest.mark.parametrize("mode", [Mode.mean, Mode.zero, Mode.counterfactual])
def test_a_click_is_one_message_and_gives_what_it_gives_here(
    far: session.Session, near: session.Session, reading: Reading, mode: Mode
) -> None:
    session.prepare_mode(far, reading, mode)
    before = n_asked()
    there = session.answers(far, click(reading, mode))
    assert n_asked() == before + 1
    np.testing.assert_equal(
        as_arrays(there), as_arrays(session.answers(near, click(reading, mode)))
    )
    assert session.answers(far, click(reading, mode)) is there
    assert n_asked() == before + 1, "what is kept is not asked again"


def test_a_tested_head_needs_two_answers_and_one_message(
    far: session.Session, near: session.Session
) -> None:
    name = IOI.desiderata[0].name
    step = click(mode=Mode.counterfactual, desideratum=name)
    pairs = [session.alternate(each, name).pairs for each in (far, near)]
    assert pairs[0].alternate.texts == pairs[1].alternate.texts
    before = n_asked()
    there = [session.answers(far, step), session.expected_answers(far, step)]
    assert n_asked() == before + 1
    here = [session.answers(near, step), session.expected_answers(near, step)]
    for one, other in zip(there, here, strict=True):
        np.testing.assert_equal(as_arrays(one), as_arrays(other))


def test_values_of_another_model_stay_there(
    far: session.Session, near: session.Session, there: Path
) -> None:
    session.prepare_source(far, "replanted")
    before = n_asked()
    found = session.answers(far, click(mode=Mode.other, source="replanted"))
    assert n_asked() == before + 1
    step = click(mode=Mode.other, source=str(there / "replanted"))
    np.testing.assert_equal(as_arrays(found), as_arrays(session.answers(near, step)))
    with pytest.raises(UserError, match="is on the cluster, and this needs it on this computer"):
        session.prepare_source(near, "replanted")


def test_attention_and_contributions_are_those_of_here(
    far: session.Session, near: session.Session, there: Path
) -> None:
    assert session.head_contributions(far) == session.head_contributions(near)
    switched = click(Reading.model)
    found = patterns("planted", PROMPTS, 3, switched)
    expected = patterns(str(there / "planted"), PROMPTS, 3, switched)
    assert (found.words, found.roles) == (expected.words, expected.roles)
    np.testing.assert_array_equal(found.weights, expected.weights)


def test_what_cannot_be_there_is_told_as_here(far: session.Session) -> None:
    with pytest.raises(UserError, match="base has 8 heads in a layer"):
        session.prepare_source(far, "base")


def test_preparing_can_be_cancelled_and_others_are_answered_meanwhile(
    far: session.Session,
) -> None:
    def report(stage: str, share: float) -> None:
        assert session.answers(far, click(off=frozenset({("PT", Head(0, 1))})))
        raise Cancelled

    setting = Setting("planted", Prompts(IOI, 4000, 1))
    with pytest.raises(Cancelled):
        session.prepare(setting, report)
    assert prepared.get(setting) is None


def test_what_is_cancelled_there_ends_at_its_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = Event()

    def endless(report: Report) -> None:
        while True:
            begun.set()
            report("Counting", 0.5)

    monkeypatch.setattr(questions, "QUESTIONS", {"endless": endless})
    process = ModelHost(loaded_models.usual())
    with ThreadPoolExecutor() as threads:
        answer = threads.submit(process.answer, "ticket", 1, "endless", ())
        begun.wait()
        process.cancel("ticket")
        assert b"It was cancelled" in answer.result(timeout=60)


def test_a_model_whose_files_change_there_is_noticed(there: Path, far: session.Session) -> None:
    config = there / "planted" / "config.json"
    before = config.read_bytes()
    config.write_bytes(before + b"\n")
    try:
        with pytest.raises(UserError, match=r"have changed on the cluster\. Try again"):
            session.answers(far, click(off=frozenset({("NM", Head(4, 0))})))
        assert not loaded_models.is_current(far.loaded)
        assert loaded_models.is_current(session.prepare(far.setting, silent).loaded)
    finally:
        config.write_bytes(before)
        remote.ask_for_models(THERE, silent)


def test_a_process_that_dies_is_told_and_another_takes_its_place(
    two: Any, far: session.Session
) -> None:
    assert remote._host
    two.kill(remote._host.actor)
    step = click(off=frozenset({("IN", Head(2, 0))}))
    with pytest.raises(UserError, match=r"does not answer: .* Try again"):
        session.answers(far, step)
    assert not loaded_models.is_current(far.loaded)
    again = prepare("planted") if prepared.get(far.setting) is not far else None
    again = again or session.prepare(far.setting, silent)
    assert loaded_models.is_current(again.loaded)
    assert len(session.answers(again, step).correct) == len(PROMPTS.sample(again.loaded.tokenizer))


def test_other_versions_are_refused_before_anything_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as other:
        other.setattr(host, "versions", lambda: {"torch": "1.0"})
        with pytest.raises(UserError, match=r"torch is .* there and 1\.0 here\. Install the same"):
            remote.ask_for_models(THERE, silent)
        assert not elsewhere.known()
    remote.ask_for_models(THERE, silent)


def test_long_work_on_it_is_done_there_and_found_again(there: Path) -> None:
    request = StageRequest("planted", replace(PROMPTS, n=8), "NM", ())
    with pytest.raises(UserError, match="long work does not run there"):
        _ = [*studies.run(request, silent)]
    try:
        studies._cluster = THERE  # `work_on` would ask for the models anew
        (found,) = studies.run(request, silent)
        stored = studies.find(request)
        assert stored
        assert in_text(stored.parts) == in_text([found])
        here = studies.find(replace(request, model=str(there / "planted")))
        assert here, "it is the same model wherever it lies"
    finally:
        studies._cluster = None


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:9"])
def test_where_nothing_listens_it_is_told_at_once(address: str, two: Any) -> None:
    with pytest.raises(UserError, match=r"No Ray cluster answers at .*: .*refused"):
        joining.begin(two, Cluster(address))


def test_a_command_finds_a_model_that_is_only_there(
    capsys: pytest.CaptureFixture[str], there: Path
) -> None:
    asked = ("accuracy", "planted", "--task", "ioi", "--prompts", "8", "--ray", "auto")
    try:
        assert main(asked) == 0, capsys.readouterr().err
        assert '"planted"' in capsys.readouterr().out
    finally:
        studies.work_on(None)
        remote.ask_for_models(THERE, silent)
