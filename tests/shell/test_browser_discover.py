"""The Discover page in a real browser: from no circuit at all to one that can be clicked."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright")
from playwright.sync_api import expect

from backend.tasks.circuit import Circuit
from takehome.edges import edge_weights
from tests.dashboard import watched_pages

pytestmark = pytest.mark.browser

START_MS = 60_000
NAME = "discovered-by-test"
Open = Callable[[int], Any]


@pytest.fixture
def open_page(server: str, browser: Any) -> Iterator[Open]:
    with watched_pages(browser) as open_watched:

        def open_discover(n: int) -> Any:
            page = open_watched(server)
            page.get_by_role("link", name="Discover").click(timeout=START_MS)
            prompts = page.get_by_role("spinbutton", name="Prompts for patching")
            prompts.fill(str(n))
            prompts.press("Enter")
            return page

        yield open_discover


def button(page: Any, name: str) -> Any:
    return page.get_by_role("button", name=re.compile(f"^{name}"))


def maps(page: Any) -> Any:
    return page.get_by_test_id("stVegaLiteChart")


def test_discover_a_circuit_with_edges_and_open_it(open_page: Open, local: Path) -> None:
    page = open_page(60)  # on few prompts hardly a head or an edge is clear
    button(page, "Run all four stages").click()
    expect(button(page, "All four stages are done")).to_be_visible(timeout=START_MS)
    expect(maps(page)).to_have_count(4)
    page.get_by_role("tab", name="Edges").click()
    button(page, "Measure edges").click()
    expect(page.get_by_text("edges are measured")).to_be_visible(timeout=START_MS)
    page.get_by_role("textbox", name="Name").fill(NAME)
    page.get_by_role("textbox", name="Name").press("Enter")
    button(page, "Open in the Circuit page").click()
    expect(page.locator(".spoken")).to_be_attached(timeout=START_MS)
    expect(page.get_by_role("combobox", name="Circuit")).to_have_value(NAME)
    saved = json.loads((local / "circuits" / f"{NAME}.json").read_text())
    n_heads = sum(map(len, saved["groups"].values()))
    weights = [*map(abs, edge_weights(Circuit.from_data(saved)).values())]
    assert 0 < len(weights) <= len(saved["provenance"]["edges"]["edges"])
    expect(page.locator("[role=switch][data-node]")).to_have_count(n_heads)
    expect(page.locator("path.measured")).to_have_count(len(weights))
    expect(page.get_by_text("weak – strong edge")).to_be_visible()
    page.get_by_role("slider", name="Edges from").focus()
    page.keyboard.press("End")
    strong = [weight for weight in weights if weight >= 0.6 * max(weights)]
    expect(page.locator("path.measured")).to_have_count(len(strong))
    page.locator("path.reach").last.dispatch_event("pointerover", {"bubbles": True})
    expect(page.get_by_text("edge score")).to_be_visible()


def test_a_cancelled_run_keeps_its_finished_stages(open_page: Open) -> None:
    page = open_page(300)
    button(page, "Run all four stages").click()
    expect(maps(page).first).to_be_visible(timeout=START_MS)
    button(page, "Cancel").click()
    expect(page.get_by_text("What was finished is kept")).to_be_visible(timeout=START_MS)
    rest = button(page, "Run the rest")
    expect(rest).to_be_enabled()
    finished = "ABCD".index(rest.inner_text()[-1])
    assert 1 <= finished < 4
    expect(maps(page)).to_have_count(finished)
    page.get_by_role("link", name="Circuit", exact=True).click()
    page.get_by_role("link", name="Discover").click()
    expect(maps(page)).to_have_count(finished)
    button(page, "Run the rest").click()
    expect(button(page, "All four stages are done")).to_be_visible(timeout=START_MS)
    expect(maps(page)).to_have_count(4)


def test_a_preview_is_checked_and_makes_no_circuit(open_page: Open) -> None:
    page = open_page(30)
    page.get_by_text("First look: preview all stages").click()
    check = page.get_by_role("spinbutton", name="Heads to check")
    check.fill("3")
    check.press("Enter")
    button(page, "Preview 4 stages").click()
    badges = page.get_by_text("Preview, not exact", exact=True)
    expect(badges).to_have_count(4, timeout=START_MS)
    expect(maps(page)).to_have_count(4)
    button(page, "Check 3 heads").click()
    expect(page.get_by_text("heads exactly: rank correlation")).to_have_count(4, timeout=START_MS)
    expect(maps(page)).to_have_count(8)
    expect(button(page, "Run all four stages")).to_be_enabled()
    page.get_by_text("First look: preview all stages").click()
    expect(maps(page)).to_have_count(0)
