"""Start a Streamlit script and a real browser to look at it: for tests and benchmarks."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from backend.core.read_only import VARIABLE
from tests.forking import Forked

ROOT = Path(__file__).parent.parent
_START_SECONDS = 60
TOUR_SEEN = "localStorage.setItem('circuit-explorer: tour seen', 'yes')"
_BROWSER_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def chromium() -> str | None:
    """Where a Chromium is, if there is one."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


@contextmanager
def serving(
    script: Path,
    *options: str,
    local: Path | None = None,
    health_host: str = "localhost",
    is_read_only: bool = False,
    folder: Path = ROOT,
    log: Path | None = None,
    path: str = "",
    is_forked: bool = False,
) -> Iterator[str]:
    """The address of a new server process for the script, up and healthy.

    What it measures it keeps in `local`, if given. It is asked for its health as `health_host`,
    runs in `folder`, and writes its log into a file, if given. All of it is under `path`. A forked
    one is spared imports (`tests/forking.py`). It ends by SIGKILL, without time for anything.
    """
    told = {VARIABLE: "1"} if is_read_only else {}
    told |= {"CIRCUIT_EXPLORER_LOCAL": str(local)} if local else {}
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    places = [f"--server.port={port}", f"--server.baseUrlPath={path}"]
    asked, environment = ["run", str(script), *places, *options], os.environ | told
    server: subprocess.Popen[bytes] | Forked
    if is_forked:
        server = Forked("streamlit", asked, environment, folder, err=log or Path(os.devnull))
    else:
        with log.open("wb") if log else nullcontext(subprocess.DEVNULL) as heard:
            server = subprocess.Popen(
                [sys.executable, "-m", "streamlit", *asked],
                cwd=folder,
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=heard,
            )
    try:
        address = f"http://localhost:{port}{path}"
        _wait_until_healthy(address, health_host)
        yield address
    finally:
        server.kill()
        server.wait(timeout=10)


@contextmanager
def browsing(executable: str) -> Iterator[Any]:
    """A headless Chromium."""
    from playwright.sync_api import expect, sync_playwright

    # A busy machine is slow, not wrong; five seconds, the default, would tell them apart badly.
    expect.set_options(timeout=30_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=_BROWSER_ARGUMENTS)
        yield browser
        browser.close()


@contextmanager
def watched_pages(browser: Any) -> Iterator[Callable[..., Any]]:
    """Open pages; afterwards no page may have gone wrong, nor asked anything of another machine.

    If nothing else is asked for, things do not glide to their places, which takes a processor.
    """
    complaints: list[str] = []
    contexts = []

    def open_page(address: str, *, first_visit: bool = False, **options: Any) -> Any:
        usual = {"viewport": {"width": 1440, "height": 900}, "reduced_motion": "reduce"}
        context = browser.new_context(**usual | options)
        contexts.append(context)
        if not first_visit:
            context.add_init_script(TOUR_SEEN)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(f"page error: {error}"))
        page.on("console", lambda m: complaints.extend([m.text] if m.type == "error" else []))
        page.on("request", lambda r: complaints.extend([r.url] if _is_external(r.url) else []))
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not complaints, complaints


def figure(page: Any, label: str) -> Any:
    """A figure beside the circuit, by what stands above it; not one that a new one replaces."""
    drawn = page.locator("[data-testid=stElementContainer][data-stale=false] .figure")
    return drawn.filter(has=page.get_by_text(label, exact=True))


def settled(page: Any, timeout_ms: float = 30_000) -> None:
    """Come back when the page has taken in what was done to it: what was drawn before is gone."""
    app = page.locator("[data-testid=stApp][data-test-script-state=notRunning]")
    app.wait_for(timeout=timeout_ms)


def choose(page: Any, box: str, option: str | re.Pattern[str], timeout_ms: float = 60_000) -> None:
    """Choose in a combobox, whose list a script that runs may close: then it is opened again."""
    from playwright.sync_api import TimeoutError

    chosen = page.get_by_role("combobox", name=box, exact=True)
    chosen.wait_for(timeout=timeout_ms)
    listed = page.get_by_role("option", name=option, exact=True)
    deadline = time.monotonic() + timeout_ms / 1000
    while True:
        settled(page, timeout_ms)
        if chosen.get_attribute("aria-expanded") != "true":
            chosen.click()
        try:
            return listed.click(timeout=5_000)
        except TimeoutError:
            if time.monotonic() > deadline:
                raise


def upload(page: Any, label: str, file: Any, timeout_ms: float = 60_000) -> None:
    """Choose a file: Streamlit forgets one that is chosen just as a run of the script begins."""
    settled(page, timeout_ms)
    uploader = page.get_by_test_id("stFileUploader").filter(has_text=label)
    uploader.locator("input[type=file]").set_input_files(file)


def _is_external(url: str) -> bool:
    return not url.startswith(("http://localhost:", "ws://localhost:", "data:", "blob:"))


def _wait_until_healthy(address: str, host: str) -> None:
    asked = urllib.request.Request(f"{address}/_stcore/health", headers={"Host": host})
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(asked, timeout=1):
                return
        except OSError:
            time.sleep(0.05)
    raise TimeoutError(f"The server did not start within {_START_SECONDS} s.")
