"""The tour in a real browser: three steps by clicking, never again, and again when asked for."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("playwright")
from playwright.sync_api import expect

from backend.models import catalogue
from shell.circuit.tour import head_to_click
from tests.dashboard import watched_pages

pytestmark = pytest.mark.browser

START_MS = 60_000


def test_three_steps_once_and_again_when_asked_for(server: str, browser: Any) -> None:
    key, clicked = head_to_click(catalogue.circuit("base"))  # type: ignore[misc]
    with watched_pages(browser) as open_watched:
        page = open_watched(f"{server}/?n=50", first_visit=True)
        tour = page.get_by_role("dialog", name="Tour")
        expect(tour).to_contain_text("What you see", timeout=START_MS)
        tour.get_by_role("button", name="Next").click()
        expect(tour).to_contain_text(f"Click {clicked}")
        page.locator(f'[data-id="{key} {clicked}"]').click()
        expect(tour).to_contain_text("What changed")
        expect(tour).to_contain_text("3 of 3")
        tour.get_by_role("button", name="Done").click()
        expect(tour).not_to_be_visible()

        page.reload()
        expect(page.locator(".spoken")).to_be_attached(timeout=START_MS)
        page.get_by_role("link", name="Talks", exact=True).click()
        page.get_by_role("link", name="Circuit", exact=True).click()
        expect(page.locator(".spoken")).to_be_attached()
        expect(tour).not_to_be_visible()
        page.locator(".st-key-aside button").filter(has_text="Help").click()
        page.get_by_role("button", name="Show the tour").click()
        expect(tour).to_contain_text("What you see")
        tour.get_by_role("button", name="Skip").click()
        expect(tour).not_to_be_visible()
