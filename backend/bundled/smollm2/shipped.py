"""The results of SmolLM2 and its fine-tunes that come with this tool, for who has run `make real`.

`python -m backend.bundled.smollm2.shipped` measures those that are missing into `cache/shipped`.
"""

from __future__ import annotations

from backend.commands.parts import measure
from backend.methods.compare import ComparisonRequest
from backend.methods.requests import Request
from backend.models import catalogue
from backend.models.real_model import NAME as BASE
from backend.studies import store
from backend.tasks.ioi import IOI
from backend.tasks.prompts import Prompts

ARITHMETIC, BOXES = f"{BASE}-arithmetic", f"{BASE}-boxes"
NAMES = Prompts(IOI, 100, 10)
"""Of another seed than those on which the circuit was found."""


def requests() -> list[Request]:
    """What the README shows of them, but for how their circuits were found."""
    return [ComparisonRequest((BASE, ARITHMETIC, BOXES), catalogue.circuit(f"{BASE}-ioi"), NAMES)]


def main() -> None:
    """Measure what is missing."""
    store.RESULTS = store.SHIPPED
    for request in requests():
        measure(request)


if __name__ == "__main__":
    main()
