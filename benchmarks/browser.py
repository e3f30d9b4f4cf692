"""What a user waits for: `python -m benchmarks.browser`.

First paint: from the start of a new server process until the page's first words are there, with
nothing loaded yet; and of each page of a running server, alone and beside a long job on the same
processors. Click: from a mouse click on a head until the numbers for that set of heads are on
screen, base model, 200 prompts; and how many of twenty clicks in two seconds are lost. Step of a
talk: from Page Down until nothing on the screen changes any more, for the talk about the paper's
findings, the first time on a new server and again. All in a real Chromium, by its own clock.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median, quantiles
from typing import Any

from shell.talk.talks import talk
from tests.dashboard import ROOT, browsing, chromium, serving

N_STARTS = 3
N_CLICKS = 30
N_FAST = 20
_PAUSE_MS = 300
_PATIENCE_MS = 120_000
_VIEWPORT = {"width": 1440, "height": 900}
_ON_A_STEP_MS = 10_000
"""How long a speaker stays on a step: the next one is prepared meanwhile."""
PAGES = ("", "prompt", "compare", "cmap", "discover", "function", "attention", "logits", "results")

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

# Twenty heads within two seconds; resolves with how many clicks the page has then served.
_FAST_CLICKS = """
async (heads) => {
  const served = () => Number(document.querySelector(".spoken").dataset.click.split(".")[1]);
  const before = served();
  for (const head of heads) {
    head.dispatchEvent(new MouseEvent("click", { bubbles: true, composed: true }));
    await new Promise((resolve) => { setTimeout(resolve, 2000 / heads.length); });
  }
  const until = performance.now() + 10000;
  while (served() < before + heads.length && performance.now() < until) {
    await new Promise(requestAnimationFrame);
  }
  return served() - before;
}
"""


# Resolves with the milliseconds from pressing Page Down to the last change on the screen, the
# last one when the script is at rest and none has come for half a second.
_STEP = """
() => new Promise((resolve) => {
  const main = document.querySelector("[data-testid=stMain]");
  const app = document.querySelector("[data-testid=stApp]");
  let start = null, last = null;
  const isOnScreen = (node) => {
    const part = document.createRange();
    part.selectNode(node);
    const { top, bottom, height } = part.getBoundingClientRect();
    return height > 0 && top < window.innerHeight && bottom > 0;
  };
  const isSeen = ({ target, addedNodes, removedNodes }) => (
    removedNodes.length || !addedNodes.length
      ? target.isConnected && isOnScreen(target)
      : [...addedNodes].some((node) => node.isConnected && isOnScreen(node))
  );
  const seen = new MutationObserver((changes) => {
    if (last === null || changes.some(isSeen)) { last = performance.now(); }
  });
  const watch = () => {
    const isAtRest = app.dataset.testScriptState === "notRunning";
    if (last === null || !isAtRest || performance.now() - last < 500) {
      requestAnimationFrame(watch);
    } else {
      seen.disconnect();
      resolve(last - start);
    }
  };
  document.addEventListener("keydown", () => {
    start = performance.now();
    seen.observe(main, { subtree: true, childList: true, characterData: true });
    watch();
  }, { once: true, capture: true });
  for (const kind of ["keydown", "keyup"]) {
    document.dispatchEvent(new KeyboardEvent(kind, { key: "PageDown", bubbles: true }));
  }
})
"""


def main() -> None:
    """Measure and print all of it."""
    executable = chromium()
    if not executable:
        sys.exit("No Chromium found. Install one (Debian: apt-get install chromium).")
    with browsing(executable) as browser:
        starts = [first_paint(browser) for _ in range(N_STARTS)]
        print(f"first paint: {', '.join(f'{s:.2f}' for s in starts)} s after the process start")
        with serving(ROOT / "app.py") as address:
            times, n_served = click_times(browser, address)
            print(
                f"click to new numbers, {len(times)} clicks: median {median(times):.0f} ms, "
                f"95th percentile {quantiles(times, n=20)[-1]:.0f} ms, longest {max(times):.0f} ms"
            )
            print(f"{N_FAST} clicks in two seconds: {N_FAST - n_served} lost")
            first, again = step_times(browser, address)
            alone = {name: paint(browser, f"{address}/{name}") for name in PAGES}
            with beside_a_long_job(browser, address):
                beside = {name: paint(browser, f"{address}/{name}") for name in PAGES}
    for name in first:
        print(
            f"step of a talk, {name}: {first[name]:.2f} s the first time, {again[name]:.2f} again"
        )
    for name in PAGES:
        print(f"first paint, {name or 'circuit'}: {alone[name]:.2f} s, {beside[name]:.2f} s beside")
    print(f"longest beside a long job: {max(beside.values()):.2f} s")


def first_paint(browser: Any) -> float:
    """Seconds from the process start to the first words of the page."""
    page = browser.new_page(viewport=_VIEWPORT)
    start = time.monotonic()
    with serving(ROOT / "app.py") as address:
        page.goto(address)
        page.get_by_text("Circuit explorer").first.wait_for()
        seconds = time.monotonic() - start
        page.close()
    return seconds


def paint(browser: Any, address: str) -> float:
    """Seconds until the first words of a page itself, in a browser that has nothing of it yet."""
    page = browser.new_page(viewport=_VIEWPORT)
    start = time.monotonic()
    page.goto(address, wait_until="commit")
    page.get_by_test_id("stMain").locator("p:visible, label:visible").first.wait_for(
        timeout=_PATIENCE_MS
    )
    seconds = time.monotonic() - start
    page.close()
    return seconds


@contextmanager
def beside_a_long_job(browser: Any, address: str) -> Iterator[None]:
    """In the block the server compares all models on 1,000 prompts, and has not ended after it."""
    page = browser.new_page(viewport=_VIEWPORT)
    page.goto(f"{address}/compare?n=1000")
    page.get_by_role("button", name="Run", exact=True).click(timeout=_PATIENCE_MS)
    jobs = page.get_by_role("button", name="Jobs · 1 active")
    jobs.wait_for(timeout=_PATIENCE_MS)
    yield
    jobs.wait_for(timeout=_PATIENCE_MS)
    page.close()


def click_times(browser: Any, address: str) -> tuple[list[float], int]:
    """Milliseconds from click to numbers, one click after the other over the heads; and how many of
    the fast clicks afterwards are served."""
    page = browser.new_page(viewport=_VIEWPORT)
    page.goto(address)
    page.locator(".spoken").wait_for(state="attached", timeout=_PATIENCE_MS)
    heads = page.get_by_role("switch", name=", group ")
    heads.first.wait_for()
    times = []
    for click in range(N_CLICKS):
        times.append(heads.nth(click % heads.count()).evaluate(_CLICK))
        page.wait_for_timeout(_PAUSE_MS)
    n_served = heads.evaluate_all(f"(heads) => ({_FAST_CLICKS})(heads.slice(0, {N_FAST}))")
    page.close()
    return times, n_served


def step_times(browser: Any, address: str) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds for each step after the first of the talk about the paper's findings, by number and
    page: as a speaker comes to it for the first time, and once more."""
    steps = talk("findings").steps
    page = browser.new_page(viewport=_VIEWPORT)
    page.goto(f"{address}/?talk=findings&presenting=1")
    rounds = []
    for _ in range(2):
        times = {}
        for number, step in enumerate(steps[1:], 2):
            page.wait_for_timeout(_ON_A_STEP_MS)
            times[f"{number} ({step.page})"] = page.evaluate(_STEP) / 1000
            page.locator(".presented-title", has_text=step.title).wait_for()
        page.keyboard.press("Home")
        page.locator(".presented-title", has_text=steps[0].title).wait_for()
        rounds.append(times)
    page.close()
    return rounds[0], rounds[1]


if __name__ == "__main__":
    main()
