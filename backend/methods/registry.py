"""The methods that there are: a new one is a line in this list, or registered from outside."""

from __future__ import annotations

from backend.core.progress import Plan
from backend.methods import (
    accuracy,
    attention,
    attention_knockout,
    attribution_patching,
    chosen_senders,
    cmap,
    compare,
    completeness,
    copying,
    dcm,
    edges,
    faithfulness,
    functions,
    knockouts,
    logit_attribution,
    logit_lens,
    minimality,
    quick,
    search,
    stage,
)
from backend.methods.method import Method
from backend.methods.requests import Request, circuit_of, is_pair, models_of, not_as_in_the_paper
from backend.models import catalogue

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        accuracy.METHOD,
        faithfulness.METHOD,
        compare.METHOD,
        cmap.METHOD,
        cmap.ONE_SET,
        stage.METHOD,
        attribution_patching.METHOD,
        quick.METHOD,
        chosen_senders.METHOD,
        minimality.METHOD,
        completeness.METHOD,
        knockouts.METHOD,
        search.METHOD,
        edges.METHOD,
        logit_attribution.METHOD,
        logit_lens.METHOD,
        copying.METHOD,
        attention.METHOD,
        attention_knockout.METHOD,
        functions.METHOD,
        dcm.METHOD,
    )
}
"""By name."""


def register(method: Method) -> None:
    """Make a method of one's own known to the store and the command line of this process."""
    METHODS[method.name] = method


def method_of(request: Request) -> Method:
    """The method that answers a request."""
    return next(method for method in METHODS.values() if method.request is type(request))


def n_parts(request: Request) -> int:
    """How many parts its whole result has."""
    return len(method_of(request).parts(request))


def plan_of(request: Request) -> Plan:
    """The steps of every part of a request's result, in the order in which they are taken."""
    return method_of(request).plan(request)


def settings_of(request: Request) -> str:
    """What determines a result besides models, circuit and prompts, in words; empty if nothing.

    A metric, score or ablation is left out where it is the paper's.
    """
    own = method_of(request).settings(request)
    return ", ".join(filter(None, (own, *not_as_in_the_paper(request))))


def title_of(request: Request) -> str:
    """What a study is called: “CMAP, head output: Chat, Base · circuit “base” · 500 prompts, …”."""
    settings, circuit = settings_of(request), circuit_of(request)
    what = f"{method_of(request).label}, {settings}" if settings else method_of(request).label
    models = (" → " if is_pair(request) else ", ").join(map(catalogue.label, models_of(request)))
    of = f" · circuit “{circuit.name}”" if circuit else ""
    return f"{what}: {models}{of} · {request.prompts}"
