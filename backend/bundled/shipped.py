"""The results that come with this tool, so that a talk opens at once.

`python -m backend.bundled.shipped` measures those that are missing into `cache/shipped`, which is
all of them after a change of the bundled models or of `store.ENGINE`; delete the old ones then.
"""

from __future__ import annotations

from backend.commands.parts import measure, progress
from backend.core.components import Component
from backend.methods.attention import AttentionRequest
from backend.methods.attention_knockout import AttentionKnockoutRequest
from backend.methods.cmap import CmapRequest
from backend.methods.compare import ComparisonRequest
from backend.methods.completeness import CompletenessRequest
from backend.methods.copying import CopyingRequest
from backend.methods.dcm import DcmRequest
from backend.methods.edges import EdgesRequest
from backend.methods.functions import FunctionsRequest
from backend.methods.logit_attribution import LogitAttributionRequest
from backend.methods.logit_lens import LogitLensRequest
from backend.methods.minimality import MinimalityRequest
from backend.methods.requests import Request
from backend.methods.stages import Criteria
from backend.models import catalogue
from backend.studies import store
from backend.studies.stages import run_stages
from backend.tasks.entity_tracking import ENTITY_TRACKING
from backend.tasks.prompts import Prompts
from backend.tasks.setting import Setting

USUAL, MANY, FEW = (Prompts(ENTITY_TRACKING, n, 0) for n in (200, 2000, 100))
"""What pages ask unless told otherwise, what the README shows, and what Discover asks."""
DISCOVERY = Setting("base", FEW)


def requests() -> list[Request]:
    """What the README shows, and what the pages ask unless told otherwise, but for discovery."""
    circuit = catalogue.circuit("base")
    lora, full = "arithmetic-lora", "arithmetic-full"
    return [
        ComparisonRequest(catalogue.bundled_models(), circuit, USUAL),
        ComparisonRequest(("base", lora, full, "chat"), circuit, MANY),
        CmapRequest(full, "base", circuit, Component.output, USUAL),
        CmapRequest(lora, "base", circuit, Component.output, MANY),
        CmapRequest(full, "base", circuit, Component.output, MANY),
        MinimalityRequest("base", circuit, FEW),
        CompletenessRequest("base", circuit, FEW),
        EdgesRequest("base", circuit, FEW),
        *(FunctionsRequest(name, circuit, USUAL) for name in catalogue.bundled_models()),
        *(
            DcmRequest("base", circuit, MANY, group, variable)
            for group in circuit.task.keys
            for variable in ("object", "label", "position")
        ),
        AttentionRequest(("base", full), circuit, USUAL),
        AttentionKnockoutRequest(("base", full), USUAL, circuit.task.edges),
        LogitAttributionRequest(("base", full), USUAL),
        LogitLensRequest(("base", full), USUAL),
        CopyingRequest(("base", full), USUAL),
    ]


def main() -> None:
    """Measure what is missing."""
    store.RESULTS = store.SHIPPED
    for request in requests():
        measure(request)
    for _ in run_stages(DISCOVERY, Criteria(), (), "D", progress()):
        pass


if __name__ == "__main__":
    main()
