"""Torch's switches: those of the model that is at work, whatever else is loaded or runs beside."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from backend.core.components import Component
from backend.core.metrics import Ablation
from backend.core.placement import Dtype, Placement
from backend.core.priority import hold, urgent
from backend.core.runtime import Runtime, at_work, runtime_for, standing_aside
from backend.engine.architectures import layers
from backend.methods import evaluation as evaluations
from backend.methods import noise
from backend.methods.accuracy import AccuracyRequest
from backend.methods.cmap import CmapRequest, SetRequest, compatible
from backend.methods.compare import ComparisonRequest
from backend.methods.completeness import CompletenessRequest
from backend.methods.dcm import DcmRequest
from backend.methods.edges import EdgesRequest
from backend.methods.evaluation import evaluation
from backend.methods.faithfulness import FaithfulnessRequest
from backend.methods.minimality import MinimalityRequest
from backend.methods.registry import method_of
from backend.methods.stage import StageRequest
from backend.models import catalogue, loaded_models, loading
from backend.studies import session
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.prompts import Prompts
from backend.tasks.setting import Mode, Reading, Setting, intervention

EXACT, FAST = Runtime(False, 2), Runtime(True, 3)
A_MOMENT = 0.2


def now() -> Runtime:
    matmul, cudnn = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    assert matmul == cudnn
    return Runtime(matmul, torch.get_num_threads())


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    """Every test leaves the process as it was: with a setting that no work here asks for."""
    torch.backends.cudnn.allow_tf32 = False
    torch.set_num_threads(1)
    yield
    assert now() == Runtime(False, 1)
    torch.backends.cudnn.allow_tf32 = True


def test_switches_hold_in_the_block_and_are_put_back_whatever_happens() -> None:
    def nested() -> None:
        with at_work(FAST):
            assert now() == FAST
            with at_work(EXACT):
                assert now() == EXACT
                with at_work(EXACT), at_work(None):
                    assert now() == EXACT
            assert now() == FAST
            raise KeyError

    with pytest.raises(KeyError):
        nested()
    assert now() == Runtime(False, 1)


def test_what_was_set_before_is_what_is_put_back() -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    with at_work(EXACT):
        assert now() == EXACT
    assert now() == Runtime(True, 1)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


def test_threads_are_many_only_for_models_that_gain_by_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert runtime_for(100, tf32=True) == Runtime(True, 1)
    assert runtime_for(10**9, tf32=False) == Runtime(False, os.cpu_count() or 1)


@pytest.mark.parametrize(("said", "n_threads"), [("5", 5), ("0", None), ("", None), ("4,2", None)])
def test_threads_are_as_many_as_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, said: str, n_threads: int | None
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert runtime_for(10**9, tf32=False).n_threads == (n_threads or os.cpu_count())
    assert runtime_for(100, tf32=False).n_threads == 1


def test_the_number_of_threads_is_each_thread_s_own() -> None:
    """As torch has it: else work with another number would have to wait, as for TF32."""
    seen = {}

    def other() -> None:
        with at_work(Runtime(False, 3)):
            inside.set()
            assert ready.wait(10)
            seen["other"] = torch.get_num_threads()
        seen["after"] = torch.get_num_threads()

    inside, ready = threading.Event(), threading.Event()
    with at_work(EXACT):
        thread = threading.Thread(target=other)
        thread.start()
        assert inside.wait(10)
        seen["here"] = torch.get_num_threads()
        ready.set()
        thread.join()
    assert (seen["here"], seen["other"]) == (2, 3)


def test_work_that_wants_it_otherwise_waits_until_long_work_stands_aside() -> None:
    """And work that wants the same does not wait at all."""
    seen = []
    alike, otherwise = threading.Event(), threading.Event()

    def work(runtime: Runtime, begun: threading.Event) -> None:
        with at_work(runtime):
            begun.set()
            seen.append(now())

    with at_work(EXACT):
        threads = [
            threading.Thread(target=work, args=asked)
            for asked in ((EXACT, alike), (FAST, otherwise))
        ]
        threads[0].start()
        assert alike.wait(10)
        threads[1].start()
        assert not otherwise.wait(A_MOMENT)
        assert now() == EXACT
        with standing_aside():
            assert otherwise.wait(10)
        assert now() == EXACT
    for thread in threads:
        thread.join()
    assert seen == [EXACT, FAST]


def test_a_click_goes_before_a_long_job_with_other_switches() -> None:
    begun, over = threading.Event(), threading.Event()
    seen = []

    def long_job() -> None:
        with at_work(EXACT):
            while not over.is_set():
                begun.set()
                hold(lambda: False)
                seen.append(now())

    thread = threading.Thread(target=long_job)
    thread.start()
    assert begun.wait(10)
    for _ in range(3):
        with urgent(), at_work(FAST):
            assert now() == FAST
    over.set()
    thread.join()
    assert set(seen) == {EXACT}


def test_two_long_jobs_with_different_switches_take_turns() -> None:
    """Each ends only once both have got on."""
    steps = {EXACT: 0, FAST: 0}

    def long_job(runtime: Runtime) -> None:
        with at_work(runtime):
            while min(steps.values()) < 20:
                hold(lambda: False)
                assert now() == runtime
                steps[runtime] += 1

    threads = [threading.Thread(target=long_job, args=(each,), daemon=True) for each in steps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


PROMPTS = Prompts(ENTITY_TRACKING, 4, 0, (3,))
CIRCUIT = catalogue.circuit("base")
FEW = CIRCUIT.keep(list(CIRCUIT.members)[::8])
HEADS = replace(FEW, name="few")
OURS = {"base": Runtime(False, 1), "chat": Runtime(True, 1)}
"""What the two models are to run under, while one thread is not what the process has."""


def everything_with(name: str, other: str) -> Iterator[Any]:
    """Each method of a model, and of it beside another one."""
    receivers = FEW.heads("A")
    yield AccuracyRequest((name,), PROMPTS)
    yield FaithfulnessRequest((name,), HEADS, PROMPTS)
    yield ComparisonRequest((other, name), HEADS, PROMPTS)
    yield CmapRequest(name, name, HEADS, Component.v, PROMPTS)
    yield SetRequest(name, name, FEW.sites, Component.output, PROMPTS)
    yield StageRequest(name, PROMPTS, "B", receivers)
    yield MinimalityRequest(name, HEADS, PROMPTS)
    yield CompletenessRequest(name, HEADS, PROMPTS, 2)
    yield EdgesRequest(name, HEADS, PROMPTS)
    yield DcmRequest(name, CIRCUIT, PROMPTS, "A", "object")


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, set[Runtime]]]:
    """The switches under which each of two models has run, one of them loaded with TF32."""
    found: dict[str, set[Runtime]] = {}
    monkeypatch.setattr(loading, "runtime_for", lambda _, tf32: Runtime(tf32, 1))
    original = loading._checked_shape

    def watched(name: str, model: Any, *rest: Any) -> Any:
        for layer in layers(model):
            layer.out.register_forward_hook(lambda *_: found.setdefault(name, set()).add(now()))
        return original(name, model, *rest)

    monkeypatch.setattr(loading, "_checked_shape", watched)
    monkeypatch.setattr(evaluations, "N_REFERENCE", 10)
    monkeypatch.setattr(session, "N_REFERENCE", 10)
    torch.set_num_threads(2)
    for name in loaded_models.loaded():
        loaded_models.unload(name)
    loaded_models.load("base", Placement("cpu"))
    loaded_models.load("chat", Placement("cpu", tf32=True))
    yield found
    for name in loaded_models.loaded():
        loaded_models.unload(name)
    assert now() == Runtime(False, 2)
    torch.set_num_threads(1)


def test_no_method_runs_a_model_under_another_one_s_switches(seen: dict[str, set[Runtime]]) -> None:
    seen.clear()
    for request in everything_with("chat", "base"):
        seen["chat"] = set()
        assert [*method_of(request).work(request, (), lambda stage, share: None, lambda part: None)]
        assert seen["chat"] == {OURS["chat"]}, request
    assert seen["base"] == {OURS["base"]}
    seen.clear()
    noise.probe(loaded_models.load("chat"), Prompts(ENTITY_TRACKING, 2, 0, (3,)))
    assert seen["chat"] == {*OURS.values()}, "the exact one, and the one with TF32"


def test_no_click_runs_a_model_under_another_one_s_switches(seen: dict[str, set[Runtime]]) -> None:
    assert seen == {name: {runtime} for name, runtime in OURS.items()}, "when they were checked"
    for name in seen:
        ready = session.prepare(
            Setting(name, Prompts(ENTITY_TRACKING, 4, 0, (3,))), lambda stage, share: None
        )
        for reading in Reading:
            for mode, source in ((Mode.mean, None), (Mode.other, name)):
                session.answers(
                    ready, intervention(CIRCUIT, reading, mode, HEADS.members, source=source)
                )
        assert len(evaluation(name, Prompts(ENTITY_TRACKING, 4, 0, (3,)), Ablation.mean).whole) == 4
    assert seen == {name: {runtime} for name, runtime in OURS.items()}


def test_heads_of_a_model_with_tf32_do_not_go_into_one_without() -> None:
    model = loading.load_model("base", Placement("cpu"))
    other = replace(model, name="other", placement=Placement("cpu", Dtype.float32, tf32=True))
    assert compatible(model, model) is None
    assert compatible(other, model) == (
        "other is loaded on cpu in float32 with TF32, base on cpu in float32."
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="There is no GPU.")
def test_a_gpu_multiplies_as_the_switches_say(tmp_path: Path) -> None:
    left, right = (
        torch.randn(512, 512, generator=torch.Generator().manual_seed(i)) for i in (0, 1)
    )
    exact = left.double() @ right.double()

    def error() -> float:
        return float(((left.cuda() @ right.cuda()).cpu() - exact).abs().max())

    with at_work(EXACT):
        assert error() < 1e-3
        with at_work(FAST):
            assert error() > 5e-3
        assert error() < 1e-3
    assert error() < 1e-3
