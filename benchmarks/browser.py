"""What a user waits for: `python -m benchmarks.browser`.

First paint: from the start of a new server process until the page's first words are there, with
nothing loaded yet. Click: from a mouse click on a head until the numbers for that set of heads are
on screen, base model, 200 prompts. Both in a real Chromium, by its own clock.
"""

from __future__ import annotations

import sys
import time
from statistics import median, quantiles
from typing import Any

from tests.dashboard import ROOT, browsing, chromium, serving

N_STARTS = 3
N_CLICKS = 30
_PAUSE_MS = 300

# Resolves with the milliseconds from the click until the page shows that it served this click.
_CLICK = """
(head) => new Promise((resolve) => {
  const answered = () => document.querySelector(".spoken").dataset.click;
  const before = answered();
  const start = performance.now();
  const watch = () => answered() === before
    ? requestAnimationFrame(watch) : resolve(performance.now() - start);
  head.dispatchEvent(new MouseEvent("click", { bubbles: true, composed: true }));
  watch();
})
"""


def main() -> None:
    """Measure and print both."""
    executable = chromium()
    if not executable:
        sys.exit("No Chromium found. Install one (Debian: apt-get install chromium).")
    with browsing(executable) as browser:
        starts = [first_paint(browser) for _ in range(N_STARTS)]
        print(f"first paint: {', '.join(f'{s:.2f}' for s in starts)} s after the process start")
        with serving(ROOT / "app.py") as address:
            times = click_times(browser, address)
    ninety_fifth = quantiles(times, n=20)[-1]
    print(
        f"click to new numbers, {len(times)} clicks: median {median(times):.0f} ms, "
        f"95th percentile {ninety_fifth:.0f} ms, longest {max(times):.0f} ms"
    )


def first_paint(browser: Any) -> float:
    """Seconds from the process start to the first words of the page."""
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    start = time.monotonic()
    with serving(ROOT / "app.py") as address:
        page.goto(address)
        page.get_by_text("Circuit explorer").first.wait_for()
        seconds = time.monotonic() - start
        page.close()
    return seconds


def click_times(browser: Any, address: str) -> list[float]:
    """Milliseconds from click to numbers, one click after the other over the heads."""
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.goto(address)
    page.locator(".spoken").wait_for(state="attached", timeout=120_000)
    heads = page.get_by_role("switch", name=", group ")
    heads.first.wait_for()
    times = []
    for click in range(N_CLICKS):
        times.append(heads.nth(click % heads.count()).evaluate(_CLICK))
        page.wait_for_timeout(_PAUSE_MS)
    page.close()
    return times


if __name__ == "__main__":
    main()
