"""The results of SmolLM2 and its fine-tunes that come with this tool, for who has run `make real`.

`python -m backend.bundled.smollm2.shipped` measures those that are missing into `cache/shipped`.
"""

from __future__ import annotations

from backend.commands.parts import measure
from backend.core.components import Component
from backend.methods.attention_knockout import AttentionKnockoutRequest
from backend.methods.cmap import CmapRequest
from backend.methods.compare import ComparisonRequest
from backend.methods.completeness import CompletenessRequest
from backend.methods.dcm import Among, DcmRequest
from backend.methods.functions import FunctionsRequest
from backend.methods.logit_attribution import LogitAttributionRequest
from backend.methods.minimality import MinimalityRequest
from backend.methods.requests import Request
from backend.models import catalogue
from backend.models.real_model import NAME as BASE
from backend.studies import store
from backend.tasks.ioi import IOI
from backend.tasks.prompts import Prompts

ARITHMETIC, BOXES = f"{BASE}-arithmetic", f"{BASE}-boxes"
NAMES, FEWER_NAMES, MORE_NAMES = (Prompts(IOI, n, 10) for n in (100, 50, 400))
"""Of another seed than those on which the circuit was found."""


def requests() -> list[Request]:
    """What the README shows of them, but for how their circuits were found and previewed."""
    circuit = catalogue.circuit(f"{BASE}-ioi")
    return [
        ComparisonRequest((BASE, ARITHMETIC, BOXES), circuit, NAMES),
        LogitAttributionRequest((BASE, ARITHMETIC), NAMES),
        MinimalityRequest(BASE, circuit, NAMES),
        MinimalityRequest(ARITHMETIC, circuit, NAMES),
        CompletenessRequest(BASE, circuit, NAMES),
        FunctionsRequest(BASE, circuit, FEWER_NAMES, draws=1),
        FunctionsRequest(ARITHMETIC, circuit, FEWER_NAMES, draws=1),
        CmapRequest(ARITHMETIC, BASE, circuit, Component.output, NAMES),
        AttentionKnockoutRequest((BASE, ARITHMETIC), NAMES, IOI.edges),
        *(
            DcmRequest(model, circuit, MORE_NAMES, "SI", "position", among, epochs=10)
            for model in (BASE, ARITHMETIC)
            for among in (Among.group, Among.all)
        ),
    ]


def main() -> None:
    """Measure what is missing."""
    store.RESULTS = store.SHIPPED
    for request in requests():
        measure(request)


if __name__ == "__main__":
    main()
