"""The benchmark: what it compares is equal, and it says plainly what it did not measure."""

from __future__ import annotations

import re
import socket
from time import monotonic
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from backend.core.heads import Head
from backend.methods.minimality import minimality, n_circuits
from backend.tasks.circuit import Circuit
from backend.tasks.entity_tracking import ENTITY_TRACKING
from benchmarks import engine
from benchmarks.cases import rehearsal
from benchmarks.far_away import far_away

CPU = torch.device("cpu")


def measured(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    engine.main([*arguments, "--device", "cpu", "--threads", "1"])
    return capsys.readouterr().out


def test_what_runs_on_llama_7b_runs_in_small_on_any_device(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = measured(capsys, "--model", "7b", "--dry", "--tf32")
    differences = [float(each) for each in re.findall(r"\d\.\de-\d\d", said)]
    assert len(differences) == len(["circuit", *"clicks"[:3], *ENTITY_TRACKING.keys])
    assert max(differences) < 1e-4
    assert "6 prompts of 54 tokens" in said
    assert "runs it whole" not in said
    assert said.count("peak memory: ") == len(engine.PARTS)
    stages = re.findall(r"^([A-D]) .* (\d+) of (\d+) +(\d+)$", said, re.MULTILINE)
    assert [stage for stage, *_ in stages] == list(ENTITY_TRACKING.keys)
    assert all(int(shared) == int(top) > 0 for _, shared, top, _ in stages)


def test_one_part_can_be_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    said = measured(capsys, "--model", "7b", "--dry", "--parts", "clicks", "--prompts", "5")
    assert "A click at layer 2 on 5 prompts" in said
    assert "Minimality" not in said


def test_a_model_that_is_not_taken_apart_is_said_to_be(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "can_take_apart", lambda model: False)
    assert "runs it whole" in measured(capsys, "--model", "7b", "--dry", "--parts", "clicks")


def test_without_a_gpu_the_7b_figures_are_said_to_be_open(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = measured(capsys, "--model", "7b")
    assert "was not measured: it needs a GPU with 80 GB" in said
    assert "Its figures are open" in said
    assert "peak memory" not in said


@pytest.mark.parametrize(("gigabytes", "reason"), [(24, "this GPU has 24"), (141, None)])
def test_a_gpu_must_be_large_enough(
    monkeypatch: pytest.MonkeyPatch, gigabytes: int, reason: str | None
) -> None:
    card: Any = SimpleNamespace(total_memory=gigabytes * 10**9)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    said = engine.why_not_7b(torch.device("cuda:0"))
    assert (said is None) == (reason is None)
    assert reason is None or reason in str(said)


def test_the_n_circuits_are_counted_right(monkeypatch: pytest.MonkeyPatch) -> None:
    case = rehearsal(CPU)
    evaluation = engine._subject(case)
    asked: list[int] = []
    alone = evaluation.circuit_only
    monkeypatch.setattr(
        evaluation,
        "circuit_only",
        lambda circuits, *rest: asked.append(len(circuits)) or alone(circuits, *rest),
    )
    minimality(evaluation, case.circuit)
    assert sum(asked) == n_circuits(case.circuit)


def test_each_stage_feeds_the_next_group_of_the_circuit() -> None:
    case = rehearsal(CPU)
    assert case.receivers == {
        "A": (),
        "B": case.circuit.heads("A"),
        "C": case.circuit.heads("B"),
        "D": case.circuit.heads("C"),
    }


def test_the_top_heads_are_the_most_negative_in_order() -> None:
    scores = torch.zeros(2, 2, 2)
    scores[:, 0, 1], scores[:, 1, 0], scores[:, 1, 1] = -0.5, -0.7, 0.9
    assert engine.top_heads(scores) == (Head(1, 0), Head(0, 1))


def test_an_empty_circuit_asks_for_itself() -> None:
    assert n_circuits(Circuit.of(ENTITY_TRACKING, {}, "empty")) == 1


def test_a_port_that_is_far_away_leads_there_and_back_in_its_time() -> None:
    there = socket.create_server(("127.0.0.1", 0))
    with there, far_away(there.getsockname(), 0.05) as port:
        begun = monotonic()
        here = socket.create_connection(("127.0.0.1", port))
        here.sendall(b"one, two")
        other, _ = there.accept()
        assert other.recv(8, socket.MSG_WAITALL) == b"one, two"
        other.sendall(b"three")
        assert here.recv(5, socket.MSG_WAITALL) == b"three"
        assert monotonic() - begun >= 0.1
        here.close()
        assert other.recv(1) == b"", "the end travels, too"
