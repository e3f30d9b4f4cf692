"""Own tasks and prompts in a real browser: files that are wrong, mended, and asked."""

from __future__ import annotations

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
from tests.dashboard import figure, upload, watched_pages
from tests.own import FRUIT
from tests.tasks.test_own_prompt_sets import as_rows, jsonl

pytestmark = pytest.mark.browser

START_MS = 60_000
ADD = "Add a task or prompts"


@pytest.fixture
def open_page(server: str, browser: Any) -> Iterator[Any]:
    with watched_pages(browser) as opened:
        yield lambda path: opened(f"{server}/{path}")


def test_a_wrong_task_file_names_its_field_and_a_mended_one_is_chosen(
    open_page: Any, tmp_path: Path
) -> None:
    page, file, mended = open_page("?n=50"), tmp_path / "fruit.toml", tmp_path / "mended.toml"
    page.get_by_role("button", name=ADD).click(timeout=START_MS)
    page.get_by_role("tab", name="A task").click()
    file.write_text(FRUIT.replace('key = "FR"', 'key = "*fr*"'))
    upload(page, "A task as TOML", file)
    told = page.get_by_text("The field “groups[2].key” holds “*fr*”")
    expect(told).to_be_visible(timeout=START_MS)
    mended.write_text(FRUIT)
    upload(page, "A task as TOML", mended)
    expect(page).to_have_url(re.compile("task=fruit"), timeout=START_MS)
    expect(told).not_to_be_visible()
    box = page.get_by_role("combobox", name="Task")
    page.keyboard.press("Escape")
    box.click()
    for title in ("Entity tracking", "Capital of a country", "Greater than", "Fruit"):
        expect(page.get_by_role("option", name=title, exact=True)).to_be_visible()


def test_a_set_with_three_bad_rows_is_uploaded_and_its_good_ones_are_asked(
    open_page: Any, tmp_path: Path, local: Path, model: str
) -> None:
    tokenizer = planted_ioi.tokenizer()
    prompts = IOI.sample(tokenizer, 12)
    rows = as_rows(prompts, IOI.counterfactual(tokenizer, prompts), tokenizer)
    file = tmp_path / "rows.jsonl"
    file.write_bytes(jsonl(*rows, {"clean": 1}, rows[0] | {"size": 1}, rows[0] | {"answer": 3}))
    (local / "circuits").mkdir(parents=True, exist_ok=True)
    circuit = Circuit.of(IOI, planted_ioi.CIRCUIT)
    (local / "circuits" / "planted.json").write_text(circuit.to_json())
    page = open_page(f"?{urlencode({'task': 'ioi', 'model': model, 'n': 50})}")
    page.get_by_role("button", name=ADD).click(timeout=START_MS)
    page.get_by_label("Name of the prompts").fill("mine")
    upload(page, "Or a file of them", file)
    expect(page.get_by_text("rows.jsonl")).to_be_visible(timeout=START_MS)
    page.get_by_role("button", name="Add prompts").click()
    expect(page.get_by_text("3 of its rows are left out")).to_be_visible(timeout=START_MS)
    for number, reason in (
        ("13", "its “clean” is no line of text"),
        ("14", "it has an unknown field “size”"),
        ("15", "its “answer” is no line of text"),
    ):
        told = page.get_by_role("listitem").filter(has_text=f"Row {number}: {reason}")
        expect(told).to_be_visible()
    page.keyboard.press("Escape")
    expect(figure(page, "Whole model")).to_contain_text("1.000", timeout=START_MS)
    expect(page.get_by_text("“mine” has 12 prompts for it")).to_be_visible()
