"""The Paper page in a real browser: circuits to be looked at, without weights and complaints."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("playwright")
from playwright.sync_api import expect

from tests.dashboard import watched_pages

pytestmark = pytest.mark.browser

START_MS = 60_000


@pytest.fixture
def page(server: str, browser: Any) -> Iterator[Any]:
    with watched_pages(browser) as open_watched:
        opened = open_watched(server)
        opened.get_by_role("link", name="Paper", exact=True).click(timeout=START_MS)
        yield opened


def heads(page: Any) -> Any:
    return page.locator("[data-node]")


def test_the_published_circuits_can_be_looked_at_only(page: Any) -> None:
    expect(heads(page)).to_have_count(72, timeout=START_MS)
    head = page.get_by_role("img", name=re.compile("^L14.27, Position Transmitter"))
    head.hover()
    tip = page.get_by_role("tooltip")
    expect(tip).to_contain_text("score −0.33")
    expect(tip).not_to_contain_text("click")
    head.click()
    expect(page.get_by_role("switch")).to_have_count(0)
    expect(page.get_by_role("button", name=re.compile("^Group"))).to_have_count(0)
    head.press("Space")
    head.press("ArrowRight")
    expect(tip).to_contain_text("L13.14")
    expect(page.locator("[data-node][aria-checked], .stem.cut, .branch.cut")).to_have_count(0)
    page.get_by_role("radio", name="Goat-7B").click()
    expect(heads(page)).to_have_count(175)
    expect(page.get_by_text("An adapter that was left out could do this.")).to_be_visible()


def test_every_section_is_drawn(page: Any) -> None:
    charts = page.get_by_test_id("stVegaLiteChart").filter(has=page.locator("svg, canvas"))
    for section, n_charts in {
        "Scores": 4,
        "Faithfulness": 2,
        "CMAP": 2,
        "Completeness": 2,
        "Minimality": 2,
        "DCM": 1,
        "Attention knockout": 1,
    }.items():
        page.get_by_role("tab", name=section, exact=True).click(timeout=START_MS)
        shown = page.get_by_role("tabpanel", name=section, exact=True)
        expect(shown.locator(charts).locator("visible=true")).to_have_count(n_charts)
