"""Jobs in a real browser: two sessions at once, clicks while one runs, cancelling, and failing."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright")
from playwright.sync_api import expect

from backend.methods.cmap import cmap, group_sets
from backend.methods.compare import compare
from backend.methods.evaluation import examine
from backend.models import catalogue
from backend.models.loaded_models import load
from backend.studies.session import prepare
from backend.tasks.circuit import Circuit
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.prompts import Prompts
from backend.tasks.setting import Setting
from shell.frame.history import NodeKey
from tests.dashboard import choose, watched_pages
from tests.shell.test_browser import expect_numbers, head
from tests.shell.test_browser_compare import expect_row
from tests.studies.test_resume import started

pytestmark = pytest.mark.browser

START_MS = 60_000
LONG_MS = 240_000
Open = Callable[..., Any]


@pytest.fixture
def open_page(server: str, browser: Any) -> Iterator[Open]:
    with watched_pages(browser) as open_watched:

        def open_ready(title: str, query: str) -> Any:
            page = open_watched(f"{server}/?{query}")
            expect(page.locator(".spoken")).to_be_attached(timeout=START_MS)
            go_to(page, title)
            return page

        yield open_ready


@pytest.fixture(scope="module")
def circuit() -> Circuit:
    return catalogue.circuit("base")


def go_to(page: Any, title: str) -> None:
    page.get_by_role("link", name=title, exact=True).click()
    expect(page.get_by_role("link", name=title, exact=True)).to_have_attribute(
        "aria-current", "page"
    )


def ask_for_500_prompts(page: Any) -> None:
    choose(page, "Prompts", "500")
    expect(page.get_by_text("500 prompts, seed").first).to_be_visible()


def run(page: Any) -> None:
    page.get_by_role("button", name="Run", exact=True).click(timeout=START_MS)


def jobs_button(page: Any) -> Any:
    return page.get_by_role("button", name=re.compile("^Jobs"))


def open_list(page: Any) -> Any:
    jobs_button(page).click()
    jobs = page.get_by_test_id("stPopoverBody")
    expect(jobs).to_be_visible()
    return jobs


def listed(jobs: Any, title: str | re.Pattern[str]) -> Any:
    return jobs.locator("[class*=st-key-job_]").filter(has_text=title)


def test_two_sessions_at_once_show_their_own_numbers_and_clicks_do_not_wait(
    open_page: Open, circuit: Circuit
) -> None:
    second = open_page("Circuit", "n=50&boxes=3&seed=1")
    first = open_page("Compare", "n=50&boxes=5&seed=2")
    ask_for_500_prompts(first)
    run(first)
    expect(jobs_button(first)).to_have_text(re.compile("1 active"))
    go_to(second, "CMAP")
    run(second)
    expect(jobs_button(second)).to_have_text(re.compile("1 active, 1 queued"))
    expect(second.get_by_text("Waiting for 1 job before it")).to_be_visible()

    go_to(second, "Circuit")
    session = prepare(
        Setting("base", Prompts(ENTITY_TRACKING, 50, 1, (3,))), lambda stage, share: None
    )
    off: set[NodeKey] = set()
    for member in circuit.members[::10]:
        head(second, member).click()
        off.add(member)
        expect_numbers(second, session, circuit, off)
    expect(jobs_button(second)).to_have_text(re.compile("1 active, 1 queued"))

    models = catalogue.bundled_models()
    last = first.get_by_role("rowheader", name=catalogue.label(models[-1]))
    expect(last).to_be_visible(timeout=LONG_MS)
    many = Prompts(ENTITY_TRACKING, 500, 2, (5,))
    for row in compare([examine(load(name), many) for name in models], circuit, 2).models:
        name = catalogue.label(row.name)
        expect_row(first, name, row.model, row.circuit, row.random.mean, row.faithfulness)
    go_to(second, "CMAP")
    few = Prompts(ENTITY_TRACKING, 50, 1, (3,))
    expected = cmap(*(examine(load(models[i]), few) for i in (1, 0)), group_sets(circuit))
    expect(second.get_by_role("rowheader", name=re.compile("^all"))).to_be_visible(timeout=LONG_MS)
    for name, outcome in expected.sets.items():
        expect_row(second, name, outcome.accuracy, outcome.change)


def test_queued_and_running_jobs_can_be_cancelled(open_page: Open) -> None:
    page = open_page("Compare", "n=50&boxes=6")
    ask_for_500_prompts(page)
    run(page)
    go_to(page, "CMAP")
    run(page)
    jobs = open_list(page)
    queued, running = (
        listed(jobs, re.compile(f"{name}.*6 boxes", re.DOTALL)) for name in ("CMAP", "Compare")
    )
    expect(queued).to_contain_text("Waiting for 1 job before it")
    expect(running.get_by_role("progressbar")).to_be_visible()
    queued.get_by_role("button", name="Cancel").click()
    expect(queued).to_contain_text("Cancelled")
    running.get_by_role("button", name="Cancel").click()
    expect(running).to_contain_text("Cancelled", timeout=START_MS)
    expect(jobs.get_by_role("button", name="Cancel")).to_have_count(0)
    expect(jobs_button(page)).not_to_have_text(re.compile("active|queued"))


def test_a_command_and_the_dashboard_take_turns(open_page: Open, local: Path) -> None:
    page = open_page("Compare", "n=50&boxes=4&seed=8")
    command = started(local, "minimality", "chat", "--prompts", "500")
    try:
        next(line for line in command.stderr if "Measuring Chat" in line)
        run(page)
        expect(page.get_by_text(f"Waiting for process {command.pid} on")).to_be_visible()
        jobs = open_list(page)
        theirs = jobs.locator("[class*=st-key-elsewhere_]")
        expect(theirs).to_contain_text("Minimality, 30% of a group removed: Chat")
        expect(theirs.get_by_role("progressbar")).to_be_visible()
        theirs.get_by_role("button", name="Cancel").click()
        assert command.wait(START_MS / 1000) == 130
        expect(theirs).to_have_count(0)
        ours = listed(jobs, "50 prompts, seed 8, 4 boxes")
        expect(ours).to_contain_text("Finished in", timeout=LONG_MS)
    finally:
        command.kill()


def test_a_job_outlives_its_tab_and_another_opens_its_result(
    open_page: Open, circuit: Circuit
) -> None:
    models = catalogue.bundled_models()
    page = open_page("CMAP", "n=50&boxes=4&seed=5")
    run(page)
    expect(jobs_button(page)).to_have_text(re.compile("1 active"))
    page.close()
    other = open_page("Paper", "n=50&boxes=3")
    jobs = open_list(other)
    job = listed(jobs, "50 prompts, seed 5, 4 boxes")
    expect(job).to_contain_text("Finished in", timeout=START_MS)
    job.get_by_role("button", name="Open").click()
    expect(other.get_by_role("rowheader", name=re.compile("^all"))).to_be_visible()
    expect(jobs).to_have_count(0)
    expect(other.get_by_text("other choices than those made now")).to_have_count(0)
    expect(other.get_by_role("spinbutton", name="Seed")).to_have_value("5")
    prompts = Prompts(ENTITY_TRACKING, 50, 5, (4,))
    expected = cmap(*(examine(load(models[i]), prompts) for i in (1, 0)), group_sets(circuit))
    for name, outcome in expected.sets.items():
        expect_row(other, name, outcome.accuracy, outcome.change)


def test_a_job_that_fails_says_why_and_the_next_one_runs(open_page: Open, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(catalogue.BUNDLED / "base", damaged)
    (damaged / "model.safetensors").write_bytes(b"\x08" + bytes(20))
    page = open_page("Compare", "n=50&boxes=3&seed=9")
    models = page.get_by_role("combobox", name="Models")
    models.fill(str(damaged))
    page.get_by_role("option").filter(has_text=str(damaged)).click()
    models.press("Escape")
    run(page)
    go_to(page, "CMAP")
    run(page)
    expect(page.get_by_role("rowheader", name=re.compile("^all"))).to_be_visible(timeout=LONG_MS)
    # When a job ends its page is drawn anew, which closes the list.
    expect(page.get_by_role("button", name="Cancel")).to_have_count(0, timeout=LONG_MS)
    job = listed(open_list(page), "damaged")
    expect(job).to_contain_text(re.compile(r"Failed\..*cannot be read"), timeout=START_MS)
    job.get_by_role("button", name="Open").click()
    expect(page.get_by_role("alert")).to_contain_text("cannot be read")
    expect(page.get_by_role("rowheader", name="Base")).to_be_visible()
    go_to(page, "Circuit")
    expect(page.get_by_role("switch").first).to_be_visible(timeout=START_MS)
