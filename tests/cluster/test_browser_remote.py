"""The Circuit page in a browser, with a model that only a Ray cluster has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray")
pytest.importorskip("playwright")
from playwright.sync_api import expect

from backend.cluster import where
from backend.core import files
from tests.cluster.test_nodes import node
from tests.cluster.test_remote import CIRCUIT
from tests.dashboard import ROOT, serving, watched_pages

pytestmark = pytest.mark.browser
PATIENCE_MS = 240_000


@pytest.fixture(scope="module")
def dashboard(there: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of one that was told of a cluster, whose machine has models of its own."""
    from ray.cluster_utils import Cluster

    local = tmp_path_factory.mktemp("here")
    (local / "circuits").mkdir()
    (local / "circuits" / "planted.json").write_text(CIRCUIT.to_json())
    with pytest.MonkeyPatch.context() as told:
        told.setenv(files.VARIABLE, str(there))
        cluster = Cluster(initialize_head=True, head_node_args=node())
        told.setenv(where.VARIABLE, cluster.address)
        with serving(ROOT / "app.py", local=local) as address:
            yield address
        cluster.shutdown()


def test_a_head_of_a_model_that_is_only_there_is_clicked(browser: Any, dashboard: str) -> None:
    with watched_pages(browser) as open_page:
        page = open_page(f"{dashboard}?task=ioi&model=planted&circuit=planted&n=50")
        spoken = page.locator(".spoken")
        expect(spoken).to_contain_text("Faithfulness", timeout=PATIENCE_MS)
        before = spoken.inner_text()
        page.get_by_role("switch", name="L3.1").click()
        expect(spoken).to_have_attribute("data-click", "0.1")
        expect(spoken).not_to_have_text(before)
        page.get_by_role("link", name="Models").click()
        expect(page.get_by_text("On the cluster, and not here")).to_be_visible(timeout=PATIENCE_MS)
