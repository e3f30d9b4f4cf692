"""The Attention page in a real browser: from a head on the Circuit page to it, and back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("playwright")
from playwright.sync_api import expect

from backend.core.heads import Head
from backend.methods.attention_knockout import AttentionKnockoutRequest, attention_knockout
from backend.models import catalogue
from backend.models.loaded_models import load
from backend.studies.patterns import patterns
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.prompts import Prompts
from tests.dashboard import watched_pages

pytestmark = pytest.mark.browser

START_MS = 60_000
SMALL = Prompts(ENTITY_TRACKING, 50, 0, (3,))
A = catalogue.circuit("base").heads("A")[-1]


@pytest.fixture
def page(server: str, browser: Any) -> Iterator[Any]:
    with watched_pages(browser) as open_page:
        opened = open_page(f"{server}/?n=50&boxes=3&example=1")
        expect(opened.locator(".spoken")).to_be_attached(timeout=START_MS)
        yield opened


def said(head: Head, token: int = -1) -> str:
    """What the page says of where a head looks."""
    found = patterns("base", SMALL, 1)
    token %= len(found.words)
    row = found.weights[head.layer, head.index, token]
    return f"{head} from “{found.words[token]}” ({token}), most to: “{found.words[row.argmax()]}”"


def head(page: Any, name: str) -> Any:
    return page.locator(f'[data-id="{name}"]')


def test_a_double_click_leads_to_a_heads_attention_and_back(page: Any) -> None:
    head(page, f"A {A}").dblclick()
    expect(page.get_by_text(said(A))).to_be_visible(timeout=START_MS)
    page.get_by_role("button", name="← Back to the circuit").click()
    expect(head(page, f"A {A}")).to_have_attribute("aria-checked", "true", timeout=START_MS)
    expect(page.get_by_role("button", name="Undo")).to_be_disabled()
    head(page, f"A {A}").focus()
    page.keyboard.press("a")
    expect(page.get_by_text(said(A))).to_be_visible(timeout=START_MS)
    page.go_back()
    expect(head(page, f"A {A}")).to_be_visible(timeout=START_MS)


def test_a_click_on_a_row_colours_the_text_by_it(page: Any) -> None:
    page.get_by_role("link", name="Attention", exact=True).click()
    box = page.get_by_role("combobox", name="Token that looks")
    expect(box).to_be_visible(timeout=START_MS)
    expect(page.locator(".attention .looking")).not_to_have_text("<s>")
    page.locator("[data-testid=stVegaLiteChart] path[aria-label]").first.click(force=True)
    expect(page.get_by_text(re.compile(r"\(0\), most to"))).to_be_visible()
    expect(page.locator(".attention .looking")).to_have_text("<s>")


def test_curves_and_wrong_input(page: Any) -> None:
    page.get_by_role("link", name="Attention", exact=True).click()
    page.get_by_text("Knockout", exact=True).click()
    page.get_by_role("button", name="Run").click()
    request = AttentionKnockoutRequest(("base",), SMALL, ENTITY_TRACKING.edges)
    found = attention_knockout(load("base"), request)
    row = page.get_by_role("row").filter(has_text="last token → correct object")
    expected = found.curves[0].by_layer[0]
    expect(row).to_contain_text(f"{expected.value:.3f}", timeout=START_MS)
    page.get_by_text("Lay the paper’s Llama-7B over it").click()
    expect(page.get_by_text("Dashed: the paper’s Llama-7B")).to_be_visible()
    heads = page.get_by_role("combobox", name="Only in these heads")
    heads.fill("rubbish")
    heads.press("Enter")
    expect(page.get_by_text("is not a head")).to_be_visible()
