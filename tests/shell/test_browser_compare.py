"""Compare and CMAP in a real browser: run one, see the engine's numbers, click a head."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("playwright")
from playwright.sync_api import expect

from backend.core.statistics import Estimate
from backend.methods.cmap import cmap, group_sets
from backend.methods.compare import compare
from backend.methods.evaluation import Evaluation, examine
from backend.models import catalogue
from backend.models.loaded_models import load
from backend.tasks.circuit import Circuit
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.prompts import Prompts
from tests.dashboard import settled, watched_pages

pytestmark = pytest.mark.browser

START_MS = 60_000
N, BOXES, SEED = 50, 3, 0
LIGHT_INK, DARK_INK = "rgb(27, 31, 42)", "rgb(236, 239, 246)"
"""The text colours of `.streamlit/config.toml`."""
Open = Callable[..., Any]


@pytest.fixture
def open_page(server: str, browser: Any) -> Iterator[Open]:
    with watched_pages(browser) as open_watched:

        def open_ready(title: str, **options: Any) -> Any:
            page = open_watched(f"{server}/?n={N}&boxes={BOXES}&seed={SEED}", **options)
            page.get_by_role("link", name=title, exact=True).click(timeout=START_MS)
            expect(page.get_by_role("button", name="Run")).to_be_visible(timeout=START_MS)
            return page

        yield open_ready


@pytest.fixture(scope="module")
def circuit() -> Circuit:
    return catalogue.circuit("base")


@pytest.fixture(scope="module")
def evaluations() -> list[Evaluation]:
    prompts = Prompts(ENTITY_TRACKING, N, SEED, (BOXES,))
    return [examine(load(name), prompts) for name in catalogue.bundled_models()]


def expect_row(page: Any, name: str, *estimates: Estimate) -> None:
    """The row of the table that begins with this name shows these figures."""
    row = page.get_by_role("row").filter(
        has=page.get_by_role("rowheader", name=re.compile(f"^{re.escape(name)}"))
    )
    for estimate in estimates:
        expect(row).to_contain_text(f"{estimate.value:.3f}".replace("-", "\N{MINUS SIGN}"))


def test_a_comparison_of_all_models(
    open_page: Open, evaluations: list[Evaluation], circuit: Circuit
) -> None:
    page = open_page("Compare")
    page.get_by_role("button", name="Run").click()
    last = catalogue.label(evaluations[-1].loaded.name)
    expect(page.get_by_role("rowheader", name=last)).to_be_visible(timeout=START_MS)
    for row in compare(evaluations, circuit).models:
        expect_row(
            page, catalogue.label(row.name), row.model, row.circuit, row.random.mean,
            row.faithfulness,
        )  # fmt: skip
    expect(page.get_by_test_id("stVegaLiteChart").locator("canvas, svg").nth(1)).to_be_visible()
    expect(page.get_by_text("Do the models differ?")).to_be_attached()
    page.get_by_role("link", name="Circuit", exact=True).click()
    expect(page.get_by_role("switch").first).to_be_visible(timeout=START_MS)
    page.get_by_role("link", name="Compare", exact=True).click()
    expect(page.get_by_role("rowheader", name=last)).to_be_visible()


def test_a_cmap_and_a_pinned_head(
    open_page: Open, evaluations: list[Evaluation], circuit: Circuit
) -> None:
    page = open_page("CMAP")
    base, tuned = evaluations[:2]
    page.get_by_role("button", name="Run").click()
    expected = cmap(tuned, base, group_sets(circuit))
    expect(page.get_by_role("rowheader", name=re.compile("^all"))).to_be_visible(timeout=START_MS)
    for name, outcome in expected.sets.items():
        expect_row(page, name, outcome.accuracy, outcome.change)
    expect(page.get_by_text("At the last token")).to_be_attached(timeout=START_MS)
    expect(page.get_by_role("button", name="Cancel")).to_have_count(0)
    settled(page)
    page.get_by_test_id("stVegaLiteChart").nth(1).click(position={"x": 150, "y": 60})
    expect(page.get_by_role("rowheader", name=re.compile("^your set"))).to_be_visible()
    expect(page.get_by_text(re.compile(r"^L\d\.\d at the previous label"))).to_be_visible()
    page.get_by_role("button", name="Swap").or_(page.get_by_role("button", name="⇄")).click()
    expect(page.get_by_text("other choices than those made now")).to_be_visible()


def test_charts_follow_a_theme_that_changes(open_page: Open) -> None:
    page = open_page("Compare", color_scheme="light")
    page.get_by_role("button", name="Run").click()
    figure = page.get_by_test_id("stVegaLiteChart").first.locator(".role-mark text").first
    expect(figure).to_have_css("fill", LIGHT_INK, timeout=START_MS)
    page.emulate_media(color_scheme="dark")
    expect(figure).to_have_css("fill", DARK_INK)


@pytest.mark.parametrize("title", ["Compare", "CMAP"])
def test_the_navigation_does_not_cover_the_page(open_page: Open, title: str) -> None:
    page = open_page(title)
    link = page.get_by_role("link", name=title, exact=True).bounding_box()
    first = page.get_by_test_id("stWidgetLabel").filter(has_text=re.compile("^(Models|Source)$"))
    # In one step, because the page may be drawn again between two.
    top = first.evaluate("label => label.getBoundingClientRect().top")
    assert top >= link["y"] + link["height"]
