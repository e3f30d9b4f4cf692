"""The Models page in a real browser: a model of the user's own, from a folder to the circuit."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright")
from playwright.sync_api import expect

from backend.core.errors import UserError
from backend.models import registry
from backend.studies.session import prepare
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.prompts import Prompts
from backend.tasks.setting import Setting
from tests.dashboard import choose, figure, settled, watched_pages

pytestmark = pytest.mark.browser

START_MS = 60_000
NAME = "added-by-test"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model that nobody knows yet."""
    return Path(shutil.copytree(registry.BUNDLED / "chat", tmp_path / "mine"))


@pytest.fixture
def page(server: str, browser: Any) -> Iterator[Any]:
    with watched_pages(browser) as open_watched:
        page = open_watched(server)
        page.get_by_role("link", name="Models", exact=True).click(timeout=START_MS)
        expect(page.get_by_text("Can be compared")).to_be_visible(timeout=START_MS)
        yield page


def button(page: Any, action: str) -> Any:
    return page.locator(f".st-key-{action}_{NAME}").get_by_role("button")


def row(page: Any) -> Any:
    return page.locator(".model").filter(has_text=NAME)


def test_a_model_is_added_by_its_folder_loaded_used_and_unloaded(
    page: Any, folder: Path, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page.get_by_label("Name", exact=True).fill(NAME)
    page.get_by_label("Hub name, folder or GGUF file", exact=True).fill(str(folder))
    page.get_by_label("Fine-tuned on (optional)").fill("what a test wants")
    page.get_by_role("button", name="Add", exact=True).click()
    expect(row(page)).to_contain_text("what a test wants")
    expect(row(page)).to_contain_text("on this computer: 316 k parameters, 1.3 MB in float32")
    expect(page.get_by_role("listitem").filter(has_text="with each other")).to_contain_text(NAME)

    button(page, "load").click()
    expect(row(page)).to_contain_text("Loaded", timeout=START_MS)
    expect(row(page)).to_contain_text("cpu · float32 · 1.3 MB")

    page.get_by_role("link", name="Circuit", exact=True).click()
    choose(page, "Model", NAME)
    expect(page.get_by_text("Fine-tuned on: what a test wants.")).to_be_visible()
    monkeypatch.setattr(registry, "ADDED", local / "models.toml")
    session = prepare(
        Setting(NAME, Prompts(ENTITY_TRACKING, 200, 0, (7,))), lambda stage, share: None
    )
    whole = figure(page, "Whole model")
    expect(whole).to_contain_text(f"{session.whole.correct.mean():.3f}", timeout=START_MS)

    page.get_by_role("link", name="Models", exact=True).click()
    button(page, "unload").click()
    expect(button(page, "load")).to_be_visible()
    expect(row(page)).not_to_contain_text("Loaded")
    # A click while the page is drawn anew may hit a button that is just being replaced.
    settled(page)
    button(page, "remove").click()
    expect(row(page)).to_have_count(0)
    with pytest.raises(UserError):
        registry.entry(NAME)


def test_a_name_that_is_taken_and_a_model_that_is_not_here_get_messages(page: Any) -> None:
    page.get_by_label("Name", exact=True).fill("base")
    page.get_by_label("Hub name, folder or GGUF file", exact=True).fill("owner/name")
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("There is a model “base” already")
    page.locator(".st-key-load_float-7b").get_by_role("button").click()
    expect(page.get_by_role("alert")).to_contain_text(
        "hf download nikhil07prakash/float-7b", timeout=START_MS
    )
