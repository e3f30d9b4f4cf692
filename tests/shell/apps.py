"""A page in a test without a browser: run it again, press its buttons, open a result from it."""

from __future__ import annotations

import json
from typing import Any

from streamlit.testing.v1 import AppTest

from backend.studies import jobs


def rerun(test: AppTest) -> AppTest:
    """The page after another run, which raises nothing."""
    test.run()
    assert not test.exception
    return test


def ready(test: AppTest) -> AppTest:
    """After everything that it waits for; what one job is waited for may ask for another."""
    for _ in range(9):
        running = [job for job in [*jobs._jobs.values()] if not job.future.done()]
        for job in running:
            job.future.exception(120)
        test.run()
        if not running:
            break
    assert not test.exception
    return test


def drawn(test: AppTest) -> dict[str, Any]:
    """What the figures component of a page shows; nothing while there is none."""
    assert not test.exception
    for element in test.get("bidi_component"):
        if element.proto.component_name == "figures":
            data: dict[str, Any] = json.loads(element.proto.json)["figures"]
            return data
    return {"shown": [], "spoken": "", "note": ""}


def figures(test: AppTest) -> dict[str, str]:
    """The figures of the Circuit page, as they are read, by label."""
    return {figure["label"]: figure["value"] for figure in drawn(test)["shown"]}


def press(test: AppTest, label: str) -> AppTest:
    """The page after a click on the first button whose label begins so."""
    next(button for button in test.button if button.label.startswith(label)).click()
    return rerun(test)


def opened(test: AppTest, stored: Any) -> AppTest:
    """What a session like that of the page holds once a stored result is opened in it."""

    def script(stored):  # type: ignore[no-untyped-def]
        from shell.frame import places

        places.open_stored(stored)

    opening = AppTest.from_function(script, args=(stored,), default_timeout=60)
    for key in ("task", "circuit", "options", "seed", "n", "model", "history", "epoch"):
        opening.session_state[key] = test.session_state[key]
    return rerun(opening)
