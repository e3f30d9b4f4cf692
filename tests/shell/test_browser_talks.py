"""A talk in a real browser: made, exported, imported, and given by keys alone."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright")
from playwright.sync_api import expect

from tests.dashboard import choose, upload, watched_pages

pytestmark = pytest.mark.browser

START_MS = 60_000


def add(page: Any, talk: str, title: str, note: str) -> None:
    page.get_by_role("button", name="Add to talk").click()
    form = page.get_by_test_id("stForm")
    chosen = form.get_by_role("combobox", name="Talk")
    chosen.fill(talk)
    chosen.press("Enter")
    form.get_by_role("textbox", name="Title").fill(title)
    form.get_by_role("textbox", name="Note, for you alone").fill(note)
    form.get_by_role("button", name="Add").click()
    expect(page.get_by_test_id("stToast").last).to_contain_text("Kept as step")
    page.keyboard.press("Escape")


def expect_step(page: Any, number: int, title: str) -> None:
    expect(page.locator(".presented-title")).to_have_text(f"{title}{number} of 2")
    expect(page).to_have_url(re.compile(f"talk=.*&step={number}$"))


def test_a_talk_is_made_exported_imported_and_given_by_keys_alone(
    server: str, browser: Any, tmp_path: Path
) -> None:
    with watched_pages(browser) as open_watched:
        page = open_watched(f"{server}/?n=50", viewport={"width": 1280, "height": 720})
        expect(page.locator(".spoken")).to_be_attached(timeout=START_MS)
        page.get_by_role("button", name=re.compile("^Group A,")).click()
        expect(page.locator(".spoken")).to_have_attribute("data-click", "0.1")
        add(page, "My talk", "Fetchers off", "Say this.")
        page.get_by_role("link", name="Compare", exact=True).click()
        expect(page.get_by_text("A head that is off gives")).to_be_visible()
        page.get_by_role("radio", name="Zero").click()
        add(page, "my-talk", "Compared", "And that.")

        page.get_by_role("link", name="Talks", exact=True).click()
        choose(page, "Talk", re.compile("^My talk"))
        expect(page.get_by_role("button", name="Delete")).to_be_visible()
        with page.expect_download() as download:
            page.get_by_role("button", name="Export").click()
        file = tmp_path / "taken-along.json"
        download.value.save_as(file)
        steps = json.loads(file.read_text(encoding="utf-8"))["steps"]
        assert [step["title"] for step in steps] == ["Fetchers off", "Compared"]
        assert steps[1]["choices"]["compared_ablation"] == "zero"
        page.get_by_role("button", name="Delete").click()
        page.get_by_text("Import a talk").click()
        upload(page, "A talk that was exported", file)
        expect(page.get_by_label("Title of the talk")).to_have_value("My talk")
        page.keyboard.press("Escape")

        page.get_by_role("button", name="Give this talk").focus()
        page.keyboard.press("Enter")
        expect_step(page, 1, "Fetchers off")
        off = page.locator('[role=switch][aria-checked="false"]')
        expect(off).to_have_count(6)
        page.keyboard.press("PageDown")
        expect_step(page, 2, "Compared")
        expect(page.get_by_role("radio", name="Zero")).to_be_checked()
        page.keyboard.press("PageUp")
        expect_step(page, 1, "Fetchers off")
        expect(off).to_have_count(6)
        page.keyboard.press("ArrowRight")
        expect_step(page, 2, "Compared")
        page.keyboard.press("Home")
        expect_step(page, 1, "Fetchers off")
        page.get_by_role("button", name=re.compile("^Group B,")).click()
        expect(off).to_have_count(9)
        page.keyboard.press("b")
        expect(off).to_have_count(6)

        speaker = page.context.new_page()
        speaker.goto(f"{server}/")
        expect(speaker.locator(".spoken")).to_be_attached(timeout=START_MS)
        speaker.goto(f"{server}/speaker?of=taken-along")
        expect(speaker.get_by_text("Say this.")).to_be_visible()
        expect(speaker.get_by_text("Next: Compared")).to_be_visible()
        page.bring_to_front()
        page.keyboard.press("PageDown")
        expect(speaker.get_by_text("And that.")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.get_by_role("link", name="Talks", exact=True)).to_be_visible()
        expect(page.get_by_text("Step 2 of 2")).to_be_visible()
        page.get_by_role("button", name="Close the talk").click()
        expect(page).not_to_have_url(re.compile("talk="))
