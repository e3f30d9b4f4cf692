"""Background jobs: order, cancelling, what is kept, and how long work makes way for urgent work."""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from backend.core import priority
from backend.core.errors import UserError, explained
from backend.core.priority import unheld, unhurried, urgent
from backend.core.progress import Cancelled, Report
from backend.studies import jobs
from backend.studies.jobs import Job, State

PATIENCE = 60
A_MOMENT = 0.2


class Step:
    """Work that says when it has begun, and goes on when it is let."""

    def __init__(self) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()

    def __call__(self, report: Report) -> Iterator[str]:
        report("first half", 0.0)
        yield "first"
        self.begun.set()
        assert self.go_on.wait(PATIENCE)
        report("second half", 0.5)
        yield "second"


def works(*parts: Any) -> Callable[[Report], Iterator[Any]]:
    return lambda report: iter(parts)


@pytest.fixture(autouse=True)
def _own_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_jobs", type(jobs._jobs)())


@pytest.fixture
def step() -> Iterator[Step]:
    """Its job ends with the test, whatever happens."""
    step = Step()
    yield step
    step.go_on.set()


def test_a_job_runs_once_and_is_kept() -> None:
    calls = []
    for _ in range(3):
        job = jobs.job("once", lambda report: iter([calls.append(1) or "done"]))
        assert job.future.result(PATIENCE) == ["done"]
    assert calls == [1]
    assert job.state is State.finished


def test_a_failed_job_keeps_its_error_until_forgotten() -> None:
    def fail(report: Report) -> Iterator[int]:
        yield 1
        raise OSError("disk full")

    failed = jobs.job("fails", fail)
    assert isinstance(failed.future.exception(PATIENCE), OSError)
    assert (failed.parts, failed.state) == ([1], State.failed)
    assert jobs.job("fails", works(2)) is failed
    jobs.forget("fails")
    assert jobs.job("fails", works(2)).future.result(PATIENCE) == [2]


def test_a_failed_job_does_not_keep_what_it_was_working_on() -> None:
    class Tensor:
        pass

    seen = []

    def fail(report: Report) -> Iterator[int]:
        tensor = Tensor()
        seen.append(weakref.ref(tensor))
        try:
            raise RuntimeError("out of memory")
        except RuntimeError as error:
            raise ValueError from error
        yield 1

    failed = jobs.job("fails", fail)
    assert isinstance(failed.future.exception(PATIENCE), ValueError)
    assert seen[0]() is None


def test_a_running_job_that_is_cancelled_keeps_what_is_finished(step: Step) -> None:
    job = jobs.job("cancelled", step)
    assert step.begun.wait(PATIENCE)
    assert (job.stage, job.state, job.seconds_left) == ("first half", State.running, None)
    job.cancel()
    step.go_on.set()
    assert isinstance(job.future.exception(PATIENCE), Cancelled)
    assert (job.parts, job.state) == (["first"], State.cancelled)


def test_long_jobs_of_a_device_run_one_after_the_other_in_order(step: Step) -> None:
    order: list[int] = []
    first = jobs.job("first", step)
    rest = [
        jobs.job(number, lambda report, number=number: iter([order.append(number)]))
        for number in range(5)
    ]
    assert step.begun.wait(PATIENCE)
    assert [job.state for job in (first, *rest)] == [State.running] + [State.queued] * 5
    assert [jobs.n_before(job) for job in rest] == [1, 2, 3, 4, 5]
    assert jobs.before(rest[1]) == [first, rest[0]]
    assert {job.seconds for job in rest} == {0.0}
    elsewhere = jobs.job("elsewhere", works("done"), where=lambda: frozenset({"another"}))
    assert elsewhere.future.result(PATIENCE) == ["done"]
    assert not order
    step.go_on.set()
    rest[-1].future.result(PATIENCE)
    assert order == [*range(5)]


def test_a_job_on_two_devices_waits_for_both(step: Step) -> None:
    other_step = Step()
    here = jobs.job("here", step)
    jobs.job("there", other_step, where=lambda: frozenset({"there"}))
    both = jobs.job("both", works("done"), where=lambda: jobs.on_cpu() | {"there"})
    assert step.begun.wait(PATIENCE)
    assert other_step.begun.wait(PATIENCE)
    assert jobs.n_before(both) == 2
    step.go_on.set()
    here.future.result(PATIENCE)
    assert (jobs.n_before(both), both.state) == (1, State.queued)
    other_step.go_on.set()
    assert both.future.result(PATIENCE) == ["done"]


def test_nobody_overtakes_a_job_before_it_is_known_where_it_works() -> None:
    known, order = threading.Event(), []

    def where() -> frozenset[str]:
        assert known.wait(PATIENCE)
        return jobs.on_cpu()

    first = jobs.job("first", lambda report: iter([order.append(1)]), where=where)
    second = jobs.job("second", lambda report: iter([order.append(2)]))
    assert (first.state, second.state) == (State.queued, State.queued)
    known.set()
    second.future.result(PATIENCE)
    assert order == [1, 2]


def test_work_on_a_device_that_is_not_there_says_so_itself() -> None:
    def fail(report: Report) -> Iterator[int]:
        raise UserError("The device is not there.")
        yield 1

    def where() -> frozenset[str]:
        raise UserError("The device is not there.")

    error = jobs.job("fails", fail, where=where).future.exception(PATIENCE)
    assert str(error) == "The device is not there."


def test_a_queued_job_that_is_cancelled_ends_at_once_and_never_runs(step: Step) -> None:
    ran: list[str] = []
    jobs.job("first", step)
    assert step.begun.wait(PATIENCE)
    second = jobs.job("second", lambda report: iter([ran.append("second")]))
    third = jobs.job("third", lambda report: iter([ran.append("third")]))
    second.cancel()
    assert second.state is State.cancelled
    assert jobs.n_before(third) == 1
    step.go_on.set()
    third.future.result(PATIENCE)
    assert ran == ["third"]


def test_time_counts_from_when_a_job_began_to_run(
    step: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(jobs, "monotonic", lambda: now[0])
    jobs.job("first", step)
    assert step.begun.wait(PATIENCE)
    second_step = Step()
    second = jobs.job("second", second_step)
    now[0] = 1000.0
    step.go_on.set()
    assert second_step.begun.wait(PATIENCE)
    now[0] = 1030.0
    assert second.seconds == 30.0
    second_step.go_on.set()
    second.future.result(PATIENCE)
    now[0] = 2000.0
    assert second.seconds == 30.0


def test_a_job_says_when_it_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    job = jobs.Job()
    monkeypatch.setattr(jobs, "hold", lambda is_over: seen.append(job.is_held))
    job.run(lambda report: iter([report("on its way", 0.5)]))
    assert seen == [True, True]
    assert not job.is_held


def test_a_job_that_fails_does_not_stop_the_next() -> None:
    def fail(report: Report) -> Iterator[int]:
        raise SystemExit

    jobs.job("fails", fail)
    assert jobs.job("next", works("done")).future.result(PATIENCE) == ["done"]


def test_urgent_jobs_do_not_queue_and_long_ones_hold_meanwhile(step: Step) -> None:
    long = jobs.job("long", step)
    assert step.begun.wait(PATIENCE)
    quick, other = Step(), Step()
    for number, each in enumerate((quick, other)):
        jobs.job(number, each, kind=jobs.QUICK)
        assert each.begun.wait(PATIENCE)
    step.go_on.set()
    quick.go_on.set()
    jobs.job(0, quick).future.result(PATIENCE)
    assert not long.future.done()
    with pytest.raises(TimeoutError):
        long.future.result(A_MOMENT)
    assert long.parts == ["first"]
    other.go_on.set()
    assert long.future.result(PATIENCE) == ["first", "second"]


@pytest.mark.skipif(sys.platform != "linux", reason="Only Linux has priorities of threads.")
@pytest.mark.parametrize(
    ("kind", "is_lower"), [(jobs.LONG, True), (jobs.SMALL, True), (jobs.PREPARATION, False)]
)
def test_work_that_nobody_waits_for_leaves_the_processors_to_others(
    kind: jobs.Kind, is_lower: bool
) -> None:
    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    def work(report: Report) -> Iterator[int]:
        yield niceness()
        with ThreadPoolExecutor() as started_here:
            yield started_here.submit(niceness).result()

    before = niceness()
    found = jobs.job(("nice", kind), work, kind=kind).future.result(PATIENCE)
    assert [each > before for each in found] == [is_lower, is_lower]
    assert niceness() == before


def test_one_setting_is_prepared_at_a_time_whatever_long_work_does(step: Step) -> None:
    long, preparing = Step(), Step()
    jobs.job("long", long)
    assert long.begun.wait(PATIENCE)
    first, second = (
        jobs.job(key, each, kind=jobs.PREPARATION) for key, each in ((1, preparing), (2, step))
    )
    assert preparing.begun.wait(PATIENCE)
    quick = jobs.job("quick", works("answer"), kind=jobs.QUICK)
    assert quick.future.result(PATIENCE) == ["answer"]
    assert (second.state, jobs.n_before(second)) == (State.queued, 1)
    preparing.go_on.set()
    assert first.future.result(PATIENCE)
    assert step.begun.wait(PATIENCE)
    long.go_on.set()


def test_long_work_goes_on_while_urgent_work_waits_for_something_else(step: Step) -> None:
    long = jobs.job("long", step)
    assert step.begun.wait(PATIENCE)
    with urgent():
        step.go_on.set()
        with pytest.raises(TimeoutError):
            long.future.result(A_MOMENT)
        with unhurried():
            assert long.future.result(PATIENCE) == ["first", "second"]
        assert priority._n_urgent == 1
    with unhurried():
        assert priority._n_urgent == 0


def test_urgent_work_that_fails_lets_long_work_go_on(step: Step) -> None:
    long = jobs.job("long", step)
    assert step.begun.wait(PATIENCE)
    with suppress(ZeroDivisionError), urgent():
        step.go_on.set()
        with pytest.raises(TimeoutError):
            long.future.result(A_MOMENT)
        raise ZeroDivisionError
    assert long.future.result(PATIENCE) == ["first", "second"]


def test_a_job_that_holds_can_be_cancelled(step: Step) -> None:
    long = jobs.job("long", step)
    assert step.begun.wait(PATIENCE)
    with urgent():
        step.go_on.set()
        with pytest.raises(TimeoutError):
            long.future.result(A_MOMENT)
        long.cancel()
        assert isinstance(long.future.exception(PATIENCE), Cancelled)


def test_long_work_holds_while_a_browser_is_expected(
    step: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(priority, "_expected_until", priority._expected_until)
    monkeypatch.setattr(priority, "_DRAWN_S", 2 * A_MOMENT)
    long = jobs.job("long", step)
    assert step.begun.wait(PATIENCE)
    priority.expect_browser()
    step.go_on.set()
    with pytest.raises(TimeoutError):
        long.future.result(A_MOMENT)
    assert long.is_held
    assert long.future.result(PATIENCE) == ["first", "second"]


def test_work_that_waits_for_what_long_work_has_is_not_stuck(
    step: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(priority, "_MOST_HELD_S", 0.01)
    long = jobs.job("long", step)
    step.go_on.set()
    with urgent():
        assert long.future.result(PATIENCE) == ["first", "second"]


def test_work_does_not_hold_where_urgent_work_may_be_waiting_for_it() -> None:
    begun, go_on, loaded = threading.Event(), threading.Event(), threading.Event()

    def work(report: Report) -> Iterator[str]:
        begun.set()
        assert go_on.wait(PATIENCE)
        with unheld():
            report("loading a model", 0.5)
        loaded.set()
        report("using it", 0.6)
        yield "used"

    long = jobs.job("long", work)
    assert begun.wait(PATIENCE)
    with urgent():
        go_on.set()
        assert loaded.wait(PATIENCE)
        with pytest.raises(TimeoutError):
            long.future.result(A_MOMENT)
    assert long.future.result(PATIENCE) == ["used"]


@pytest.mark.parametrize("kind", [jobs.LONG, jobs.QUICK, jobs.PREPARATION])
def test_only_the_last_results_of_a_kind_are_kept(
    kind: jobs.Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "tidy_up", lambda: None)  # takes a second each time

    class Result:
        pass

    other = jobs.job("other", works(0), kind=jobs.Kind(1, is_urgent=True, queues=False))
    alive = []
    for number in range(kind.n_kept + 3):
        result = Result()
        alive.append(weakref.ref(result))
        jobs.job(number, works(result), kind=kind).future.result(PATIENCE)
        del result
    assert [each() is not None for each in alive] == [False] * 3 + [True] * kind.n_kept
    assert jobs.known("other") is other


def test_a_job_that_has_not_ended_is_not_forgotten(step: Step) -> None:
    job = jobs.job("running", step)
    jobs.forget("running")
    assert jobs.known("running") is job


def test_the_list_has_the_jobs_with_a_title_and_the_newest_first() -> None:
    jobs.job("a", works(), "A")
    jobs.job("silent", works(), kind=jobs.QUICK)
    jobs.job("b", works(), "B", request="asked")
    jobs.job("a", works(), "A")
    assert [(each.title, each.request) for each in jobs.listed()] == [("B", "asked"), ("A", None)]


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (UserError("There is no such model. Choose another."), "There is no such model. Choose"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), "Choose fewer prompts"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you"), "The memory is full"),
        (MemoryError(), "The memory is full"),
        (ValueError("odd"), "This failed: ValueError: odd. Choose fewer prompts or another model"),
    ],
)
def test_what_is_said_of_an_error(error: Exception, says: str) -> None:
    assert says in explained(error)


def test_a_real_torch_error_for_a_full_memory_is_known() -> None:
    import torch

    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**58, dtype=torch.uint8)
    assert "The memory is full" in explained(caught.value)
    assert "The memory is full" in explained(torch.cuda.OutOfMemoryError("CUDA out of memory."))


def test_a_job_out_of_a_file_is_finished() -> None:
    assert jobs.finished([1]).state is State.finished
    assert Job().state is State.queued
