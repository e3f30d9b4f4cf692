"""Pictures and tables out of a real browser: what is downloaded is what is on screen."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import networkx as nx
import pandas as pd
import pytest

pytest.importorskip("playwright")
from playwright.sync_api import expect

from backend import published
from tests.dashboard import watched_pages

pytestmark = pytest.mark.browser

START_MS = 60_000
_SVG = "{http://www.w3.org/2000/svg}"
Open = Callable[..., Any]


@pytest.fixture
def open_page(server: str, browser: Any) -> Iterator[Open]:
    with watched_pages(browser) as open_watched:
        yield lambda query, **options: open_watched(f"{server}/?{query}", **options)


def downloaded(page: Any, label: str) -> tuple[str, bytes]:
    with page.expect_download() as download:
        page.get_by_role("button", name=label, exact=True).click()
    return download.value.suggested_filename, Path(download.value.path()).read_bytes()


def test_the_circuit_is_taken_home_as_it_stands(open_page: Open) -> None:
    page = open_page("n=50&boxes=3&off=D0.0", color_scheme="dark")
    head = page.locator('.canvas [data-id="A L4.2"]')
    head.click(timeout=START_MS)
    expect(head).to_have_attribute("aria-checked", "false")
    expect(page.get_by_role("button", name="SVG", exact=True)).to_have_count(0)
    page.get_by_role("button", name="Take home").first.click()
    name, content = downloaded(page, "SVG")
    assert name == "circuit_base-2-switched_base_entity-tracking_boxes3_n50_seed0.svg"
    root = ElementTree.fromstring(content)
    groups = [g.attrib for g in root.iter(f"{_SVG}g") if "data-head" in g.attrib]
    off = {look["data-head"] for look in groups if look["data-switch"] == "off"}
    assert off == {"D L0.0", "A L4.2"}
    shown = page.locator(".canvas [data-id]").evaluate_all("all => all.map((g) => g.dataset.id)")
    assert {look["data-head"] for look in groups} == {*shown}
    assert next(root.iter(f"{_SVG}rect")).attrib["fill"] == "#12151c"
    assert downloaded(page, "PNG")[1].startswith(b"\x89PNG")
    assert downloaded(page, "PDF")[1].startswith(b"%PDF-")
    graph = nx.read_graphml(io.BytesIO(downloaded(page, "GraphML")[1]))
    assert {*graph} == {*shown, "logits"}
    attribution = json.loads(downloaded(page, "Attribution graph")[1])
    assert len(attribution["nodes"]) == len(shown) + 1
    assert b"arXiv:2402.14811" in downloaded(page, "BibTeX")[1]


def test_a_table_is_taken_home_and_read_back(open_page: Open) -> None:
    page = open_page("n=50&boxes=3")
    page.get_by_role("link", name="Paper", exact=True).click(timeout=START_MS)
    page.get_by_role("tab", name="Faithfulness").click(timeout=START_MS)
    control = page.locator(".st-key-home_published-table").get_by_role("button", name="Take home")
    control.click(timeout=START_MS)
    name, content = downloaded(page, "CSV")
    assert name == "paper_published-table.csv"
    frame = pd.read_csv(io.BytesIO(content))
    rows = published.faithfulness()
    assert frame["Random"].tolist() == [row.random for row in rows.values()]


def test_the_file_that_stays_clickable_is_measured_and_taken_home(
    open_page: Open, browser: Any, tmp_path: Path
) -> None:
    page = open_page("n=50&boxes=2")
    page.get_by_role("button", name="Take home").first.click(timeout=START_MS)
    page.get_by_role("button", name="Measure for it").click()
    expect(page.get_by_role("button", name="HTML", exact=True)).to_be_visible(timeout=4 * START_MS)
    name, content = downloaded(page, "HTML")
    assert name == "circuit_base-clickable_base_entity-tracking_boxes2_n50_seed0.html"
    path = tmp_path / name
    path.write_bytes(content)
    shown = page.locator(".figure .value").all_inner_texts()
    file = browser.new_context(offline=True).new_page()
    file.goto(path.as_uri())
    assert file.locator(".card b").all_inner_texts() == shown
    file.context.close()
