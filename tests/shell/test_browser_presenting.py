"""Presentation mode in a real browser: in by P, a head clicked, out again; large and still."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("playwright")
from playwright.sync_api import expect

from backend.models import catalogue
from backend.studies.session import answers, prepare
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.prompts import Prompts
from backend.tasks.setting import Mode, Reading, Setting, intervention
from tests.dashboard import settled

pytestmark = pytest.mark.browser

START_MS = 60_000
Open = Callable[..., Any]
_BACKWARD = """(circuit) => [...circuit.querySelectorAll("path")]
  .map((path) => path.getAttribute("d") ?? "")
  .filter((d) => {
    const lane = /^M([\\d.]+),[\\d.]+V.*H([\\d.]+)Q/.exec(d);
    return lane && Number(lane[2]) < Number(lane[1]) - 0.1;
  })"""
_NO_SCROLLING = """() => {
  const main = document.querySelector("[data-testid=stMain]");
  return main.scrollHeight <= main.clientHeight && main.scrollWidth <= main.clientWidth;
}"""


def large(page: Any, label: str) -> Any:
    return page.locator(".large .figure").filter(has_text=label).locator(".value")


def expect_presented(page: Any, presented: bool) -> None:
    seen = (
        expect(page.get_by_role("link", name="Compare")),
        expect(page.get_by_text("Circuit explorer")),
    )
    for each in seen:
        (each.not_to_be_visible if presented else each.to_be_visible)()
    expect(page.locator(".answer-figures.large")).to_have_count(int(presented))


def boxes(page: Any) -> Any:
    """Where everything of the right side is that could be moved by another number."""
    parts = ".large .figure, .presented-answers > div, .st-key-presented_steps button"
    return page.evaluate(
        "(parts) => [...document.querySelectorAll(parts)].map((each) => "
        "{ const { x, y, width, height } = each.getBoundingClientRect();"
        " return [x, y, width, height]; })",
        parts,
    )


def test_in_by_p_a_head_clicked_and_out_again(open_page: Open) -> None:
    circuit = catalogue.circuit("base")
    session = prepare(
        Setting("base", Prompts(ENTITY_TRACKING, 200, 0, (7,))), lambda stage, share: None
    )
    page = open_page(viewport={"width": 1280, "height": 720})
    model = page.get_by_role("combobox", name="Model")
    model.click()
    page.keyboard.type("p")
    page.keyboard.press("Escape")
    expect_presented(page, False)
    page.get_by_text("What runs").click()
    page.keyboard.press("p")
    expect_presented(page, True)
    expect(page).to_have_url(re.compile("presenting=1"))
    everything = answers(session, intervention(circuit, Reading.circuit, Mode.mean))
    expect(large(page, "Circuit")).to_have_text(f"{everything.correct.mean():.3f}")
    settled(page)
    before = boxes(page)
    page.get_by_role("button", name=re.compile("^Group A,")).click()
    off = frozenset(member for member in circuit.members if member[0] == "A")
    now = answers(session, intervention(circuit, Reading.circuit, Mode.mean, off))
    expect(large(page, "Circuit")).to_have_text(f"{now.correct.mean():.3f}")
    assert boxes(page) == before
    settled(page)
    assert boxes(page) == before
    page.keyboard.press("Control+z")
    expect(large(page, "Circuit")).to_have_text(f"{everything.correct.mean():.3f}")
    page.mouse.move(300, 5)
    page.keyboard.press("Escape")
    expect_presented(page, False)
    page.get_by_role("button", name="Present").click()
    expect_presented(page, True)
    page.mouse.move(500, 5)
    page.get_by_role("button", name="Leave").click()
    expect_presented(page, False)
    expect(page).not_to_have_url(re.compile("presenting"))


@pytest.mark.parametrize("size", [(1280, 720), (1920, 1080)], ids=str)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_large_and_fits_the_screen(
    open_page: Open, size: tuple[int, int], scheme: str
) -> None:
    width, height = size
    page = open_page(
        "?presenting=1", color_scheme=scheme, viewport={"width": width, "height": height}
    )
    expect(page.get_by_role("switch").first).to_be_visible()
    page.wait_for_function(_NO_SCROLLING)
    for element in (
        page.locator(".presented-answers > div").last,
        page.get_by_role("button", name="Next flip"),
    ):
        box = element.bounding_box()
        assert box["x"] + box["width"] <= width
        assert box["y"] + box["height"] <= height
    unit = height / 720
    for words in (".large .below", ".presented-answers span", ".prompt"):
        size_of = page.locator(words).first.evaluate(
            "(each) => parseFloat(getComputedStyle(each).fontSize)"
        )
        assert size_of >= 19.9 * unit
    scale = page.locator(".circuit").evaluate(
        "(each) => each.getBoundingClientRect().width / each.offsetWidth"
    )
    assert 14 * scale >= 20 * unit
    backward = page.locator(".circuit").evaluate(_BACKWARD)
    assert backward == []
