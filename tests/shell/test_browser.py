"""The dashboard in a real browser: clicks, and the numbers that the engine computes for them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("playwright")
from playwright.sync_api import expect

from backend.models import catalogue
from backend.studies.session import Session, answers, prepare
from backend.tasks.circuit import Circuit
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.prompts import Prompts
from backend.tasks.setting import Mode, Reading, Setting, intervention
from shell.frame.history import NodeKey
from tests.dashboard import ROOT, figure, serving, upload, watched_pages

pytestmark = pytest.mark.browser

START_MS = 60_000
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def session() -> Session:
    return prepare(
        Setting("base", Prompts(ENTITY_TRACKING, 200, 0, (7,))), lambda stage, share: None
    )


@pytest.fixture(scope="module")
def circuit() -> Circuit:
    return catalogue.circuit("base")


def head(page: Any, member: NodeKey) -> Any:
    group, name = member
    return page.get_by_role(
        "switch", name=re.compile(f"^{name}, {ENTITY_TRACKING.group(group).name}, ")
    )


def expect_figure(page: Any, label: str, value: float) -> None:
    expect(figure(page, label).locator(".value")).to_have_text(f"{value:.3f}")


def expect_numbers(
    page: Any,
    session: Session,
    circuit: Circuit,
    off: set[NodeKey],
    reading: Reading = Reading.circuit,
    mode: Mode = Mode.mean,
) -> None:
    """The page settles on what the engine computes for this set of heads."""
    now = answers(session, intervention(circuit, reading, mode, frozenset(off)))
    part = {Reading.circuit: "Circuit", Reading.model: "Model minus heads"}[reading]
    expect_figure(page, part, now.correct.mean())
    expect_figure(page, "P(right answer)", now.probability.mean())
    expect_figure(page, "Whole model", session.whole.correct.mean())


def expect_off(page: Any, off: set[NodeKey]) -> None:
    expect(page.locator('[role=switch][aria-checked="false"]')).to_have_count(len(off))


def test_clicks_show_what_the_engine_computes(
    open_page: Open, session: Session, circuit: Circuit
) -> None:
    page = open_page()
    expect_numbers(page, session, circuit, set())
    off: set[NodeKey] = set()
    for member in circuit.members[:: max(1, len(circuit.members) // 4)]:
        head(page, member).click()
        off.add(member)
        expect_numbers(page, session, circuit, off)
        expect_off(page, off)
    head(page, circuit.members[0]).click()
    expect_numbers(page, session, circuit, off - {circuit.members[0]})


def test_ten_fast_clicks_all_count(open_page: Open, session: Session, circuit: Circuit) -> None:
    page = open_page()
    chosen = circuit.members[:10]
    for member in chosen:
        head(page, member).click(no_wait_after=True)
    expect(page.locator(".spoken")).to_have_attribute("data-click", "0.10")
    expect_numbers(page, session, circuit, set(chosen))
    expect_off(page, set(chosen))


def test_keyboard_and_group_switch(open_page: Open, session: Session, circuit: Circuit) -> None:
    page = open_page()
    head(page, circuit.members[0]).focus()
    page.keyboard.press("Space")
    expect_numbers(page, session, circuit, {circuit.members[0]})
    expect(page.get_by_role("button", name="Undo")).to_be_enabled()
    page.keyboard.press("Control+z")
    expect_numbers(page, session, circuit, set())
    page.get_by_role("button", name=re.compile("^Group B,")).click()
    off = {member for member in circuit.members if member[0] == "B"}
    expect_numbers(page, session, circuit, off)
    expect_off(page, off)


def test_buttons(open_page: Open, session: Session, circuit: Circuit) -> None:
    page = open_page()
    everything = set(circuit.members)
    first = circuit.members[0]
    head(page, first).click()
    expect_numbers(page, session, circuit, {first})
    for button, off in (
        ("Invert", everything - {first}),
        ("Undo", {first}),
        ("Redo", everything - {first}),
        ("All on", set()),
        ("All off", everything),
        (f"Only {first[1]}", everything - {first}),
        ("Reset", set()),
    ):
        page.get_by_role("button", name=button).first.click()
        expect_off(page, off)
        expect_numbers(page, session, circuit, off)


def test_both_readings_and_both_modes(open_page: Open, session: Session, circuit: Circuit) -> None:
    page = open_page()
    off = {member for member in circuit.members if member[0] == "C"}
    page.get_by_role("button", name=re.compile("^Group C,")).click()
    expect_numbers(page, session, circuit, off, Reading.circuit)
    page.get_by_role("radio", name="Whole model minus heads").click()
    expect_numbers(page, session, circuit, off, Reading.model)
    page.get_by_role("radio", name="Counterfactual").click()
    expect_numbers(page, session, circuit, off, Reading.model, Mode.counterfactual)
    page.get_by_role("radio", name="Circuit only").click()
    expect_numbers(page, session, circuit, off, Reading.circuit, Mode.counterfactual)


def test_the_address_brings_everything_back(
    open_page: Open, session: Session, circuit: Circuit
) -> None:
    page = open_page()
    member = circuit.members[-1]
    head(page, member).click()
    page.get_by_role("radio", name="Whole model minus heads").click()
    page.get_by_role("button", name="▶").click()
    expect(page.get_by_text("Example 2 of 200")).to_be_visible()
    expect(page).to_have_url(re.compile(r"example=1"))
    expect(page).to_have_url(re.compile(r"off=.*reading=model|reading=model.*off="))
    again = open_page("?" + page.url.split("?")[1])
    expect(again.get_by_text("Example 2 of 200")).to_be_visible()
    expect_numbers(again, session, circuit, {member}, Reading.model)
    expect_off(again, {member})


def test_a_click_on_a_page_that_just_appeared_keeps_the_address(browser: Any) -> None:
    # Streamlit's own list of the files in pages/ came first once, and led there without the query.
    with serving(ROOT / "app.py") as address, watched_pages(browser) as open_watched:
        page = open_watched(f"{address}/?n=50&boxes=3")
        page.get_by_role("link", name="Compare").click(timeout=START_MS)
        expect(page).to_have_url(re.compile(r"/compare\?n=50&boxes=3$"), timeout=START_MS)


def test_a_deep_link_can_be_the_servers_first_request(
    browser: Any, session: Session, circuit: Circuit
) -> None:
    member = circuit.members[0]
    link = f"/?off={member[0]}{str(member[1])[1:]}&mode=counterfactual"
    with (
        serving(ROOT / "app.py", is_forked=True) as address,
        watched_pages(browser) as open_watched,
    ):
        page = open_watched(address + link)
        expect(page.locator(".spoken")).to_be_attached(timeout=START_MS)
        expect(page.get_by_text("Circuit explorer").first).to_be_visible()
        expect_numbers(page, session, circuit, {member}, mode=Mode.counterfactual)


def test_another_model_keeps_the_heads(open_page: Open, circuit: Circuit) -> None:
    other = catalogue.bundled_models()[1]
    its_bench = prepare(
        Setting(other, Prompts(ENTITY_TRACKING, 200, 0, (7,))), lambda stage, share: None
    )
    page = open_page()
    head(page, circuit.members[0]).click()
    page.get_by_role("combobox", name="Model").click()
    page.get_by_role("option", name=catalogue.label(other)).click()
    expect_figure(page, "Whole model", its_bench.whole.correct.mean())
    expect_numbers(page, its_bench, circuit, {circuit.members[0]})


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1440, 900), (1920, 1080)], ids=str)
def test_graph_and_numbers_share_the_screen(
    open_page: Open, scheme: str, size: tuple[int, int]
) -> None:
    width, height = size
    page = open_page(color_scheme=scheme, viewport={"width": width, "height": height})
    for element in (
        page.get_by_role("switch").first,
        page.locator(".figure").last,
        page.get_by_role("button", name=re.compile("^Next flip")),
        page.get_by_role("button", name="Reset"),
    ):
        box = element.bounding_box()
        assert box["x"] + box["width"] <= width
        assert box["y"] + box["height"] <= height


def test_a_bad_address_gets_a_message_and_a_working_page(open_page: Open) -> None:
    page = open_page("?off=banana&boxes=0&n=-3&mode=%00&unknown=%F0%9F%92%A9")
    expect(page.get_by_role("alert")).to_contain_text("could not be used")
    expect(page.get_by_role("switch").first).to_be_visible()


def test_an_uploaded_circuit_is_checked(open_page: Open) -> None:
    page = open_page()
    page.get_by_text("Add a circuit").click()
    bad = {"name": "bad.json", "mimeType": "application/json", "buffer": b'{"groups": {"A": [3]}}'}
    upload(page, "A circuit saved as JSON", bad)
    expect(page.get_by_role("alert")).to_contain_text("groups.A")
