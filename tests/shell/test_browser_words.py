"""In a real browser: words of others make no link, no picture and no request, on no page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.dashboard import ROOT, serving, settled, watched_pages
from tests.shell.test_words import AS_FILE, HOSTILE, planted  # noqa: F401

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def address(planted: Path) -> Iterator[str]:  # noqa: F811
    with serving(ROOT / "app.py", local=planted, is_forked=True) as started:
        yield started


def test_unmarked_words_are_shown_as_they_are(browser: Any, tmp_path: Path) -> None:
    """Streamlit makes links and icons of text long after Markdown has been read."""
    words = [
        *HOSTILE.split(" "), HOSTILE, AS_FILE, "<http://evil.test>", "xmpp:me@evil.test", "a -> b",
        "# h", "- l", "1. l", "1) l", "> q", "a -- b", "&lt;", "[^1]", "a|b", ":streamlit:",
        ":rocket:", "x\\", "```", "~~s~~", "owner/name-it_v1.0",
    ]  # fmt: skip
    script = tmp_path / "words.py"
    script.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "import streamlit as st\n"
        "from shell.frame.words import unmarked\n"
        f"for i, word in enumerate({words!r}):\n"
        "    st.markdown(unmarked(word))\n"
        "    st.error(f'“{unmarked(word)}”')\n"
        "    st.button(unmarked(word), key=i, help=unmarked(word))\n"
        "st.text('the end')\n"
    )
    with serving(script, is_forked=True) as address, watched_pages(browser) as open_page:
        page = open_page(address)
        page.get_by_text("the end").wait_for()
        shown = page.locator("[data-testid=stMarkdownContainer]").all_inner_texts()
        assert page.locator("[data-testid=stMain] :is(a, img, [role=img])").count() == 0
    shown = [text.replace("\N{WORD JOINER}", "").strip() for text in shown]
    assert {*words, *(f"“{word}”" for word in words)} <= {*shown}


PAGES = {
    "Circuit": ":is([data-testid=stAlert], [role=switch])",
    "Prompt": ":is([data-testid=stAlert], [data-testid=stTextArea])",
    "Compare": "text=Are two circuits the same heads?",
    "CMAP": "text=What is transplanted",
    "Discover": "text=find a circuit by path patching",
    "Function": "text=The test as a pair of prompts",
    "Attention": "text=By role",
    "Logits": "text=What is read",
    "Results": "text=Damaged results were moved",
    "Paper": "text=The paper’s results",
    "Models": "text=Add a model",
    "Talks": "text=Import a talk",
}
"""Each page, and what shows that it is there."""


@pytest.mark.parametrize(
    ("theme", "query"),
    [
        ("dark", {"model": "hostile", "circuit": "hostile", "n": HOSTILE}),
        ("light", {"model": HOSTILE, "circuit": AS_FILE, "source": HOSTILE}),
    ],
)
def test_no_page_follows_words_of_others(
    browser: Any, address: str, theme: str, query: dict[str, str]
) -> None:
    """Nor does any page meet its own content-security policy, which would be an error."""
    with watched_pages(browser) as open_page:
        page = open_page(f"{address}/?{urlencode(query)}", color_scheme=theme)
        for name, sign in PAGES.items():
            # The first is open; what it complains of is gone after the run that follows a job.
            if name != "Circuit":
                page.get_by_role("navigation").get_by_role("link", name=name, exact=True).click()
            page.locator("[data-testid=stMain]").locator(sign).first.wait_for(timeout=60_000)
            settled(page)
            # A heading's link to itself has its words, too, and leads nowhere else.
            leading_away = page.locator("a[href*=evil]:not([href^='#']), img[src*=evil]")
            assert leading_away.count() == 0
