"""The results of SmolLM2 and its fine-tunes that come with this tool, for who has run `make real`.

`python -m backend.bundled.smollm2.shipped` measures those that are missing into `cache/shipped`.
"""

from __future__ import annotations

from backend.commands.parts import measure
from backend.core.components import Component
from backend.methods.cmap import CmapRequest
from backend.methods.compare import ComparisonRequest
from backend.methods.minimality import MinimalityRequest
from backend.methods.requests import Request
from backend.models import catalogue
from backend.models.real_model import NAME as BASE
from backend.studies import store
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.ioi import IOI
from backend.tasks.prompts import Prompts

ARITHMETIC, BOXES, BOXES_ARITHMETIC = (
    f"{BASE}-{name}" for name in ("arithmetic", "boxes", "boxes-arithmetic")
)
NAMES = Prompts(IOI, 200, 10)
KEPT = Prompts(ENTITY_TRACKING, 100, 10, (3,))
"""Other seeds than those on which the circuits were found."""


def requests() -> list[Request]:
    """What the README shows of them."""
    names, kept = (catalogue.circuit(f"{BASE}-{task}") for task in ("ioi", "boxes"))
    return [
        ComparisonRequest((BASE, ARITHMETIC, BOXES), names, NAMES),
        CmapRequest(ARITHMETIC, BASE, names, Component.output, NAMES),
        MinimalityRequest(BASE, names, NAMES),
        ComparisonRequest((BOXES, BOXES_ARITHMETIC, BASE), kept, KEPT),
        CmapRequest(BOXES_ARITHMETIC, BOXES, kept, Component.output, KEPT),
    ]


def main() -> None:
    """Measure what is missing."""
    store.RESULTS = store.SHIPPED
    for request in requests():
        measure(request)


if __name__ == "__main__":
    main()
