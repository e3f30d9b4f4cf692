"""A part that is cut off, wherever that is, goes on from there: nothing is asked twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from backend.core.components import Component
from backend.core.heads import Head
from backend.core.metrics import Metric
from backend.core.progress import Cancelled, silent
from backend.core.serialize import to_json
from backend.engine.path_patching import scores
from backend.methods.attention_knockout import AttentionKnockoutRequest
from backend.methods.cmap import CmapRequest
from backend.methods.compare import ComparisonRequest
from backend.methods.completeness import CompletenessRequest
from backend.methods.dcm import DcmRequest
from backend.methods.edges import EdgesRequest
from backend.methods.evaluation import Evaluation
from backend.methods.functions import FunctionsRequest
from backend.methods.knockouts import KnockoutsRequest
from backend.methods.minimality import MinimalityRequest
from backend.methods.requests import Request
from backend.methods.search import SearchRequest
from backend.models import loaded_models
from backend.studies import store, studies
from backend.studies.keys import identity
from backend.tasks.circuit import Circuit
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.prompts import Prompts
from tests import planted
from tests.dashboard import ROOT

HEADS = Circuit.of(
    ENTITY_TRACKING,
    {group: (Head(0, 3), Head(1, 1), *heads) for group, heads in planted.CIRCUIT.items()},
)
PROMPTS = Prompts(ENTITY_TRACKING, 20, 0, (2,))
REQUESTS: dict[str, Callable[[str, str], Request]] = {
    "minimality": lambda good, _: MinimalityRequest(good, HEADS, PROMPTS),
    "completeness": lambda good, _: CompletenessRequest(good, HEADS, PROMPTS, 3),
    "knockouts": lambda good, _: KnockoutsRequest(good, HEADS, PROMPTS),
    "search": lambda good, _: SearchRequest(good, HEADS.members, PROMPTS),
    "compare": lambda good, worse: ComparisonRequest((good, worse), HEADS, PROMPTS),
    "cmap": lambda good, worse: CmapRequest(good, worse, HEADS, Component.output, PROMPTS),
    "cmap of values": lambda good, worse: CmapRequest(good, worse, HEADS, Component.v, PROMPTS),
    "edges": lambda good, _: EdgesRequest(good, HEADS, PROMPTS),
    "attention knockout": lambda good, worse: AttentionKnockoutRequest(
        (good, worse), PROMPTS, ENTITY_TRACKING.edges
    ),
    "functions": lambda good, _: FunctionsRequest(good, HEADS, PROMPTS, draws=2),
    "dcm": lambda good, _: DcmRequest(good, HEADS, PROMPTS, "A", "object", batch=2),
}


@dataclass
class Counter:
    """How much was computed that is kept: prompts times questions, or batches of scores."""

    n: int = 0
    is_over: Callable[[], bool] = field(default=lambda: False)

    def report(self, stage: str, share: float) -> None:
        if self.is_over():
            raise Cancelled


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> Counter:
    counted, answered, of_pair = Counter(), Evaluation.answered, scores._of_pair

    def counting_answered(
        self: Evaluation,
        questions: Any,
        plain: Any,
        cost: Any,
        progress: Any = silent,
        kept_in: Any = None,
        metric: Metric = Metric.accuracy,
        dtype: Any = None,
        at_once: int = 1,
    ) -> Any:
        def counting(batch: Any, some: Any) -> Iterator[Any]:
            for rows in plain(batch, some):
                counted.n += rows.numel()
                yield rows

        counted_ask = counting if kept_in else plain
        return answered(
            self, questions, counted_ask, cost, progress, kept_in, metric, dtype, at_once
        )

    def counting_of_pair(*arguments: Any) -> Any:
        scores = of_pair(*arguments)
        counted.n += 1
        return scores

    monkeypatch.setattr(Evaluation, "answered", counting_answered)
    monkeypatch.setattr(scores, "_of_pair", counting_of_pair)
    return counted


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Sequence[str]:
    """The folders of a good and a worse model."""
    good, worse = planted.model(), planted.model().requires_grad_(False)
    worse.model.layers[3].self_attn.v_proj.weight.zero_()
    folders = [str(tmp_path_factory.mktemp(name)) for name in ("good", "worse")]
    for folder, model in zip(folders, (good, worse), strict=True):
        model.save_pretrained(folder)
        planted.tokenizer().save_pretrained(folder)
    return folders


@pytest.fixture(params=["20", "7"])
def chunk(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, family: Sequence[str]
) -> None:
    """All prompts in one batch, or in three."""
    monkeypatch.setenv("CIRCUIT_EXPLORER_CHUNK", request.param)
    for name in family:
        loaded_models.unload(name)


def in_text(parts: Sequence[Any]) -> str:
    return json.dumps(to_json(tuple(parts)))


def forget(key: str) -> None:
    entry = store.find(key)
    assert entry
    store.delete(entry)


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("method", REQUESTS)
def test_nothing_is_asked_twice_however_often_it_is_cut_off(
    counter: Counter, family: Sequence[str], method: str
) -> None:
    request = REQUESTS[method](*family)
    expected = in_text([*studies.run(request, counter.report)])
    n_in_all, key = counter.n, identity(request)
    assert key
    assert not store.unfinished(key).exists()
    forget(key)

    counter.n, n_runs, parts = 0, 0, []
    while not parts and n_runs < 99:
        n_runs, n_before = n_runs + 1, counter.n
        counter.is_over = lambda n_before=n_before: counter.n >= n_before + n_in_all / 12
        with suppress(Cancelled):
            parts = [*studies.run(request, counter.report)]
    assert n_runs > 4
    assert counter.n == n_in_all
    assert in_text(parts) == expected
    assert not store.unfinished(key).exists()


def test_parts_do_not_take_each_others_files(
    counter: Counter, family: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the process had always died between storing a part and deleting what it had kept."""
    good, worse = family
    for request in (
        ComparisonRequest((good, worse), HEADS, PROMPTS),
        CmapRequest(good, worse, HEADS, Component.output, PROMPTS),
    ):
        counter.n = 0
        expected = in_text([*studies.run(request, counter.report)])
        n_in_all, key = counter.n, identity(request)
        assert key
        forget(key)
        with monkeypatch.context() as dying:
            dying.setattr(store, "forget_unfinished", lambda key: None)
            for n_asked in (n_in_all, 0):
                counter.n = 0
                assert in_text([*studies.run(request, counter.report)]) == expected
                assert counter.n == n_asked
                assert studies.is_begun(request)
                forget(key)
        store.forget_unfinished(key)
        assert not studies.is_begun(request)


_ALL_OF_THEM = """
from functools import partial
from backend.methods.attention import AttentionRequest
from backend.methods.attention_knockout import AttentionKnockoutRequest
from backend.models.catalogue import circuit
from backend.core.components import Component
from backend.methods.cmap import CmapRequest
from backend.methods.compare import ComparisonRequest
from backend.methods.completeness import CompletenessRequest
from backend.methods.dcm import DcmRequest
from backend.methods.edges import EdgesRequest
from backend.methods.functions import FunctionsRequest
from backend.methods.knockouts import KnockoutsRequest
from backend.methods.minimality import MinimalityRequest
from backend.methods.registry import method_of
from backend.methods.search import SearchRequest
from backend.studies.studies import unfinished
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.prompts import Prompts

heads, prompts = circuit("base"), Prompts(ENTITY_TRACKING, 5, 0, (3,))
for request in (
    MinimalityRequest("base", heads, prompts),
    CompletenessRequest("base", heads, prompts),
    KnockoutsRequest("base", heads.keep(heads.members[::4]), prompts),
    SearchRequest("base", heads.members, Prompts(ENTITY_TRACKING, 20, 0, (3,))),
    ComparisonRequest(("base", "chat"), heads, prompts),
    CmapRequest("chat", "base", heads, Component.output, prompts),
    EdgesRequest("base", heads, prompts),
    AttentionRequest(("base",), heads, prompts),
    AttentionKnockoutRequest(("base",), prompts, ENTITY_TRACKING.edges),
    FunctionsRequest("base", heads, prompts, ("object", "no_comma"), 2),
    DcmRequest("base", heads, prompts, "B", "position"),
):
    [*method_of(request).work(request, (), lambda stage, share: None, partial(unfinished, request))]
"""


def test_what_is_kept_has_the_same_name_in_every_process(tmp_path: Path) -> None:
    """Sets have another order in each: no question may have another place for that."""
    found = []
    for seed in ("1", "2"):
        places = {"CIRCUIT_EXPLORER_LOCAL": str(tmp_path / seed), "OMP_NUM_THREADS": "1"}
        subprocess.run(
            [sys.executable, "-c", _ALL_OF_THEM],
            cwd=ROOT,
            env=os.environ | places | {"PYTHONHASHSEED": seed},
            check=True,
        )
        place = tmp_path / seed / "unfinished"
        files = [*place.rglob("*.safetensors")]
        found.append({str(file.relative_to(place)): file.read_bytes() for file in files})
    assert found[0] == found[1]
    methods = {name.split("-")[0] for name in found[0]}
    assert methods == {
        *("minimality", "completeness", "compare", "cmap", "edges", "attention", "functions"),
        *("dcm", "search", "knockouts"),
    }
