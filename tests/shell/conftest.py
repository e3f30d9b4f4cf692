"""What several tests of pages start from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests import planted_ioi
from tests.dashboard import watched_pages

_START_MS = 60_000


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a model that identifies indirect objects."""
    return planted_ioi.saved(tmp_path_factory.mktemp("planted"))


@pytest.fixture
def open_page(server: str, browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens the Circuit page with a query, and waits until it is drawn."""
    with watched_pages(browser) as open_watched:

        def open_ready(query: str = "", **options: Any) -> Any:
            page = open_watched(f"{server}/{query}", **options)
            page.locator(".spoken").wait_for(state="attached", timeout=_START_MS)
            return page

        yield open_ready
