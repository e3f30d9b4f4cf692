"""A real language model in a real browser, where `make real` has added it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

pytest.importorskip("playwright")
from playwright.sync_api import expect

from backend.core.files import LOCAL
from backend.models.real_model import NAME
from backend.tasks.circuit import Circuit
from backend.tasks.ioi import IOI
from tests.dashboard import choose, watched_pages

pytestmark = pytest.mark.browser

START_MS = 240_000
HEADS = {
    "NM": [(23, 3), (29, 1), (23, 0)],
    "SI": [(20, 0), (19, 2)],
    "IN": [(17, 4), (8, 1)],
    "PT": [(16, 0)],
}
"""Some that path patching found clear in it; this is no claim that they are enough."""


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    known = LOCAL / "models.toml"
    if not known.exists() or f"[{NAME}]" not in known.read_text(encoding="utf-8"):
        pytest.skip(f"There is no {NAME} here: `make real` adds it.")
    folder = tmp_path_factory.mktemp("real")
    shutil.copy(known, folder / "models.toml")
    (folder / "circuits").mkdir()
    circuit = Circuit.of(IOI, HEADS, "some")
    (folder / "circuits" / "some.json").write_text(circuit.to_json(), encoding="utf-8")
    return folder


@pytest.fixture
def page(server: str, browser: Any) -> Iterator[Any]:
    asked = {"task": "ioi", "model": NAME, "circuit": "some", "n": "50", "reading": "model"}
    with watched_pages(browser) as open_page:
        yield open_page(f"{server}/?{urlencode(asked)}")


def test_its_heads_are_clicked(page: Any) -> None:
    spoken = page.locator(".spoken")
    expect(page.get_by_text("SmolLM2-135M-Instruct").first).to_be_visible(timeout=START_MS)
    expect(spoken).to_have_text(re.compile(r"accuracy 0\.[4-8]"), timeout=START_MS)
    before = spoken.text_content()
    strongest = page.locator('[data-id="NM L23.3"]')
    strongest.click()
    expect(strongest).to_have_attribute("aria-checked", "false")
    expect(spoken).not_to_have_text(before, timeout=START_MS)
    strongest.click()
    expect(spoken).to_have_text(before, timeout=START_MS)
    page.get_by_text("Circuit only", exact=True).click()
    expect(spoken).not_to_have_text(before, timeout=START_MS)


def test_the_circuit_of_its_search_is_taken(page: Any) -> None:
    expect(page.locator(".spoken")).to_have_text(re.compile("accuracy"), timeout=START_MS)
    page.get_by_role("link", name="Discover", exact=True).click()
    kept = page.get_by_role("spinbutton", name="Keep at most")
    expect(kept).to_have_count(len(IOI.groups), timeout=START_MS)
    choose(page, "Score", "Logit difference", START_MS)
    expect(page.get_by_text("All four stages are done")).to_be_visible(timeout=START_MS)
    for box, group in zip(kept.all(), IOI.groups, strict=True):
        expect(box).to_have_value(str(group.size))
    most = page.get_by_role("spinbutton", name="Heads at most")
    most.fill("40")
    most.press("Enter")
    take = page.get_by_role("button", name="Take this circuit")
    expect(take).to_be_visible(timeout=START_MS)
    marked = page.get_by_test_id("stMetric").filter(has_text="smallest such circuit")
    n_heads = marked.get_by_test_id("stMetricValue").inner_text()
    take.click()
    expect(page.get_by_text(re.compile(rf"^{n_heads} heads: "))).to_be_visible(timeout=START_MS)
