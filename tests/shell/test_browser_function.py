"""What groups encode in a real browser: clicks on heads, on the map, and a mask that is learned."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

pytest.importorskip("playwright")
from playwright.sync_api import expect

from backend.models import catalogue
from backend.tasks.circuit import Circuit
from backend.tasks.ioi import IOI
from tests import planted_ioi
from tests.dashboard import choose, settled, watched_pages

pytestmark = pytest.mark.browser

START_MS = 120_000
_EXPECTED = re.compile(r"^Base’s answer: (\d\.\d+)\. Expected answer: (\d\.\d+)\.$")


@pytest.fixture
def open_page(browser: Any, server: str) -> Iterator[Any]:
    with watched_pages(browser) as opened:
        yield lambda **query: opened(f"{server}/?{urlencode({'n': '50', 'boxes': '3'} | query)}")


def shares(page: Any) -> tuple[float, float]:
    """Of the base's own and of the expected answer, as a screen reader hears them."""
    expect(page.locator(".spoken")).to_have_text(_EXPECTED, timeout=START_MS)
    match = _EXPECTED.match(page.locator(".spoken").inner_text())
    assert match
    return float(match[1]), float(match[2])


def test_clicking_heads_moves_the_answer_to_the_expected_one(open_page: Any) -> None:
    page = open_page(reading="model", mode="counterfactual")
    choose(page, "Counterfactual of", "Position", START_MS)
    own, expected = shares(page)
    assert own > 0.5 > expected
    before = page.locator(".spoken").inner_text()
    for head in catalogue.circuit("base").heads("B"):
        page.locator(f'[data-id="B {head}"]').click()
        expect(page.locator(".spoken")).not_to_have_text(before, timeout=START_MS)
        before = page.locator(".spoken").inner_text()
    own, expected = shares(page)
    assert expected > 0.5 > own
    expect(page.get_by_text("Alternate prompt: what heads that are off give")).to_be_visible()
    expect(page).to_have_url(re.compile("desideratum=position"))
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".spoken")).not_to_have_text(before, timeout=START_MS)
    choose(page, "Counterfactual of", "Boxes before the segment", START_MS)
    expect(page.get_by_text("Choose another test, or a model").first).to_be_visible(
        timeout=START_MS
    )
    choose(page, "Counterfactual of", "path patching", START_MS)
    expect(page.get_by_text("Expected answer")).to_have_count(0, timeout=START_MS)


def test_map_pairs_and_mask(open_page: Any) -> None:
    page = open_page()
    page.get_by_role("link", name="Function", exact=True).click(timeout=START_MS)
    expect(page.get_by_text("Alternate prompt, from which")).to_be_visible(timeout=START_MS)
    expect(page.get_by_text("Pair 1 of 50")).to_be_visible()
    page.get_by_role("button", name="▶", exact=True).click()
    expect(page.get_by_text("Pair 2 of 50")).to_be_visible()
    page.get_by_text("tests cannot be written for Base").click()
    expect(page.get_by_text("does not know “There”")).to_be_visible()

    page.get_by_role("button", name="Run").click()
    expect(page.get_by_text("the others are no findings")).to_be_visible(timeout=START_MS)
    expect(page.get_by_role("button", name="Cancel")).to_have_count(0, timeout=START_MS)
    cell = page.locator("[aria-roledescription='rect mark'][aria-label*='Position']").first
    cell.click(force=True, timeout=START_MS)
    expect(page.get_by_role("combobox", name="Test", exact=True)).to_have_value("Position")

    expect(page.get_by_text("carry it? “Position”, learned")).to_be_visible()
    settled(page)
    page.get_by_role("radio", name="B", exact=True).click()
    expect(page.get_by_text("Which heads of B carry it?")).to_be_visible(timeout=START_MS)
    settled(page)
    pairs = page.get_by_role("spinbutton", name="Pairs", exact=True)
    pairs.fill("160")
    pairs.press("Enter")
    settled(page)
    page.get_by_role("button", name="Learn the mask").click()
    expect(page.get_by_text(re.compile("B, position: . of 3 heads are kept"))).to_be_visible(
        timeout=START_MS
    )
    page.get_by_role("button", name="Open in the Circuit page").click()
    shares(page)
    expect(page.get_by_role("combobox", name="Circuit", exact=True)).to_have_value(
        "base-B-position"
    )


def test_wrong_inputs_are_explained(open_page: Any) -> None:
    page = open_page(model="no-such-model", circuit="no-such-circuit", desideratum="smell")
    page.get_by_role("link", name="Function", exact=True).click(timeout=START_MS)
    expect(page.get_by_text("There is no circuit “no-such-circuit”").first).to_be_visible(
        timeout=START_MS
    )
    page = open_page(model="no-such-model")
    page.get_by_role("link", name="Function", exact=True).click(timeout=START_MS)
    expect(page.get_by_text("There is no model “no-such-model”").first).to_be_visible(
        timeout=START_MS
    )
    expect(page.get_by_role("button", name="Try again")).to_be_visible()


def test_another_task_has_its_own_tests(
    open_page: Any, local: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("planted")
    planted_ioi.saved(folder)
    (local / "circuits").mkdir(exist_ok=True)
    circuit = Circuit.of(IOI, planted_ioi.CIRCUIT, "planted")
    (local / "circuits" / "planted.json").write_text(circuit.to_json())
    page = open_page(task="ioi", circuit="planted", model=str(folder))
    page.get_by_role("link", name="Function", exact=True).click(timeout=START_MS)
    expect(page.get_by_text("If the heads carry the")).to_be_visible(timeout=START_MS)
    page.get_by_role("button", name="Run").click()
    expect(page.get_by_text("the others are no findings")).to_be_visible(timeout=START_MS)
    expect(page.get_by_role("radio", name="NM", exact=True)).to_be_visible()
