"""Logits in a real browser: run what is read, see the engine's figures, colour the graph so."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("playwright")
from playwright.sync_api import expect

from backend.core.statistics import clear_among, mean_estimate
from backend.engine.logit_attribution import direct_contributions
from backend.models import catalogue
from backend.models.loaded_models import load
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.prompts import Prompts
from tests.dashboard import watched_pages

pytestmark = pytest.mark.browser

START_MS = 60_000
QUERY = "n=50&boxes=3&seed=0"
PROMPTS = Prompts(ENTITY_TRACKING, 50, 0, (3,))
CIRCUIT = catalogue.circuit("base")
Open = Callable[..., Any]


@pytest.fixture
def open_page(server: str, browser: Any) -> Iterator[Open]:
    with watched_pages(browser) as open_watched:
        yield lambda query="", **options: open_watched(f"{server}/?{QUERY}{query}", **options)


@pytest.fixture(scope="module")
def heads() -> Any:
    """What each head adds to the logit difference of each prompt: [n, n_layers, n_heads]."""
    model = load("base")
    found = direct_contributions(model.model, PROMPTS.sample(model.tokenizer))
    return found.heads.numpy()


def to_logits(page: Any) -> None:
    page.get_by_role("link", name="Logits", exact=True).click(timeout=START_MS)
    expect(page.get_by_role("button", name="Run")).to_be_visible(timeout=START_MS)


def test_all_that_is_read_can_be_run_and_shown(open_page: Open, heads: Any) -> None:
    page = open_page()
    to_logits(page)
    page.get_by_role("button", name="Run").click()
    fetchers = sum(heads[:, head.layer, head.index] for head in CIRCUIT.heads("A"))
    row = page.get_by_role("row").filter(has_text="Value Fetcher")
    expect(row).to_contain_text(f"{fetchers.mean():.2f}", timeout=START_MS)
    charts = page.get_by_test_id("stVegaLiteChart")
    expect(charts).to_have_count(2, timeout=START_MS)
    page.get_by_text("One prompt", exact=True).click()
    expect(page.get_by_text("Prompt 1 of 50")).to_be_visible()
    page.get_by_role("button", name="▶", exact=True).click()
    expect(page.get_by_text("Prompt 2 of 50")).to_be_visible()
    expect(page).to_have_url(re.compile("example=1"))
    for read, shown in (("Logit lens", "At the last token"), ("Copying", "Word by word")):
        page.get_by_text(read, exact=True).click()
        expect(page.get_by_text("Press Run to")).to_be_visible()
        page.get_by_role("button", name="Run").click()
        expect(page.get_by_role("heading", name=shown)).to_be_visible(timeout=START_MS)
    page.get_by_text("Negative copying", exact=True).click()
    expect(charts).to_have_count(2)


def test_the_graph_is_coloured_by_contributions(open_page: Open, heads: Any) -> None:
    page = open_page()
    expect(page.locator(".spoken")).to_be_attached(timeout=START_MS)
    weighed = page.locator(".head.weighed")
    expect(weighed).to_have_count(0)
    page.get_by_test_id("stCheckbox").filter(has_text="Contributions").click()
    expect(weighed).to_have_count(len(CIRCUIT.members), timeout=START_MS)
    expect(page).to_have_url(re.compile("contributions=1"))
    expect(page.get_by_text("none clear, or another token")).to_be_visible()
    n_layers, n_heads = heads.shape[1:]
    means = [mean_estimate(heads[:, i, j]) for i in range(n_layers) for j in range(n_heads)]
    clear = clear_among(means)
    for group, head in CIRCUIT.members:
        drawn = page.locator(f'[data-id="{group} {head}"]')
        fill = drawn.evaluate("each => each.style.getPropertyValue('--fill')")
        place = head.layer * n_heads + head.index
        at_last = ENTITY_TRACKING.position(ENTITY_TRACKING.group(group).position).tail == 1
        if not at_last or not clear[place]:
            assert fill == "var(--paper)"
        else:
            assert ("--helps" in fill) == (means[place].value > 0)
    strongest = max(CIRCUIT.heads("A"), key=lambda head: heads[:, head.layer, head.index].mean())
    page.locator(f'[data-id="A {strongest}"]').hover()
    value = heads[:, strongest.layer, strongest.index].mean()
    expect(page.get_by_text(f"adds directly +{value:.2f}")).to_be_visible()
    page.locator(f'[data-id="A {strongest}"]').click()
    expect(page.locator('[role=switch][aria-checked="false"]')).to_have_count(1)


def test_wrong_input_is_told_with_what_to_do(open_page: Open) -> None:
    page = open_page("&contributions=yes")
    expect(page.get_by_text("“contributions=yes”")).to_be_visible(timeout=START_MS)
    to_logits(page)
    models = page.get_by_role("combobox", name="Models")
    models.fill("no such model")
    models.press("Enter")
    models.press("Escape")
    page.get_by_role("button", name="Run").click()
    expect(page.get_by_text("There is no model “no such model”")).to_be_visible(timeout=START_MS)
