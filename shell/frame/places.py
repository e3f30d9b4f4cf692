"""Back to a result: the page that shows it, with the choices that it was asked for with."""

from __future__ import annotations

from typing import Any

import streamlit as st

from backend.core.errors import UserError
from backend.methods.attention import AttentionRequest
from backend.methods.attention_knockout import AttentionKnockoutRequest
from backend.methods.attribution_patching import AttributionRequest
from backend.methods.chosen_senders import SendersRequest
from backend.methods.cmap import CmapRequest
from backend.methods.compare import ComparisonRequest
from backend.methods.completeness import CompletenessRequest
from backend.methods.copying import CopyingRequest
from backend.methods.dcm import DcmRequest
from backend.methods.edges import EdgesRequest
from backend.methods.functions import FunctionsRequest
from backend.methods.knockouts import KnockoutsRequest
from backend.methods.logit_attribution import LogitAttributionRequest
from backend.methods.logit_lens import LogitLensRequest
from backend.methods.minimality import MinimalityRequest
from backend.methods.quick import QuickRequest
from backend.methods.registry import method_of
from backend.methods.requests import Request
from backend.methods.search import SearchRequest
from backend.methods.stage import StageRequest
from backend.models import catalogue
from backend.studies import jobs, studies
from backend.studies.keys import identity
from backend.studies.previews import EstimateRequest, by_of
from backend.tasks.circuit import Circuit
from backend.tasks.prompts import Prompts
from shell.attention.opening import BY_ROLE, KNOCKOUT
from shell.circuit import files
from shell.discover import discovery, previewing, search
from shell.discover.discovery import Plan
from shell.discover.previewing import PreviewPlan
from shell.frame import state
from shell.frame.history import History
from shell.frame.studies import Study, read, show
from shell.frame.view import PROMPT_COUNTS
from shell.function import chosen, masks, patching
from shell.logits import logits

_STUDIES: dict[type, tuple[str, str]] = {
    ComparisonRequest: ("comparison", "compare"),
    CmapRequest: ("transplants", "cmap"),
    MinimalityRequest: ("minimality", "discover"),
    CompletenessRequest: ("completeness", "discover"),
    EdgesRequest: ("edges", "discover"),
    SearchRequest: (search.STUDY, "discover"),
    StageRequest: ("", "discover"),
    **{request: (study, "logits") for request, study in logits.STUDIES.items()},
    AttributionRequest: ("", "discover"),
    QuickRequest: ("", "discover"),
    SendersRequest: ("", "discover"),
    Plan: ("", "discover"),
    PreviewPlan: ("", "discover"),
    FunctionsRequest: ("", "function"),
    DcmRequest: (masks.STUDY, "function"),
    KnockoutsRequest: (files.STUDY, "circuit"),
    AttentionRequest: ("attention_by_role", "attention"),
    AttentionKnockoutRequest: ("attention_knockout", "attention"),
}
"""What the page of a request calls its study, and that page."""
_OF_SEVERAL = (
    ComparisonRequest
    | CmapRequest
    | FunctionsRequest
    | DcmRequest
    | AttentionRequest
    | AttentionKnockoutRequest
    | logits.LogitsRequest
)
"""Requests whose pages show results of models that are not on this computer."""
_TITLES = {
    "circuit": "Circuit",
    "compare": "Compare",
    "cmap": "CMAP",
    "discover": "Discover",
    "function": "Function",
    "attention": "Attention",
    "logits": "Logits",
}


def page_of(request: Request | Plan | PreviewPlan) -> str | None:
    """The file of the page that shows what was asked for, if there is one."""
    known = _STUDIES.get(type(request))
    return f"pages/{known[1]}.py" if known else None


def studies_of(page: str) -> set[str]:
    """What a page calls its studies, by the page's name in an address."""
    return {study for study, of in _STUDIES.values() if of == page and study}


def title_of(page: str) -> str:
    """What the navigation calls a page."""
    return _TITLES[page.removeprefix("pages/").removesuffix(".py")]


def obstacle(stored: studies.Stored) -> str | None:
    """Why a result cannot be opened on its page; None if it can."""
    is_there = identity(stored.request) == stored.entry.header.key
    if is_there or isinstance(stored.request, _OF_SEVERAL):
        return None
    return "The Discover page needs the same model on this computer. Its figures stand below."


def open_stored(stored: studies.Stored) -> None:
    """Choose on its page what the result was asked for with, and show it there."""
    choose_again(stored.request, read(stored))


def show_job(job: jobs.Job) -> None:
    """Choose on its page what a job was asked for with, and show it there."""
    if isinstance(job.request, Plan):
        _plan_again(job.request)
        discovery.show_again(job.request, job)
    elif isinstance(job.request, PreviewPlan):
        look = job.request.look
        _plan_again(Plan(look.setting, look.criteria, look.score))
        previewing.estimated_again(look.by)
        if job.request.n_checked:
            st.session_state["preview_checked"] = job.request.n_checked
    else:
        choose_again(job.request, Study(job.request, job))


def choose_again(request: Request, study: Study) -> None:
    """Make the request this session's choice, as far as it is offered, and the study its page's."""
    now: Any = st.session_state
    match request:
        case ComparisonRequest():
            _choose(request.prompts, request.circuit)
            now["metric"], now["compared_ablation"] = request.metric, request.ablation
            now["compared"], now["compared_started_from"] = [*request.models], now["model"]
        case CmapRequest():
            _choose(request.prompts, request.circuit)
            now["source"], now["target"], now["part"] = request.source, request.target, request.part
            now["target_started_from"], now["metric"] = now["model"], request.metric
        case AttentionRequest():
            _choose(request.prompts, request.circuit)
            now["attention_shown"] = BY_ROLE
            now["attended"], now["attended_started_from"] = [*request.models], now["model"]
        case AttentionKnockoutRequest():
            _choose(request.prompts)
            now["attention_shown"], now["metric"] = KNOCKOUT, request.metric
            now["attended"], now["attended_started_from"] = [*request.models], now["model"]
            task = now["knockout_for"] = request.prompts.task
            now["knockout_offered"] = list(dict.fromkeys((*task.edges, *request.edges)))
            now["knockout_edges"] = [*request.edges]
            now["knockout_heads"] = [str(head) for head in sorted(request.heads)]
            now["knockout_window"] = request.window or 0
        case MinimalityRequest() | CompletenessRequest() | EdgesRequest():
            _choose(request.prompts, request.circuit)
            now["model"], now["discover_n"] = request.model, request.prompts.n
            now["examined"] = method_of(request).label
            if isinstance(request, EdgesRequest):
                now["discover_score"] = request.score
            else:
                now[f"{method_of(request).name}_ablation"] = request.ablation
        case SearchRequest():
            _choose(request.prompts)
            now["model"], now["discover_n"] = request.model, request.prompts.n
            now["discover_score"], now["metric"] = request.score, request.metric
            now["search_growth"], now["search_ablation"] = request.growth, request.ablation
            now["search_tokens"] = request.tokens
            now["search_most"] = max(1, len(request.candidates))
            now["examined"] = method_of(request).label
        case LogitAttributionRequest() | LogitLensRequest() | CopyingRequest():
            _choose(request.prompts)
            now["logits_models"], now["logits_models_started_from"] = (
                [*request.models],
                now["model"],
            )
            now["logits_read"] = logits.reading_of(request)
        case StageRequest() | AttributionRequest() | QuickRequest() | SendersRequest():
            _choose(request.prompts)
            now["model"], now["discover_n"] = request.model, request.prompts.n
            now["discover_score"] = request.score
            _keep_receivers(request)
            if isinstance(request, AttributionRequest | QuickRequest):
                previewing.estimated_again(by_of(request))
            elif isinstance(request, SendersRequest):
                now["preview_shown"] = True
        case FunctionsRequest():
            _choose(request.prompts, request.circuit)
            now[patching.MODELS] = [request.model]
            now[f"{patching.MODELS}_started_from"] = now["model"]
            now[chosen.tests_key(request.prompts.task)] = [each.name for each in request.tested]
        case KnockoutsRequest():
            _choose(request.prompts, request.circuit)
            now["model"], now["reading"] = request.model, request.reading
            modes = {ablation: mode for mode, ablation in files.ABLATIONS.items()}
            now["mode"], now["desideratum"] = modes[request.ablation], ""
        case DcmRequest():
            _choose(request.prompts, request.circuit)
            masks.choose_again(request)
    if name := _study_of(request):
        show(name, study)


def _study_of(request: Request) -> str:
    """What the page of a request calls its study; nothing where it finds it by itself."""
    if isinstance(request, FunctionsRequest):
        return patching.study_of(request.model)
    return _STUDIES[type(request)][0]


def _plan_again(plan: Plan) -> None:
    now = st.session_state
    now["model"], now["discover_n"] = plan.setting.model, plan.setting.prompts.n
    _choose(plan.setting.prompts)
    criteria = plan.criteria
    now["discover_ranking"] = discovery.CENTRED if criteria.centred else discovery.RAW
    now["discover_fdr"], now["discover_score"] = criteria.fdr, plan.score
    now.update({f"discover_keep_{key}": n for key, n in criteria.sizes.items()})


def _choose(prompts: Prompts, circuit: Circuit | None = None) -> None:
    now = st.session_state
    if prompts.task != now["task"]:
        state.choose_task(prompts.task)
    now["options"], now["seed"] = prompts.options, prompts.seed
    if prompts.n in PROMPT_COUNTS:
        now["n"] = prompts.n
    if circuit and circuit.name != now["circuit"] and _is_known(circuit):
        now["circuit"] = circuit.name
        state.overrule(History())


def _is_known(circuit: Circuit) -> bool:
    try:
        return catalogue.circuit(circuit.name).nodes == circuit.nodes
    except UserError:
        return False


def _keep_receivers(request: StageRequest | EstimateRequest | SendersRequest) -> None:
    """As many heads in the group before as this stage has receivers."""
    task = request.prompts.task
    discovery.set_defaults(task)
    into = task.group(request.group).into
    if len(into) == 1:
        st.session_state[f"discover_keep_{into[0]}"] = len(request.receivers)
