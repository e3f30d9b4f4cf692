"""What tests in a browser share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import altair as alt
import pytest
import torch
from hypothesis import HealthCheck, settings

from backend.core import priority
from backend.core.placement import Placement
from backend.models import adapters_seen, catalogue, fingerprints, loaded_models, registry
from backend.studies import store
from backend.tasks.own import files
from backend.tasks.sets import files as sets
from shell.talk import talks
from tests.dashboard import ROOT, browsing, chromium, serving

# Two threads on tensors this small, on shared cores, take ten times longer than one; so, too, in
# the processes that tests start.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"
# Nor may an example fail because the machine is busy.
settings.register_profile(
    "shared", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("shared")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Browser tests first: at the end, one worker would wait for a file that takes minutes."""
    items.sort(key=lambda item: item.get_closest_marker("browser") is None)


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache in which nothing is stored yet, of this test alone."""
    place = tmp_path_factory.mktemp("cache")
    for name in ("RESULTS", "SHIPPED", "DROPPED", "DAMAGED", "UNFINISHED"):
        monkeypatch.setattr(store, name, place / name.lower())
    monkeypatch.setattr(fingerprints, "HASHES", place / "hashes.json")
    monkeypatch.setattr(adapters_seen, "SEEN", place / "adapters.json")
    monkeypatch.setattr(priority, "TURNS", place / "turns")
    monkeypatch.setattr(registry, "ADDED", place / "models.toml")
    monkeypatch.setattr(catalogue, "ADDED_CIRCUITS", place / "circuits")
    monkeypatch.setattr(files, "ADDED", place / "tasks")
    monkeypatch.setattr(sets, "ADDED", place / "prompts")
    monkeypatch.setattr(talks, "ADDED", place / "talks")
    # A command says how models are loaded from then on, for all of its process.
    monkeypatch.setattr(loaded_models, "_usual", Placement())
    return place


@pytest.fixture(autouse=True, scope="session")
def valid_charts() -> Iterator[None]:
    """Every chart that a test draws is checked against Vega-Lite's schema; the app takes no time
    for that."""
    unchecked = alt.LayerChart.to_dict

    def checked(chart: alt.LayerChart, validate: bool = True, **how: Any) -> dict[str, Any]:
        return unchecked(chart, validate=True, **how)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(alt.LayerChart, "to_dict", checked)
        yield


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium; skips, and says so, when there is none."""
    executable = chromium()
    if not executable:
        pytest.skip("No Chromium found: the browser tests did not run.")
    with browsing(executable) as running:
        yield running


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server keeps what is made in it."""
    return tmp_path_factory.mktemp("local")


@pytest.fixture(scope="module")
def server(local: Path) -> Iterator[str]:
    """The address of a dashboard that nobody has used yet."""
    with serving(ROOT / "app.py", local=local, is_forked=True) as address:
        yield address
