"""Another task in a real browser: from no circuit for it to heads that are clicked, and back."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

pytest.importorskip("playwright")
from playwright.sync_api import expect

from backend.tasks.circuit import Circuit
from backend.tasks.ioi import IOI
from tests import planted_ioi
from tests.dashboard import choose, settled, watched_pages

pytestmark = pytest.mark.browser

START_MS = 60_000


@pytest.fixture(scope="module")
def worse(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same without one of its name movers."""
    folder = tmp_path_factory.mktemp("worse")
    broken = planted_ioi.model().requires_grad_(False)
    for head in planted_ioi.CIRCUIT["NM"]:
        broken.model.layers[head.layer].self_attn.o_proj.weight.zero_()
    broken.save_pretrained(folder)
    planted_ioi.tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture
def page(server: str, browser: Any) -> Iterator[Any]:
    with watched_pages(browser) as open_page:
        yield open_page(f"{server}/?n=50")


def type_model(page: Any, name: str) -> None:
    box = page.get_by_role("combobox", name="Model")
    box.fill(name)
    box.press("Enter")


def head(page: Any, name: str) -> Any:
    return page.locator(f'[data-id="{name}"]')


def test_find_a_circuit_for_indirect_objects_and_click_it(
    page: Any, model: str, local: Path
) -> None:
    expect(page.locator(".spoken")).to_be_attached(timeout=START_MS)
    choose(page, "Task", "Indirect object identification", START_MS)
    expect(page.get_by_text("There is no circuit for indirect object")).to_be_visible()
    expect(page.get_by_text("It knows only the words of entity tracking")).to_be_visible()
    type_model(page, model)
    page.get_by_role("button", name="Find a circuit").click()
    page.get_by_role("button", name="Run all four stages").click()
    done = page.get_by_role("button", name="All four stages are done")
    expect(done).to_be_visible(timeout=START_MS)
    expect(page.get_by_text("the keys of IN, at the token after S1: ")).to_be_visible()

    page.get_by_role("textbox", name="Name").fill("found-by-test")
    page.get_by_role("textbox", name="Name").press("Enter")
    page.get_by_role("button", name="Open in the Circuit page").click()
    expect(page.locator(".spoken")).to_have_text(re.compile("accuracy 1.000"), timeout=START_MS)
    settled(page, START_MS)
    saved = json.loads((local / "circuits" / "found-by-test.json").read_text())
    assert saved["task"] == "ioi"
    for key, heads in planted_ioi.CIRCUIT.items():
        assert {*map(tuple, saved["groups"][key])} >= {*heads}
        for each in heads:
            expect(head(page, f"{key} {each}")).to_be_visible()
    expect(page.get_by_text("read as key (k)")).to_be_visible()
    expect(page.get_by_text(re.compile("^S1 \\+ 1 “"))).to_be_visible()

    head(page, "SI L3.1").click()
    expect(page.locator(".spoken")).to_have_text(re.compile("accuracy 0"))
    settled(page, START_MS)
    page.get_by_text("All heads", exact=True).click()
    negative = head(page, f"NM {planted_ioi.NEGATIVE}")
    expect(negative).to_have_class(re.compile("outside hinders"))
    expect(page.get_by_text("positive score: hinders the answer")).to_be_visible()
    negative.hover()
    expect(page.get_by_text(re.compile(r"^score \+0\.\d+: hinders the answer"))).to_be_visible()

    type_model(page, "base")
    choose(page, "Task", "Entity tracking", START_MS)
    expect(page.get_by_role("combobox", name="Circuit")).to_have_value("base")
    expect(head(page, "NM L4.0")).to_have_count(0, timeout=START_MS)
    expect(page.get_by_text("query “")).to_be_visible(timeout=START_MS)
    choose(page, "Task", "Indirect object identification", START_MS)
    expect(page.get_by_role("combobox", name="Circuit")).to_have_value("found-by-test")
    expect(page.get_by_text("of the 127 names as one token each")).to_be_visible(timeout=START_MS)


def test_every_other_page_has_the_task(
    server: str, browser: Any, model: str, worse: str, local: Path
) -> None:
    (local / "circuits").mkdir(exist_ok=True)
    circuit = Circuit.of(IOI, planted_ioi.CIRCUIT, "planted")
    (local / "circuits" / "planted.json").write_text(circuit.to_json())
    asked = {"task": "ioi", "circuit": "planted", "n": "50"}
    with watched_pages(browser) as open_page:
        page = open_page(f"{server}/?{urlencode({**asked, 'model': model})}")
        page.get_by_role("link", name="Compare", exact=True).click(timeout=START_MS)
        page.get_by_role("button", name="Run").click(timeout=START_MS)
        expect(page.get_by_text("Which group is needed?")).to_be_visible(timeout=START_MS)
        expect(page.get_by_text("1 PT, 2 IN, 1 SI, 2 NM").first).to_be_visible()

        pair = {**asked, "model": worse, "source": model}
        page = open_page(f"{server}/?{urlencode(pair)}")
        page.get_by_role("link", name="CMAP", exact=True).click(timeout=START_MS)
        page.get_by_role("button", name="Run").click(timeout=START_MS)
        expect(page.get_by_text("At the token after S1")).to_be_visible(timeout=START_MS)
        expect(page.get_by_role("button", name="NM", exact=True)).to_be_visible()

        page.get_by_role("link", name="Results", exact=True).click()
        expect(page.get_by_text(re.compile("^[0-9]+ results, "))).to_be_visible(timeout=START_MS)
        page.get_by_role("link", name="Models", exact=True).click()
        expect(page.get_by_text("It knows only the words").first).to_be_hidden()
        page.get_by_role("link", name="Paper", exact=True).click()
        expect(page.get_by_text("The paper’s results")).to_be_visible(timeout=START_MS)
        expect(page.get_by_text("Value Fetcher").first).to_be_visible()
