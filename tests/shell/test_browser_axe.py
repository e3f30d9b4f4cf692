"""No page has a serious barrier that axe-core finds (WCAG 2, levels A and AA), in both themes."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("playwright")
from axe_playwright_python.sync_playwright import Axe

from tests.dashboard import settled, watched_pages

pytestmark = pytest.mark.browser

START_MS = 60_000
PAGES = {
    "Circuit": ".circuit",
    "Prompt": ".tokens button",
    "Compare": "text=Are two circuits the same heads?",
    "CMAP": "text=What is transplanted",
    "Discover": "text=find a circuit by path patching",
    "Function": "text=The test as a pair of prompts",
    "Attention": "text=By role",
    "Logits": "text=What is read",
    "Results": "text=Tick one to look at it",
    "Paper": "text=The paper’s results",
    "Models": "text=Add a model",
    "Talks": "text=Give this talk",
}
"""Each page, and what shows that it is there."""
_RULES = {"runOnly": ["wcag2a", "wcag2aa"]}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_page_has_a_serious_barrier(server: str, browser: Any, theme: str) -> None:
    found = []
    with watched_pages(browser) as open_page:
        page = open_page(f"{server}/?n=50&boxes=3", color_scheme=theme)
        page.locator(".spoken").wait_for(state="attached", timeout=START_MS)
        for name, sign in PAGES.items():
            page.get_by_role("navigation").get_by_role("link", name=name, exact=True).click()
            main = page.locator("[data-testid=stMain]")
            main.locator(sign).first.wait_for(timeout=START_MS)
            settled(page, START_MS)
            for each in Axe().run(page, options=_RULES).response["violations"]:
                if each["impact"] in ("serious", "critical"):
                    where = [node["html"][:120] for node in each["nodes"][:3]]
                    found.append(f"{name}: {each['id']}: {where}")
    assert not found, "\n".join(found)
