"""A job as a page of the dashboard starts it, in a process of its own: `python -m tests.job_alone`.

It tells on stderr what it does. One that is to be killed, `killed`, waits after a part.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import Any

from backend.core.progress import Report
from backend.methods.compare import ComparisonRequest
from backend.models import catalogue
from backend.studies import jobs, studies
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.prompts import Prompts

REQUEST = ComparisonRequest(
    ("base", "chat"), catalogue.circuit("base"), Prompts(ENTITY_TRACKING, 20, 0, (3,))
)


def work(report: Report) -> Iterator[Any]:
    def told(stage: str, share: float) -> None:
        print(stage, file=sys.stderr, flush=True)
        report(stage, share)

    for part in studies.run(REQUEST, told):
        print("a part", file=sys.stderr, flush=True)
        if "killed" in sys.argv:
            threading.Event().wait()
        yield part


if __name__ == "__main__":
    jobs.job(REQUEST, work, "Compare", REQUEST).future.result()
