"""Every method by two processes: what one process finds, to the last bit.

The two stay for all methods, as to begin takes longer than to measure.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray")

from backend.cluster.board import Board
from backend.cluster.crew import Room, _begun
from backend.cluster.versions import versions
from backend.cluster.worker import Outcome, Task
from backend.core.heads import Head
from backend.core.kept import Folder
from backend.core.metrics import Ablation, Metric, Score
from backend.core.placement import AUTO
from backend.core.serialize import to_json
from backend.methods.accuracy import AccuracyRequest
from backend.methods.attention import AttentionRequest
from backend.methods.attribution_patching import AttributionRequest
from backend.methods.chosen_senders import SendersRequest
from backend.methods.compare import ComparisonRequest
from backend.methods.copying import CopyingRequest
from backend.methods.dcm import DcmRequest
from backend.methods.faithfulness import FaithfulnessRequest
from backend.methods.knockouts import KnockoutsRequest
from backend.methods.logit_attribution import LogitAttributionRequest
from backend.methods.logit_lens import LogitLensRequest
from backend.methods.quick import QuickRequest
from backend.methods.registry import METHODS, method_of
from backend.methods.requests import Request
from backend.methods.search import SearchRequest
from backend.methods.stage import StageRequest
from backend.tasks.setting import Reading
from tests import planted
from tests.cluster.conftest import TWO
from tests.studies.test_resume_within import HEADS, PROMPTS, REQUESTS, family  # noqa: F401

Asked = Callable[[str, str], Request]
RECEIVERS = {"A": (), "B": planted.CIRCUIT["A"], "C": planted.CIRCUIT["B"], "D": (Head(1, 2),)}
STAGES: dict[str, Asked] = {
    f"stage {group}": lambda good, _, group=group, heads=heads: StageRequest(
        good, PROMPTS, group, heads, Score.logit_difference if group == "C" else Score.probability
    )
    for group, heads in RECEIVERS.items()
}
OTHERS: dict[str, Asked] = {
    "accuracy": lambda good, worse: AccuracyRequest((good, worse), PROMPTS),
    "faithfulness": lambda good, worse: FaithfulnessRequest((good, worse), HEADS, PROMPTS),
    "compare by logits": lambda good, worse: ComparisonRequest(
        (good, worse), HEADS, PROMPTS, Metric.logit_difference, Ablation.resample
    ),
    "knockouts of the model": lambda good, _: KnockoutsRequest(good, HEADS, PROMPTS, Reading.model),
    "search by probability": lambda good, _: SearchRequest(
        good, HEADS.members, PROMPTS, metric=Metric.probability
    ),
    "preview": lambda good, _: AttributionRequest(good, PROMPTS, "B", RECEIVERS["B"], steps=3),
    "quick preview": lambda good, _: QuickRequest(good, PROMPTS, "C", RECEIVERS["C"]),
    "chosen senders": lambda good, _: SendersRequest(
        good, PROMPTS, "C", RECEIVERS["C"], (Head(0, 1), Head(1, 2))
    ),
    "attention": lambda good, worse: AttentionRequest((good, worse), HEADS, PROMPTS),
    "logit lens": lambda good, worse: LogitLensRequest((good, worse), PROMPTS),
    "logit attribution": lambda good, worse: LogitAttributionRequest((good, worse), PROMPTS),
    "copying": lambda good, worse: CopyingRequest((good, worse), PROMPTS),
    "dcm of two penalties": lambda good, _: DcmRequest(
        good, HEADS, PROMPTS, "A", "object", penalties=(0.01, 0.1), batch=2
    ),
}
ASKED = REQUESTS | STAGES | OTHERS


@pytest.fixture(scope="module")
def workers(two: Any) -> Sequence[Any]:
    with pytest.MonkeyPatch.context() as chunk:
        chunk.setenv("CIRCUIT_EXPLORER_CHUNK", "7")
        room = Room(two.get_runtime_context().get_node_id(), 1, 0)
        return [_begun(two, room, TWO, AUTO) for _ in range(2)]


def test_every_method_is_asked_here() -> None:
    asked = {method_of(request("good", "worse")).name for request in ASKED.values()}
    assert asked | {"cmap-set"} == {*METHODS}


@pytest.mark.parametrize("name", ASKED)
def test_two_processes_find_what_one_finds(
    two: Any,
    workers: Sequence[Any],
    family: Sequence[str],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    name: str,
) -> None:
    monkeypatch.setenv("CIRCUIT_EXPLORER_CHUNK", "7")
    request = ASKED[name](*family)
    method = method_of(request)
    expected = [
        json.dumps(to_json(part))
        for part in method.work(
            request, (), lambda stage, share: None, lambda part: Folder(tmp_path / str(part))
        )
    ]
    board = two.remote(Board).options(num_cpus=0).remote({})
    task = Task(method.name, to_json(request), (), versions(), {})
    ends = [worker.run.remote(task, board, number) for number, worker in enumerate(workers)]
    assert [end.outcome for end in two.get(ends)] == [Outcome.finished] * 2
    news = two.get(board.news.remote())
    assert [json.dumps(part) for _, part in sorted(news.parts.items())] == expected
    two.kill(board)
