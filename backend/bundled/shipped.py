"""The results that come with this tool, so that a talk opens at once.

`python -m backend.bundled.shipped` measures those that are missing into `cache/shipped`, which is
all of them after a change of the bundled models or of `store.ENGINE`; delete the old ones then.
"""

from __future__ import annotations

from backend.commands.parts import measure, progress
from backend.core.circuit import Group
from backend.core.components import Component
from backend.methods.requests import (
    CmapRequest,
    ComparisonRequest,
    CompletenessRequest,
    EdgesRequest,
    MinimalityRequest,
    Prompts,
    Request,
    heads_of,
)
from backend.methods.results import Criteria
from backend.models import catalogue
from backend.studies import store
from backend.studies.stages import run_stages
from backend.tasks.setting import Setting

USUAL, MANY, FEW = Prompts(200, 7, 0), Prompts(2000, 7, 0), Prompts(100, 7, 0)
"""What pages ask unless told otherwise, what the README shows, and what Discover asks."""
DISCOVERY = Setting("base", FEW.n, FEW.boxes, FEW.seed)


def requests() -> list[Request]:
    """What the README shows, and what the pages ask unless told otherwise, but for discovery."""
    heads = heads_of(catalogue.circuit("base"))
    lora, full = "arithmetic-lora", "arithmetic-full"
    return [
        ComparisonRequest(catalogue.bundled_models(), heads, USUAL),
        ComparisonRequest(("base", lora, full, "chat"), heads, MANY),
        CmapRequest(full, "base", heads, Component.output, USUAL),
        CmapRequest(lora, "base", heads, Component.output, MANY),
        CmapRequest(full, "base", heads, Component.output, MANY),
        MinimalityRequest("base", heads, FEW),
        CompletenessRequest("base", heads, FEW),
        EdgesRequest("base", heads, FEW),
    ]


def main() -> None:
    """Measure what is missing."""
    store.RESULTS = store.SHIPPED
    for request in requests():
        measure(request)
    for _ in run_stages(DISCOVERY, Criteria(), (), Group.D, progress()):
        pass


if __name__ == "__main__":
    main()
