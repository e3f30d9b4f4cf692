"""A running playground and a browser to look at it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.dashboard import serving, watched_pages

PLAYGROUND = Path(__file__).with_name("playground.py")


@pytest.fixture(scope="session")
def playground_address() -> Iterator[str]:
    """The address of a server that shows nothing but the picture."""
    with serving(PLAYGROUND) as address:
        yield address


@pytest.fixture
def open_picture(playground_address: str, browser: Any) -> Iterator[Callable[..., Any]]:
    """Open the playground; afterwards nothing may have gone wrong, nor left this machine."""
    with watched_pages(browser) as open_watched:

        def open_page(query: str = "", **options: Any) -> Any:
            moving = {"reduced_motion": "no-preference"}
            page = open_watched(f"{playground_address}/?{query}", **moving | options)
            page.get_by_role("switch").first.wait_for()
            return page

        yield open_page
