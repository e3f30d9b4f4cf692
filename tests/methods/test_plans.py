"""The share that is told is the share of the work: counted in tokens that pass the layers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from torch import nn

from backend.core.components import Component
from backend.core.metrics import Tokens
from backend.core.progress import Step, between, cost_of, step_of
from backend.engine.architectures import layers
from backend.methods.accuracy import AccuracyRequest
from backend.methods.attention import AttentionRequest
from backend.methods.attention_knockout import AttentionKnockoutRequest
from backend.methods.attribution_patching import AttributionRequest
from backend.methods.chosen_senders import SendersRequest
from backend.methods.cmap import CmapRequest, SetRequest
from backend.methods.compare import ComparisonRequest
from backend.methods.completeness import CompletenessRequest
from backend.methods.dcm import DcmRequest
from backend.methods.edges import EdgesRequest
from backend.methods.faithfulness import FaithfulnessRequest
from backend.methods.functions import FunctionsRequest
from backend.methods.knockouts import KnockoutsRequest
from backend.methods.logit_attribution import LogitAttributionRequest
from backend.methods.logit_lens import LogitLensRequest
from backend.methods.minimality import MinimalityRequest
from backend.methods.quick import QuickRequest
from backend.methods.registry import METHODS, method_of, n_parts, plan_of
from backend.methods.requests import Request
from backend.methods.search import SearchRequest
from backend.methods.stage import StageRequest
from backend.models import catalogue, loaded_models
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.prompts import Prompts
from backend.tasks.setting import Reading

FEW = Prompts(ENTITY_TRACKING, 24, 0, (3,))
CIRCUIT = catalogue.circuit("base")
SMALL = CIRCUIT.keep(CIRCUIT.members[::4])
REQUESTS: list[Request] = [
    AccuracyRequest(("base", "chat"), FEW),
    FaithfulnessRequest(("base", "chat"), CIRCUIT, FEW),
    ComparisonRequest(("base", "chat"), CIRCUIT, FEW),
    CmapRequest("chat", "base", CIRCUIT, Component.output, FEW),
    SetRequest("chat", "base", CIRCUIT.sites, Component.output, FEW),
    StageRequest("base", FEW, "A", ()),
    StageRequest("base", FEW, "D", CIRCUIT.heads("C")),
    AttributionRequest("base", FEW, "A", ()),
    AttributionRequest("base", FEW, "D", CIRCUIT.heads("C"), steps=3),
    QuickRequest("base", FEW, "A", ()),
    QuickRequest("base", FEW, "D", CIRCUIT.heads("C")),
    SendersRequest("base", FEW, "B", CIRCUIT.heads("A"), CIRCUIT.heads("B")),
    MinimalityRequest("base", CIRCUIT, FEW),
    CompletenessRequest("base", CIRCUIT, FEW, 5),
    KnockoutsRequest("base", SMALL, FEW),
    KnockoutsRequest("base", SMALL, FEW, Reading.model),
    EdgesRequest("base", CIRCUIT, FEW),
    SearchRequest("base", CIRCUIT.members, FEW),
    SearchRequest("base", CIRCUIT.members[::3], FEW, tokens=Tokens.named),
    LogitAttributionRequest(("base", "chat"), FEW),
    LogitLensRequest(("base", "chat"), FEW),
    AttentionRequest(("base", "chat"), CIRCUIT, FEW),
    AttentionKnockoutRequest(("base", "chat"), FEW, ENTITY_TRACKING.edges),
    FunctionsRequest("base", CIRCUIT, FEW, ("object", "label", "no_comma"), 2),
    DcmRequest("base", CIRCUIT, FEW, "C", "position", penalties=(0.01, 0.1), epochs=5, batch=4),
]


class Counter:
    """Tokens that passed the MLPs of the two models so far, there or back again."""

    def __init__(self) -> None:
        self.n = 0

    def __call__(self, _: nn.Module, given: tuple[Any, ...], __: Any) -> None:
        self.n += given[0].numel() // given[0].shape[-1]

    def back(self, _: nn.Module, gradients: tuple[Any, ...], __: Any) -> None:
        self.n += gradients[0].numel() // gradients[0].shape[-1]


@pytest.fixture
def counter() -> Iterator[Counter]:
    count = Counter()
    models = [loaded_models.load(name).model for name in ("base", "chat")]
    mlps = [layer.block.mlp for each in models for layer in layers(each)]
    hooks = [mlp.register_forward_hook(count) for mlp in mlps]
    hooks += [mlp.register_full_backward_hook(count.back) for mlp in mlps]
    yield count
    for hook in hooks:
        hook.remove()
    for name in ("base", "chat"):
        loaded_models.unload(name)


@pytest.mark.parametrize("asked", REQUESTS, ids=lambda asked: method_of(asked).name)
def test_the_share_that_is_told_is_the_share_of_the_work(asked: Request, counter: Counter) -> None:
    told: list[tuple[str, float, int]] = []

    def report(stage: str, share: float) -> None:
        told.append((stage, share, counter.n))

    parts = [*METHODS[method_of(asked).name].work(asked, (), report, lambda part: None)]
    assert len(parts) == n_parts(asked) == len(plan_of(asked))
    shares = [share for _, share, _ in told]
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert shares[-1] <= 1.0001
    assert max(abs(share - done / counter.n) for _, share, done in told) < 0.2
    # The plan was made before any model was loaded, and is right all the same.
    assert cost_of(plan_of(asked)) == pytest.approx(counter.n, rel=0.45)


def test_steps_are_told_as_shares_of_the_whole_plan() -> None:
    plan = [[Step("first", 1), Step("second", 3)], [Step("third", 4)]]
    told: list[tuple[str, float]] = []
    for part, number in ((0, 0), (0, 1), (1, 0)):
        step = step_of(lambda stage, share: told.append((stage, share)), plan, part, number)
        step(0, 2)
        between(step, 0.5, 1)(1, 1)
    assert told == [
        ("first", 0), ("first", 1 / 8), ("second", 1 / 8), ("second", 4 / 8), ("third", 4 / 8),
        ("third", 1),
    ]  # fmt: skip
