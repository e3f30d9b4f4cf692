"""Long work says how far it is, within each model, from the first prompts to the last."""

from __future__ import annotations

from itertools import pairwise
from weakref import WeakKeyDictionary

import pytest

from backend.methods import reference_means
from backend.methods.accuracy import AccuracyRequest, accuracy_report
from backend.methods.faithfulness import FaithfulnessRequest
from backend.methods.stages import Criteria
from backend.models import catalogue
from backend.models.loaded_models import load
from backend.studies.stages import run_stages
from backend.studies.studies import run
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.prompts import Prompts
from backend.tasks.setting import Setting

CIRCUIT = catalogue.circuit("base")
PROMPTS = Prompts(ENTITY_TRACKING, 40, 0, (3,))


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts run a few at a time, and no means are there that another test had made."""
    monkeypatch.setenv("CIRCUIT_EXPLORER_CHUNK", "8")
    monkeypatch.setattr(reference_means, "_kept", WeakKeyDictionary())


def test_accuracy_counts_prompts() -> None:
    told: list[tuple[int, int]] = []
    accuracy_report(load("base"), PROMPTS, lambda *step: told.append(step))
    assert told == [(done, 40) for done in range(0, 41, 8)]


@pytest.mark.parametrize(
    "request_",
    [
        AccuracyRequest(("base", "chat"), PROMPTS),
        FaithfulnessRequest(("base", "chat"), CIRCUIT, PROMPTS),
    ],
)
def test_commands_hear_of_it_without_a_step_back(
    request_: AccuracyRequest | FaithfulnessRequest,
) -> None:
    shares: list[float] = []
    assert len([*run(request_, lambda stage, share: shares.append(share))]) == 2
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert max(after - before for before, after in pairwise(shares)) < 0.12


def test_discovery_is_one_stretch_of_work() -> None:
    told: list[tuple[str, float]] = []
    load("base")
    setting = Setting("base", Prompts(ENTITY_TRACKING, 10, 0, (3,)))
    criteria = Criteria(dict.fromkeys(ENTITY_TRACKING.keys, 4), fdr=1)
    stages = [*run_stages(setting, criteria, (), "D", lambda *step: told.append(step))]
    assert len(stages) == 4
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)
    assert not [what for what, _ in told if what == "Starting the engine"]
