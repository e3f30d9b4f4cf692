"""A crew: the result of one process, whoever dies, and what a user is told."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

pytest.importorskip("ray")

from backend.cluster import crew, keeping, worker
from backend.cluster.where import Cluster
from backend.cluster.worker import Like
from backend.commands.cli import main
from backend.core.errors import UserError
from backend.core.placement import CPU, Dtype, Placement
from backend.core.progress import Cancelled, Report
from backend.core.serialize import to_json
from backend.methods.requests import Request
from backend.methods.stage import StageRequest
from backend.models import loaded_models
from backend.studies import store, studies
from backend.studies.keys import identity
from tests.cluster.conftest import TWO
from tests.cluster.odd_workers import Breaking, Small, Tiny
from tests.studies.test_resume_within import PROMPTS, REQUESTS, family  # noqa: F401

pytestmark = pytest.mark.usefixtures("two")


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CIRCUIT_EXPLORER_CHUNK", "4")
    yield
    studies.work_on(None)


@pytest.fixture
def compared(family: Sequence[str]) -> Request:  # noqa: F811
    """Two parts of some blocks each."""
    return REQUESTS["compare"](*family)


@pytest.fixture
def expected(compared: Request) -> str:
    """What one process finds; nothing of it stays."""
    found = in_text([*studies.run(compared, silent)])
    forget(compared)
    return found


def silent(stage: str, share: float) -> None:
    """A report to nobody."""


def in_text(parts: Sequence[Any]) -> str:
    return json.dumps(to_json(tuple(parts)))


def forget(request: Request) -> None:
    key = identity(request)
    assert key
    entry = store.find(key)
    assert entry
    store.delete(entry)


def run(request: Request, report: Report = silent) -> str:
    studies.work_on(TWO)
    return in_text([*studies.run(request, report)])


def workers() -> list[psutil.Process]:
    """The processes that work now, on this computer."""
    return [each for each in processes() if each.name().startswith("ray::Worker")]


def processes() -> Iterator[psutil.Process]:
    for each in psutil.Process().children(recursive=True):
        try:
            each.name()
        except psutil.Error:
            continue
        yield each


def connections(process: psutil.Process) -> Sequence[Any]:
    """Those of a process, unless it has just ended."""
    try:
        return process.net_connections("inet")
    except psutil.NoSuchProcess:
        return ()


def all_end(those: Sequence[psutil.Process]) -> bool:
    """Whether these processes are gone, or soon will be."""
    return not psutil.wait_procs(those, timeout=60)[1]


def once(do: Callable[[], None], is_time: Callable[[], bool]) -> Report:
    """A report that does something, the first time that it is time for it."""
    done: list[None] = []

    def report(stage: str, share: float) -> None:
        if not done and is_time():
            done.append(do())

    return report


def test_two_processes_find_what_one_finds_and_say_how_many_they_are(
    compared: Request, expected: str
) -> None:
    told: list[tuple[str, float]] = []
    assert run(compared, lambda *each: told.append(each)) == expected
    assert any(stage.endswith(" · 2 processes on local:2") for stage, _ in told)
    shares = [share for _, share in told]
    assert shares == sorted(shares)


def test_processes_stay_for_the_next_study_and_see_that_a_model_has_changed(
    compared: Request,
    expected: str,
    family: Sequence[str],  # noqa: F811
) -> None:
    assert run(compared) == expected
    stayed = {each.pid for each in workers()}
    assert len(stayed) == 2
    weights = Path(family[1]) / "model.safetensors"
    before = weights.read_bytes()
    weights.write_bytes((Path(family[0]) / "model.safetensors").read_bytes())
    try:
        changed = run(compared)
        assert {each.pid for each in workers()} == stayed
        forget(compared)
        studies.work_on(None)
        assert in_text([*studies.run(compared, silent)]) == changed != expected
    finally:
        weights.write_bytes(before)


def test_processes_go_when_nobody_has_needed_them_for_a_while(
    compared: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "_IDLE_S", 0.1)
    stayed: list[psutil.Process] = []
    run(compared, lambda stage, share: stayed.extend(workers()))
    assert stayed
    assert all_end(stayed)


def test_processes_go_when_work_is_to_be_elsewhere(compared: Request) -> None:
    run(compared)
    stayed = workers()
    assert stayed
    studies.work_on(Cluster(n_local=1))
    assert all_end(stayed)


def test_a_process_keeps_the_models_of_its_last_task_alone(family: Sequence[str]) -> None:  # noqa: F811
    process = worker.Worker(CPU)
    process._take({name: Like("", Dtype.float32, False) for name in family})
    for name in family:
        loaded_models.load(name)
    first = loaded_models.load(family[0])
    process._take({family[0]: Like("", Dtype.float32, False)})
    assert loaded_models.loaded() == {family[0]: first}
    process._take({family[0]: Like("", Dtype.bfloat16, False)})
    assert loaded_models.load(family[0]).placement.dtype is Dtype.bfloat16
    loaded_models.place_by_default(Placement())


def test_models_are_in_the_numbers_that_they_have_here(
    compared: Request,
    family: Sequence[str],  # noqa: F811
) -> None:
    for name, dtype in zip(family, (Dtype.bfloat16, Dtype.float32), strict=True):
        loaded_models.load(name, Placement(dtype=dtype))
    rough = in_text([*studies.run(compared, silent)])
    forget(compared)
    assert run(compared) == rough
    loaded_models.place_by_default(Placement())
    assert in_text([*studies.run(compared, silent)]) != rough


def test_a_command_says_what_rounding_does_and_what_is_to_be_known_as_without_a_cluster(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CIRCUIT_EXPLORER_CHUNK")

    def said(seed: str, *where: str) -> Sequence[str]:
        asked = ["discover", "base", "--prompts", "12", "--boxes", "3", "--seed", seed]
        assert main([*asked, "--dtype", "bfloat16", *where]) == 0
        return [line for line in capsys.readouterr().err.splitlines() if "bfloat16" in line]

    alone = said("3")
    loaded_models.unload("base")
    assert said("4", "--ray", "local:2") == alone
    assert len(alone) == 1
    loaded_models.place_by_default(Placement())


def test_what_is_to_be_known_of_a_model_is_known_here_when_it_was_at_work_there(
    compared: Request,
    family: Sequence[str],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loaded_models, "_noted", {})
    task = compared.prompts.task
    notes = {name: loaded_models.load(name).notes(task) for name in family}
    for name in family:
        loaded_models.unload(name)
        assert not loaded_models.notes_of(name, task)
    run(compared)
    assert {name: loaded_models.notes_of(name, task) for name in family} == notes
    assert all(notes.values())


def test_when_one_dies_another_makes_what_it_was_making(compared: Request, expected: str) -> None:
    killed: list[int] = []

    def kill() -> None:
        there = workers()[0]
        there.kill()
        killed.append(there.pid)

    begun = once(kill, lambda: studies.is_begun(compared) and bool(workers()))
    assert run(compared, begun) == expected
    assert killed


def test_those_that_die_again_and_again_are_given_up(compared: Request) -> None:
    def kill(stage: str, share: float) -> None:
        for each in workers():
            each.kill()

    with pytest.raises(UserError, match=r"die again and again.*Start again"):
        run(compared, kill)
    assert all_end(workers())


def test_a_cancelled_one_frees_all_and_one_process_goes_on_from_there(
    compared: Request, expected: str
) -> None:
    def cancel() -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        run(compared, once(cancel, lambda: studies.is_begun(compared)))
    assert all_end(workers())
    assert studies.is_begun(compared)
    studies.work_on(None)
    assert in_text([*studies.run(compared, silent)]) == expected


def test_two_go_on_from_what_one_had_begun(
    compared: Request, expected: str, two: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cancel() -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        _ = [*studies.run(compared, once(cancel, lambda: studies.is_begun(compared)))]
    before = studies.unfinished(compared, 0)
    assert before
    known = {f"0/{name}" for name in before.everything()}
    plain, on_board = crew._board, set()

    def board(*given: Any) -> Any:
        made = plain(*given)
        on_board.update(two.get(made.names.remote("")))
        return made

    monkeypatch.setattr(crew, "_board", board)
    assert run(compared) == expected
    assert on_board == known
    assert known


def test_out_of_memory_in_one_process_makes_the_batches_of_all_smaller(
    compared: Request, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "Worker", Small)
    assert run(compared) == expected


def test_memory_for_nothing_is_told_as_by_one_process(
    compared: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CIRCUIT_EXPLORER_CHUNK", "1")
    monkeypatch.setattr(crew, "Worker", Tiny)
    with pytest.raises(UserError, match=r"memory .* full with 1 prompts"):
        run(compared)


def test_what_breaks_in_a_process_is_one_message(
    compared: Request, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(crew, "Worker", Breaking)
    with pytest.raises(UserError, match=r"failed: ZeroDivisionError: .*\. Start again"):
        run(compared)
    (record,) = (each for each in caplog.records if "Traceback" in each.getMessage())
    assert record.getMessage().count("ZeroDivisionError") == 1


def test_what_cannot_be_measured_is_told_as_by_one_process(tmp_path: Any) -> None:
    request = StageRequest(str(tmp_path / "nowhere"), PROMPTS, "A", ())
    with pytest.raises(UserError) as alone:
        _ = [*studies.run(request, silent)]
    with pytest.raises(UserError) as by_two:
        run(request)
    assert str(by_two.value) == str(alone.value)


def test_another_version_and_another_model_are_refused(
    compared: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as other:
        other.setattr(crew, "versions", lambda: {**worker.versions(), "torch": "1.0"})
        with pytest.raises(UserError, match=r"torch is .* there and 1\.0 here\. Install the same"):
            run(compared)
    monkeypatch.setattr(crew, "fingerprint_of", lambda name: "another")
    with pytest.raises(UserError, match="is not the same on the machine"):
        run(compared)


def test_without_ray_it_says_how_to_have_it(
    compared: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install -r requirements-cluster\.txt"):
        run(compared)


def test_it_listens_to_this_computer_alone() -> None:
    listening = {
        connection.laddr.ip.removeprefix("::ffff:")
        for each in (psutil.Process(), *processes())
        for connection in connections(each)
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}
