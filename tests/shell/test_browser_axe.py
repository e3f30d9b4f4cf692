"""No page has a serious barrier that axe-core finds (WCAG 2, levels A and AA), in both themes."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("playwright")
from axe_playwright_python.sync_playwright import Axe

from tests.dashboard import watched_pages

pytestmark = pytest.mark.browser

START_MS = 60_000
PAGES = (
    "Circuit", "Prompt", "Compare", "CMAP", "Discover", "Function", "Attention", "Logits",
    "Results", "Paper", "Models", "Talks",
)  # fmt: skip
_RULES = {"runOnly": ["wcag2a", "wcag2aa"]}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_page_has_a_serious_barrier(server: str, browser: Any, theme: str) -> None:
    found = []
    with watched_pages(browser) as open_page:
        page = open_page(f"{server}/?n=50&boxes=3", color_scheme=theme)
        page.locator(".spoken").wait_for(state="attached", timeout=START_MS)
        for name in PAGES:
            page.get_by_role("navigation").get_by_role("link", name=name, exact=True).click()
            idle = page.locator("[data-testid=stApp][data-test-script-state=notRunning]")
            idle.wait_for(state="attached", timeout=START_MS)
            for each in Axe().run(page, options=_RULES).response["violations"]:
                if each["impact"] in ("serious", "critical"):
                    where = [node["html"][:120] for node in each["nodes"][:3]]
                    found.append(f"{name}: {each['id']}: {where}")
    assert not found, "\n".join(found)
