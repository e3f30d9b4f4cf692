"""A read-only dashboard behind a path, in a real browser: clicked, and its log read."""

from __future__ import annotations

import json
import re
import urllib.request
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright")
from playwright.sync_api import expect

from tests.dashboard import ROOT, serving, watched_pages

pytestmark = pytest.mark.browser

START_MS = 60_000


def test_an_audience_clicks_heads_under_a_path(browser: Any, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with (
        serving(
            ROOT / "app.py",
            path="/circuits",
            local=tmp_path,
            is_read_only=True,
            log=log,
            is_forked=True,
        ) as address,
        watched_pages(browser) as open_page,
    ):
        with urllib.request.urlopen(f"{address.removesuffix('/circuits')}/health") as answer:
            assert json.load(answer)["status"] == "ok"
        page = open_page(f"{address}/?n=50&boxes=3")
        spoken = page.locator(".spoken")
        expect(spoken).to_have_text(re.compile("accuracy"), timeout=START_MS)
        before = spoken.text_content()
        with page.expect_response(re.compile("/circuits/figures")) as answered:
            page.locator('[data-group="A"]').click()
        assert answered.value.status == 200
        expect(spoken).not_to_have_text(before, timeout=START_MS)
        expect(page.get_by_text("Add a circuit")).to_have_count(0)
        page.get_by_role("link", name="Compare", exact=True).click()
        page.get_by_role("button", name="Run").click(timeout=START_MS)
        expect(page.get_by_text("read-only dashboard")).to_be_visible(timeout=START_MS)
    line = r"finished in \d+\.\d s, for localhost [0-9a-f-]{8}"
    assert re.search(line, log.read_text(encoding="utf-8"))
