"""The circuit picture in a real browser: clicks, keys, group switches, themes, no complaints."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("playwright")
from playwright.sync_api import expect

from tests.circuitviz.samples import published_names

pytestmark = pytest.mark.browser

Open = Callable[..., Any]


def head(page: Any, name: str) -> Any:
    """The switch of a head, by the beginning of its label."""
    return page.get_by_role("switch", name=re.compile(f"^{re.escape(name)},"))


def heads(page: Any) -> Any:
    return page.get_by_role("switch")


def group(page: Any, letter: str) -> Any:
    return page.get_by_role("button", name=re.compile(f"^Group {letter},"))


def n_off(page: Any) -> int:
    return int(page.locator('[role=switch][aria-checked="false"]').count())


def test_a_click_shows_at_once_and_reaches_python(open_picture: Open) -> None:
    page = open_picture()
    expect(heads(page)).to_have_count(32)
    shown = heads(page).first.evaluate(
        "node => { node.dispatchEvent(new MouseEvent('click', {bubbles: true}));"
        " return node.getAttribute('aria-checked') }"
    )
    assert shown == "false"
    expect(page.get_by_text(re.compile(r"off: D:L1\.\d; switched: 0; served: 1"))).to_be_visible()
    heads(page).first.click()
    expect(page.get_by_text("off: none; switched: 0; served: 2")).to_be_visible()
    expect(heads(page).first).to_be_checked()


def test_ten_fast_clicks_all_count(open_picture: Open) -> None:
    page = open_picture()
    page.get_by_label(re.compile("^Circuit of 32")).evaluate(
        "svg => [...svg.querySelectorAll('[role=switch]')].slice(0, 10)"
        ".forEach(node => node.dispatchEvent(new MouseEvent('click', {bubbles: true})))"
    )
    expect(page.get_by_text("served: 10")).to_be_visible()
    assert n_off(page) == 10
    for place in range(10, 20):
        heads(page).nth(place).click(no_wait_after=True)
    expect(page.get_by_text("served: 20")).to_be_visible()
    assert n_off(page) == 20


def test_the_keyboard_moves_and_switches(open_picture: Open) -> None:
    page = open_picture()
    expect(page.locator('[role=switch][tabindex="0"]')).to_have_count(1)
    heads(page).first.focus()
    first = heads(page).first.get_attribute("data-id")
    page.keyboard.press("ArrowRight")
    expect(heads(page).first).not_to_be_focused()
    page.keyboard.press("Space")
    expect(page.locator('[role=switch][aria-checked="false"]')).to_be_focused()
    expect(page.get_by_text("served: 1")).to_be_visible()
    page.keyboard.press("ArrowLeft")
    expect(page.locator(f'[data-id="{first}"]')).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_text("served: 2")).to_be_visible()
    assert n_off(page) == 2
    expect(page.get_by_role("tooltip")).to_contain_text("knocked out")


def test_every_head_can_be_reached_with_the_arrows(open_picture: Open) -> None:
    page = open_picture()
    heads(page).first.focus()
    reached = page.get_by_label(re.compile("^Circuit of 32")).evaluate(
        """svg => {
            const root = svg.getRootNode(), seen = new Set(), queue = [root.activeElement];
            while (queue.length) {
                const node = queue.pop();
                if (seen.has(node)) continue;
                seen.add(node);
                for (const key of ['ArrowLeft', 'ArrowRight', 'ArrowUp', 'ArrowDown']) {
                    node.focus();
                    node.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true}));
                    queue.push(root.activeElement);
                }
            }
            return seen.size;
        }"""
    )
    assert reached == 32


def test_a_group_switch_has_three_states(open_picture: Open) -> None:
    page = open_picture()
    expect(group(page, "C")).to_have_attribute("aria-pressed", "true")
    group(page, "C").click()
    expect(group(page, "C")).to_have_attribute("aria-pressed", "false")
    assert n_off(page) == 8
    page.get_by_role("switch", name="group C").first.click()
    expect(group(page, "C")).to_have_attribute("aria-pressed", "mixed")
    expect(group(page, "C")).to_have_text("C 1/8")
    group(page, "C").click()
    expect(page.get_by_text("off: none; switched: 0; served: 3")).to_be_visible()


def test_python_overrules_the_browser_on_reset(open_picture: Open) -> None:
    page = open_picture()
    heads(page).nth(4).click()
    expect(page.get_by_text("served: 1")).to_be_visible()
    page.get_by_role("button", name="reset").click()
    expect(page.locator('[role=switch][aria-checked="false"]')).to_have_count(0)
    heads(page).nth(5).click()
    expect(page.get_by_text("served: 2")).to_be_visible()
    assert n_off(page) == 1


def test_hover_tells_about_a_head_and_its_edges(open_picture: Open) -> None:
    page = open_picture()
    page.get_by_role("switch", name="group B").first.hover()
    tooltip = page.get_by_role("tooltip")
    expect(tooltip).to_contain_text("Position Transmitter")
    expect(tooltip).to_contain_text("score −0.")
    expect(tooltip).to_contain_text("attends to the query's label")
    assert page.locator(".traced.out").get_attribute("d")
    page.get_by_role("button", name="reset").hover()
    expect(tooltip).to_be_hidden()


def test_a_head_outside_the_circuit_can_be_added(open_picture: Open) -> None:
    page = open_picture("all")
    outside = page.get_by_role("switch", name="outside the circuit, last token").first
    expect(outside).not_to_be_checked()
    outside.focus()
    page.keyboard.press("Space")
    expect(page.get_by_text("switched: 1; served: 1")).to_be_visible()
    expect(outside).to_be_checked()
    expect(outside).to_be_focused()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_follow_the_theme(open_picture: Open, scheme: str) -> None:
    page = open_picture(color_scheme=scheme)
    brightness = page.locator(".layer-name:not(.empty)").first.evaluate(
        "text => getComputedStyle(text).fill.match(/\\d+/g).slice(0, 3)"
        ".reduce((sum, part) => sum + Number(part), 0) / 3"
    )
    assert (brightness > 128) == (scheme == "dark")


@pytest.mark.parametrize("size", [(860, 800), (1440, 900), (1920, 1080)])
@pytest.mark.parametrize("name", ["tiny", *published_names()])
def test_labels_neither_collide_nor_leave_the_picture(
    open_picture: Open, name: str, size: tuple[int, int]
) -> None:
    page = open_picture(f"circuit={name}", viewport={"width": size[0], "height": size[1]})
    expect(page.locator(".label").first).not_to_be_empty()
    collisions = page.get_by_label(re.compile("^Circuit of")).evaluate(
        """svg => {
            const boxes = [...svg.querySelectorAll('.label, .shape')]
                .filter(e => e.tagName !== 'text' || e.textContent)
                .map(e => ({ box: e.getBoundingClientRect(), isText: e.tagName === 'text',
                             name: e.parentNode.dataset.id }));
            const meet = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
                && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 5;
            const inside = svg.getBoundingClientRect(), found = [];
            boxes.forEach((a, i) => {
                if (a.box.left < inside.left || a.box.right > inside.right) found.push(a.name);
                boxes.slice(i + 1).forEach(b => {
                    if ((a.isText || b.isText) && a.name !== b.name && meet(a.box, b.box))
                        found.push(`${a.name} / ${b.name}`);
                });
            });
            return found;
        }"""
    )
    assert collisions == []


def test_a_crowded_circuit_can_be_zoomed(open_picture: Open) -> None:
    if "goat-7b" not in published_names():
        pytest.skip("The published circuits are not at hand.")
    page = open_picture("circuit=goat-7b")
    before = heads(page).first.bounding_box()
    page.get_by_role("button", name="Zoom in").click()
    page.get_by_role("button", name="Zoom in").click()
    after = heads(page).first.bounding_box()
    assert after["width"] > before["width"]
    page.get_by_role("button", name="Fit").click()
    assert heads(page).first.bounding_box() == before
