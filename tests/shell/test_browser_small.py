"""In a real browser, small: a projector and a phone, fingers and the keyboard alone."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("playwright")
from playwright.sync_api import TimeoutError, expect

from tests.shell.test_browser_axe import PAGES, START_MS

pytestmark = pytest.mark.browser

PROJECTOR = {"width": 1280, "height": 720}
PHONE = {"width": 390, "height": 844}
_FITS = """() => [document.scrollingElement, document.querySelector("[data-testid=stMain]")]
    .every((element) => element.scrollWidth <= element.clientWidth)"""
_DRAWN_MS = 10_000
_SETTLED = """async () => {
    await new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)));
    const ends = (move) => move.effect.getComputedTiming().iterations !== Infinity;
    await Promise.allSettled(document.getAnimations().filter(ends).map((move) => move.finished));
}"""
_FOCUSED = """() => {
    let element = document.activeElement;
    while (element.shadowRoot?.activeElement) element = element.shadowRoot.activeElement;
    const { at, group, id } = element.dataset;
    return { at, group, id, words: element.textContent.trim() };
}"""
_MANY_TABS = 40
Open = Callable[..., Any]


def test_no_page_scrolls_sideways(open_page: Open) -> None:
    """Neither on a projector of few pixels nor on a phone."""
    page = open_page("?n=50&boxes=3", viewport=PROJECTOR)
    too_wide = {}
    for name, sign in PAGES.items():
        page.get_by_role("navigation").get_by_role("link", name=name, exact=True).click()
        page.locator("[data-testid=stMain]").locator(sign).first.wait_for(timeout=START_MS)
        idle = page.locator("[data-testid=stApp][data-test-script-state=notRunning]")
        idle.wait_for(state="attached", timeout=START_MS)
        for size in (PHONE, PROJECTOR):
            page.set_viewport_size(size)
            page.evaluate(_SETTLED)
            try:
                page.wait_for_function(_FITS, timeout=_DRAWN_MS)
            except TimeoutError:
                too_wide[name] = size
    assert not too_wide


def test_a_head_is_reached_and_switched_by_keys_alone(open_page: Open) -> None:
    """From the top of the page; and the keyboard leads on to what comes after the graph."""
    page = open_page("?n=50&boxes=3", viewport=PROJECTOR)
    page.keyboard.press("Tab")
    assert page.evaluate(_FOCUSED)["words"] == "Skip to main content"
    page.keyboard.press("Enter")
    for _ in range(_MANY_TABS):
        page.keyboard.press("Tab")
        if first := page.evaluate(_FOCUSED)["id"]:
            break
    page.keyboard.press("ArrowRight")
    reached = page.evaluate(_FOCUSED)["id"]
    assert None not in {first, reached}
    assert first != reached
    head = page.locator(f'[data-id="{reached}"]')
    ring = head.locator(".halo")
    assert ring.evaluate("(halo) => getComputedStyle(halo).strokeWidth") == "5px"
    for key, state in (("Space", "false"), ("Enter", "true"), ("Enter", "false")):
        page.keyboard.press(key)
        expect(head).to_have_attribute("aria-checked", state)
    page.keyboard.press("Tab")
    assert page.evaluate(_FOCUSED)["group"]


def test_the_words_of_a_prompt_are_one_stop_and_arrows_lead_through_them(open_page: Open) -> None:
    page = open_page("?n=50&boxes=3", viewport=PROJECTOR)
    page.get_by_role("navigation").get_by_role("link", name="Prompt", exact=True).press("Enter")
    words = page.get_by_role("toolbar", name="Words of the prompt").get_by_role("button")
    words.first.focus()
    page.keyboard.press("ArrowRight")
    expect(words.nth(1)).to_be_focused()
    page.keyboard.press("Enter")
    answer = page.get_by_label("Answer", exact=True)
    expect(answer).to_have_value(words.nth(1).inner_text())
    expect(words.nth(1)).to_be_focused()
    page.keyboard.press("Tab")
    assert page.evaluate(_FOCUSED)["at"] is None
    page.keyboard.press("Shift+Tab")
    expect(words.nth(1)).to_be_focused()


def test_a_finger_switches_heads_on_a_phone(open_page: Open) -> None:
    """What is told of a head stays beside it until the next tap; headings and switches fit."""
    page = open_page("?n=50&boxes=3", viewport=PHONE, has_touch=True, is_mobile=True)
    shown = page.locator(":is(.heading, .group-switch)")
    expect(shown).to_have_count(8)
    for i in range(8):
        box = shown.nth(i).bounding_box()
        assert 0 <= box["x"] <= PHONE["width"] - box["width"]
    tip = page.get_by_role("tooltip")
    heads = page.locator("[role=switch].member")
    for i in (0, 5):
        heads.nth(i).tap()
        expect(heads.nth(i)).to_have_attribute("aria-checked", "false")
        expect(tip).to_contain_text("click to restore")
        assert not _overlap(tip.bounding_box(), heads.nth(i).locator(".shape").bounding_box())
    page.get_by_role("button", name=re.compile("^Group A,")).tap()
    expect(tip).to_be_hidden()
    expect(page.locator('[role=switch][aria-checked="false"]')).to_have_count(8)


def _overlap(a: Any, b: Any) -> bool:
    return all(
        a[start] < b[start] + b[size] and b[start] < a[start] + a[size]
        for start, size in (("x", "width"), ("y", "height"))
    )
