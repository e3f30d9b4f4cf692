"""The file that stays clickable, opened from disk in a real browser without a network."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from backend.core.errors import UserError
from backend.methods.evaluation import examine
from backend.methods.knockouts import Knockouts, KnockoutsRequest, knockouts, removals
from backend.models import catalogue
from backend.models.loaded_models import load
from backend.studies.store import Header
from backend.tasks.circuit import Circuit
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.prompts import Prompts
from backend.tasks.setting import Mode, Reading, Setting, intervention
from takehome import clickable as of_files
from takehome.clickable import MOST_BYTES, clickable

WHOLE = catalogue.circuit("base")
CIRCUIT = replace(WHOLE.keep(WHOLE.members[::2]), name="half")
PROMPTS = Prompts(ENTITY_TRACKING, 50, 0, (3,))
REQUEST = KnockoutsRequest("base", CIRCUIT, PROMPTS)
HEADER = Header("key", 3, "knockouts", (), {}, 1, "2026-11-27T14:05:00+00:00", 1.0, {"torch": "2"})
HOSTILE = "</script><script>document.title='taken'</script><img src=x onerror=alert(1)>& $title"


@pytest.fixture(scope="module")
def found() -> Knockouts:
    return knockouts(examine(load("base"), PROMPTS), CIRCUIT)


@pytest.fixture
def open_file(browser: Any, tmp_path: Path) -> Iterator[Any]:
    complaints: list[str] = []
    numbers, contexts = count(), []

    def opened(text: str, **options: Any) -> Any:
        path = tmp_path / f"{next(numbers)}.html"
        path.write_text(text, encoding="utf-8")
        context = browser.new_context(offline=True, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda r: complaints.extend([r.url] if r.url != path.as_uri() else []))
        page.goto(path.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not complaints


def shown(page: Any) -> dict[str, str]:
    """The large numbers by their labels."""
    read = "all => all.map((one) => [...one.children].slice(0, 2).map((each) => each.textContent))"
    return dict(page.locator(".card").evaluate_all(read))


def numbers_of(found: Knockouts, off: frozenset[Any]) -> dict[str, str]:
    state = found.states[removals(CIRCUIT).index(off)]
    return {
        "Whole model": f"{found.whole_accuracy.value:.3f}",
        "Circuit": f"{state.accuracy.value:.3f}",
        "Faithfulness": f"{state.faithfulness.value:.3f}",
        "P(right answer)": f"{state.probability.value:.3f}",
    }


@pytest.mark.browser
def test_clicks_give_the_engines_numbers(open_file: Any, found: Knockouts) -> None:
    from backend.studies.session import answers, prepare

    page = open_file(clickable(REQUEST, found, HEADER))
    session = prepare(Setting("base", PROMPTS), lambda *_: None)
    first, second = CIRCUIT.members[0], CIRCUIT.members[-1]
    for off in ((), (first,), (first, second)):
        if off:
            page.locator(f'[data-id="{off[-1][0]} {off[-1][1]}"]').click()
        read = shown(page)
        assert read == numbers_of(found, frozenset(off))
        asked = intervention(CIRCUIT, Reading.circuit, Mode.mean, frozenset(off))
        of_session = answers(session, asked)
        assert read["Circuit"] == f"{of_session.correct.mean():.3f}"
        assert read["P(right answer)"] == f"{of_session.probability.mean():.3f}"
        answer = session.loaded.tokenizer.decode([int(of_session.top_ids[0, 0])]).strip()
        assert page.locator("#prompts .prompt:not([hidden]) .marked").last.inner_text() == answer
    page.get_by_role("button", name="All on").click()
    assert shown(page) == numbers_of(found, frozenset())
    page.get_by_role("button", name=re.compile("^Group A")).click()
    group = frozenset(node for node in CIRCUIT.members if node[0] == "A")
    assert shown(page) == numbers_of(found, group)
    assert page.locator("#missing").is_hidden()


@pytest.mark.browser
def test_what_is_not_in_the_file_is_said(open_file: Any, found: Knockouts) -> None:
    page = open_file(clickable(REQUEST, found, HEADER), color_scheme="dark")
    for key, head in (CIRCUIT.members[0], CIRCUIT.members[5], CIRCUIT.members[-1]):
        page.locator(f'[data-id="{key} {head}"]').click()
    assert page.locator("#missing").is_visible()
    assert shown(page)["Circuit"] == "–"
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_role("button", name="Dark or light").click()
    assert before == "rgb(18, 21, 28)"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.get_by_role("button", name="Next prompt").click()
    assert page.locator("#place").inner_text() == "Example 2 of 4"


@pytest.mark.browser
def test_words_of_others_stay_words(
    open_file: Any, found: Knockouts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_files.catalogue, "label", lambda _: HOSTILE)
    first, *others = found.examples
    example = replace(first, words=(HOSTILE, *first.words[1:]), tokens=(HOSTILE, *first.tokens[1:]))
    circuit = replace(CIRCUIT, name=HOSTILE)
    request = replace(REQUEST, circuit=circuit)
    page = open_file(clickable(request, replace(found, examples=(example, *others)), HEADER))
    assert page.title() == f"Circuit “{HOSTILE}” of {HOSTILE}"
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 2
    assert HOSTILE in page.locator("#prompts").inner_text()


def test_it_is_one_small_file_that_asks_for_nothing(found: Knockouts) -> None:
    text = clickable(REQUEST, found, HEADER)
    assert len(text.encode()) < MOST_BYTES
    addresses = {*re.findall(r"https?://[^\s\"'<>]+", text)}
    assert addresses == {"http://www.w3.org/2000/svg"}  # a name, which nothing is fetched by
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert policy
    assert policy[1].startswith("default-src 'none'; ")
    assert "'unsafe-eval'" not in text
    assert "script-src 'sha256-" in policy[1]
    data = re.search(r'id="data">(.*?)</script>', text, re.DOTALL)
    assert data
    assert len(json.loads(data[1])["states"]) == len(removals(CIRCUIT))


def test_one_that_would_be_too_large_is_refused(
    found: Knockouts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_files, "MOST_BYTES", 10_000)
    with pytest.raises(UserError, match="Choose a smaller circuit"):
        clickable(REQUEST, found, HEADER)


def test_it_says_what_was_measured_and_how_to_cite_it(found: Knockouts) -> None:
    circuit = Circuit(CIRCUIT.task, CIRCUIT.nodes, "50 % & {more}")
    text = clickable(replace(REQUEST, circuit=circuit), found, HEADER)
    for words in ("50 prompts, seed 0, 3 boxes", "arXiv:2402.14811", "2026-11-27 14:05 UTC"):
        assert words in text
    assert r"50 \% \&amp; \{more\}" in text
