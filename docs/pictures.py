"""Take the README's pictures from the running app: `make pictures`.

Chromium must be installed. Each picture is of the bundled models, after a click as a user makes it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from tests.dashboard import ROOT, TOUR_SEEN, browsing, chromium, serving

_HERE = Path(__file__).parent
_SIZE = {"width": 1440, "height": 900}
_START_MS = 120_000


def main() -> None:
    """The Circuit page in both themes, the Prompt page, and the Circuit page on a stage."""
    executable = chromium()
    if not executable:
        raise SystemExit("There is no Chromium here. Install it, then run `make pictures` again.")
    with (
        tempfile.TemporaryDirectory() as local,
        serving(ROOT / "app.py", local=Path(local)) as address,
        browsing(executable) as browser,
    ):
        for theme in ("light", "dark"):
            page = _opened(browser, f"{address}/?off=D0.4", theme)
            page.locator('[data-id="C L1.6"]').hover()
            _taken(page, f"circuit-{theme}")
        _taken(_opened(browser, f"{address}/?off=A4.2&presenting=1", "dark"), "presenting")
        page = _opened(browser, f"{address}/?off=A4.2", "light")
        page.get_by_role("link", name="Prompt", exact=True).click()
        page.get_by_role("textbox", name="Answer").wait_for(timeout=_START_MS)
        _taken(page, "prompt")


def _opened(browser: Any, address: str, theme: str) -> Any:
    context = browser.new_context(viewport=_SIZE, color_scheme=theme)
    context.add_init_script(TOUR_SEEN)
    page = context.new_page()
    page.goto(address)
    page.locator(".spoken").wait_for(state="attached", timeout=_START_MS)
    return page


def _taken(page: Any, name: str) -> None:
    """Keep what is shown once nothing moves any more."""
    idle = page.locator("[data-testid=stApp][data-test-script-state=notRunning]")
    idle.wait_for(state="attached", timeout=_START_MS)
    page.wait_for_load_state("networkidle")
    page.screenshot(path=_HERE / f"{name}.png", animations="disabled")


if __name__ == "__main__":
    main()
