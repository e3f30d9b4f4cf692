"""Clicks that are answered before the page runs, in a real browser: none lost, none overtaken."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("playwright")
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

Open = Callable[..., Any]
FIGURES = re.compile(r"/figures\?")


def spoken(page: Any) -> Any:
    """The outcome in words; `data-click` counts the clicks that it is of."""
    return page.locator(".spoken")


def n_off(page: Any) -> int:
    return int(page.locator('[role=switch][aria-checked="false"]').count())


def heads(page: Any) -> Any:
    return page.get_by_role("switch", name=", group ")


def test_the_figures_come_before_the_session_is_told(open_page: Open) -> None:
    page = open_page()
    heads(page).first.wait_for()
    page.evaluate(
        """() => {
            window.told = [];
            const send = WebSocket.prototype.send;
            WebSocket.prototype.send = function (data) {
                window.told.push(document.querySelector(".spoken").dataset.click);
                return send.call(this, data);
            };
        }"""
    )
    heads(page).first.click()
    page.wait_for_function("() => window.told.length > 0")
    assert page.evaluate("() => window.told[0]") == "0.1"
    expect(page).to_have_url(re.compile("off="))


def test_the_page_answers_where_nothing_else_does(open_page: Open) -> None:
    page = open_page()
    before = spoken(page).inner_text()
    page.route(FIGURES, lambda route: route.fulfill(status=204))
    page.get_by_role("button", name=re.compile("^Group A,")).click()
    expect(spoken(page)).to_have_attribute("data-click", "0.1")
    expect(spoken(page)).not_to_have_text(before)


def test_the_page_answers_where_the_figures_do_not_come(open_page: Open) -> None:
    page = open_page()
    before = spoken(page).inner_text()
    held: list[Any] = []
    page.route(FIGURES, lambda route: held.append(route))  # Playwright marks what it is given
    with page.expect_request(FIGURES):
        page.get_by_role("button", name=re.compile("^Group A,")).focus()
        page.keyboard.press("Enter")
    expect(spoken(page)).to_have_attribute("data-click", "0.1")
    expect(spoken(page)).not_to_have_text(before)


def test_a_late_answer_does_not_undo_an_undo(open_page: Open) -> None:
    page = open_page()
    before = spoken(page).inner_text()
    page.get_by_role("button", name=re.compile("^Group A,")).click()
    expect(page.get_by_role("button", name="Undo")).to_be_enabled()
    late: list[Any] = []
    page.route(FIGURES, lambda route: late.append(route))  # Playwright marks what it is given
    with page.expect_request(FIGURES):
        page.get_by_role("button", name=re.compile("^Group B,")).click()
    # Undo is of the click that has not been answered yet: the session must know of it first.
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_role("button", name=re.compile("^Group B,"))).to_have_text("B on")
    page.get_by_role("button", name="Undo").click()
    expect(spoken(page)).to_have_text(before)
    with page.expect_response(FIGURES):
        late[0].continue_()
    page.get_by_role("button", name="Redo").click()
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_role("button", name="Undo")).to_be_disabled()
    expect(spoken(page)).to_have_text(before)
    assert n_off(page) == 0


def test_twenty_clicks_in_two_seconds_are_twenty_steps(open_page: Open) -> None:
    page = open_page()
    heads(page).first.wait_for()
    page.get_by_label(re.compile("^Circuit of ")).evaluate(
        """async (svg) => {
            for (const head of [...svg.querySelectorAll("[role=switch]")].slice(0, 20)) {
                head.dispatchEvent(new MouseEvent("click", { bubbles: true }));
                await new Promise((resolve) => { setTimeout(resolve, 100); });
            }
        }"""
    )
    expect(spoken(page)).to_have_attribute("data-click", "0.20")
    assert n_off(page) == 20
    expect(page).to_have_url(re.compile(r"off=([^,&]+%2C){19}[^,&]+"))
    page.get_by_role("button", name="Undo").click()
    expect(page.locator('[role=switch][aria-checked="false"]')).to_have_count(19)


def test_what_a_figure_is_can_be_read_with_the_keyboard(open_page: Open) -> None:
    page = open_page()
    why = page.get_by_role("button", name="About: Faithfulness")
    why.focus()
    told = page.locator(".about:popover-open")
    expect(told).to_contain_text("divided by that of the whole model")
    box = told.bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 1440
    page.keyboard.press("Escape")
    expect(told).to_have_count(0)
