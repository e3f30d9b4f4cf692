"""A prompt typed, marked by clicks and patched from a second one, in a real browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("playwright")
from playwright.sync_api import expect

from tests.dashboard import choose, watched_pages

pytestmark = pytest.mark.browser

START_MS = 60_000
TEXT = "The apple is in Box P, the brain is in Box Q, the pipe is in Box Z. Box Q contains the"
FREE = "The apple is in Box P. The brain is in Box Q. Box Q contains the"


@pytest.fixture
def page(server: str, browser: Any) -> Iterator[Any]:
    with watched_pages(browser) as open_page:
        yield open_page(f"{server}/?n=50&boxes=3")


def write(page: Any, name: str, text: str) -> None:
    box = page.get_by_role("textbox", name=name, exact=True)
    box.fill(text, timeout=START_MS)
    box.press("Control+Enter")


def word(page: Any, text: str, number: int) -> Any:
    return page.locator(".tokens button").filter(has_text=re.compile(f"^{text}$")).nth(number)


def mark(page: Any, what: str, text: str, number: int) -> None:
    choose(page, "A click marks", what)
    word(page, text, number).click()


def test_a_prompt_is_typed_marked_and_patched(page: Any) -> None:
    spoken = page.locator(".spoken")
    page.get_by_role("link", name="Prompt", exact=True).click(timeout=START_MS)
    write(page, "Prompt", TEXT)
    expect(spoken).to_have_text(re.compile(r"of brain 0\.[5-9]|of brain 1"), timeout=START_MS)
    given = page.get_by_role("radiogroup", name="A head that is off gives")
    given.get_by_role("radio", name="Second prompt").click()
    here = page.get_by_role("radiogroup", name="Write")
    here.get_by_role("radio", name="Second prompt").click()
    write(page, "Second prompt", TEXT.replace("Box Q contains", "Box Z contains"))
    expect(word(page, "pipe", 0)).to_have_class(re.compile("answer"))
    page.locator('[data-group="A"]').click()
    expect(spoken).to_have_text(re.compile(r"of brain 0\.[0-4]"), timeout=START_MS)


def test_free_text_is_marked_by_clicks(page: Any) -> None:
    page.get_by_role("link", name="Prompt", exact=True).click(timeout=START_MS)
    write(page, "Prompt", FREE)
    expect(page.get_by_text("Not marked")).to_be_visible(timeout=START_MS)
    mark(page, "the answer", "brain", 0)
    expect(page.get_by_role("textbox", name="Answer")).to_have_value("brain")
    competitors = page.get_by_role("textbox", name="Competitors")
    competitors.fill("apple")
    competitors.press("Enter")
    mark(page, "label asked for, first time", "Q", 0)
    mark(page, "label asked for", "Q", 1)
    expect(page.locator(".spoken")).to_have_text(re.compile("of brain"), timeout=START_MS)
    page.locator('[data-id="A L4.2"]').dblclick()
    expect(page.get_by_text("Where L4.2 of A attends")).to_be_visible(timeout=START_MS)
