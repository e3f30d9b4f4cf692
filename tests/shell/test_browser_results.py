"""Results in a real browser: they outlive a killed server, and can be looked at and deleted."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright")
from playwright.sync_api import expect

from tests.dashboard import ROOT, serving, watched_pages

pytestmark = pytest.mark.browser

START_MS = 60_000
SMALL = "?n=50&boxes=3&seed=4"


def open_page(open_watched: Any, address: str, title: str) -> Any:
    page = open_watched(f"{address}/{SMALL}")
    page.get_by_role("link", name=title, exact=True).click(timeout=START_MS)
    return page


def unwatched(browser: Any) -> Any:
    """Open pages that may lose their server."""

    def open_one(address: str) -> Any:
        page = browser.new_context().new_page()
        page.goto(address)
        return page

    return open_one


def row(page: Any, name: str) -> Any:
    return page.get_by_role("rowheader", name=re.compile(f"^{name}"))


def test_what_was_finished_is_there_after_the_server_was_killed(
    browser: Any, tmp_path: Path
) -> None:
    local = tmp_path / "local"
    with serving(ROOT / "app.py", local=local, is_forked=True) as address:
        page = open_page(unwatched(browser), address, "Compare")
        page.get_by_role("button", name="Run").click(timeout=START_MS)
        expect(row(page, "Base")).to_be_visible(timeout=START_MS)
        expect(page.get_by_role("button", name="Cancel")).to_be_visible()
    page.context.close()
    (file,) = (local / "results").glob("*.json")
    first_part = file.read_text().split('"parts": [\n')[1].splitlines()[0].rstrip(",")

    with (
        serving(ROOT / "app.py", local=local, is_forked=True) as address,
        watched_pages(browser) as open_watched,
    ):
        page = open_page(open_watched, address, "Compare")
        expect(row(page, "Base")).to_be_visible(timeout=START_MS)
        half_done = re.compile(r"^From 2.* of 4 parts are there: press Run")
        expect(page.get_by_text(half_done)).to_be_visible()
        page.get_by_role("button", name="Run").click()
        expect(row(page, "Chat")).to_be_visible(timeout=START_MS)
        expect(page.get_by_role("button", name="Cancel")).to_have_count(0)
        assert first_part in file.read_text(), "the finished part is the one from before"

        page.get_by_role("link", name="Results", exact=True).click()
        grid = page.get_by_test_id("stDataFrame")
        expect(grid).to_be_visible(timeout=START_MS)
        n_before = int(page.get_by_text(re.compile(r"^\d+ results, ")).inner_text().split()[0])
        # The list is a canvas: its first row's tick box is below the header's.
        grid.first.click(position={"x": 18, "y": 53})
        expect(page.get_by_text("50 prompts, seed 4, 3 boxes.")).to_be_visible()
        with page.expect_download() as download:
            page.get_by_role("button", name="CSV", exact=True).click()
        assert "Chat,full model" in Path(download.value.path()).read_text()
        page.get_by_role("button", name="Open on the Compare page").click()
        expect(row(page, "Chat")).to_be_visible(timeout=START_MS)
        expect(page.get_by_text(re.compile("^From 2"))).to_be_visible()

        page.get_by_role("link", name="Results", exact=True).click()
        grid.first.click(position={"x": 18, "y": 53})
        page.get_by_role("button", name="Delete", exact=True).click()
        page.get_by_role("button", name="Delete for good").click()
        expect(page.get_by_text(f"{n_before - 1} results")).to_be_visible()
        assert not file.exists()
