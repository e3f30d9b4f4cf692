"""The Logits page’s choices: which models, and what is read of their logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from backend.methods.copying import CopyingRequest
from backend.methods.logit_attribution import LogitAttributionRequest
from backend.methods.logit_lens import LogitLensRequest
from backend.models import catalogue
from backend.tasks.circuit import Circuit
from shell.frame import choices, fitting, state, studies
from shell.logits.attribution import MEAN, show_attribution
from shell.logits.copying import COPIES, show_copying
from shell.logits.lens import PROBABILITY, show_lens

LogitsRequest = LogitAttributionRequest | LogitLensRequest | CopyingRequest
STUDIES: Mapping[type, str] = {
    LogitAttributionRequest: "logit_attribution",
    LogitLensRequest: "logit_lens",
    CopyingRequest: "copying",
}
"""What each study is called in the session."""
READINGS: Mapping[str, Any] = {
    "Direct attribution": LogitAttributionRequest,
    "Logit lens": LogitLensRequest,
    "Copying": CopyingRequest,
}
_HELP = (
    "**Direct attribution**: what every head, every MLP and the embedding add to the logit "
    "difference at the last token. **Logit lens**: at which layer and at which token the answer "
    "can be read. **Copying**: which heads write the word that they attend to. None of these is in "
    "the paper on entity tracking; Wang et al. (2023) use the first and the last."
)
_INVITATIONS = {
    LogitAttributionRequest: "split the logit difference at the last token into what each head, "
    "each MLP and the embedding add to it",
    LogitLensRequest: "read the answer off every layer at every named token",
    CopyingRequest: "score every head by what its output-value circuit makes of the answers’ words",
}


def choose() -> LogitsRequest:
    """What is to be read, of which models."""
    now = st.session_state
    state.remember(
        logits_read=next(iter(READINGS)),
        attribution_shown=MEAN,
        lens_measure=PROBABILITY,
        copying_score=COPIES,
    )
    if choices.is_start("logits_models"):
        now["logits_models"] = _pair(now["model"], now["source"])
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        models = choices.choose_models("logits_models")
        st.segmented_control(
            "What is read",
            list(READINGS),
            key="logits_read",
            required=True,
            persist_state="session",
            help=_HELP,
        )
        request: LogitsRequest = READINGS[now["logits_read"]](models, choices.chosen_prompts())
        studies.show_run(STUDIES[type(request)], request, not models)
    return request


def _pair(model: str, source: str) -> list[str]:
    """The sidebar’s model, and beside it one of its shape, if there is one here."""
    other = fitting.source_for(model, source)
    fits = other != model and not fitting.pair_misfit(other, model)
    return [model, other] if fits else [model]


def reading_of(request: LogitsRequest) -> str:
    """What the choice calls a request."""
    return next(name for name, kind in READINGS.items() if kind is type(request))


def invitation(request: LogitsRequest) -> str:
    """What Run would do."""
    names = " and ".join(map(catalogue.label, request.models)) or "no model"
    return f"Press Run to {_INVITATIONS[type(request)]}: {names}, on {request.prompts}."


def show(request: LogitsRequest, parts: tuple[Any, ...], circuit: Circuit | None) -> None:
    """What was found, of the models that are done."""
    match request:
        case LogitAttributionRequest():
            show_attribution(request, parts, circuit)
        case LogitLensRequest():
            show_lens(request, parts)
        case CopyingRequest():
            show_copying(request, parts, circuit)
