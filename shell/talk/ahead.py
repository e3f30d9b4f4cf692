"""What the next step of a talk needs, prepared in the background while this one is talked about."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

import shell
from backend.core.progress import Report
from backend.models import catalogue, prepared
from backend.studies import jobs
from backend.tasks.setting import Mode, intervention
from shell.frame import waiting
from shell.frame.history import Switches
from shell.frame.view import View, from_query
from shell.talk.talk import Step


def prepare(step: Step) -> None:
    """Begin to prepare a step; what is there already costs nothing."""
    view, _ = from_query(step.view)
    if step.page != "circuit":
        key = "page of a step", step.page
        loading = jobs.job(key, lambda report: _import(step.page), kind=jobs.SMALL)
        if step.page == "function":
            loading.future.add_done_callback(lambda done: _draw_pairs(step, view))
    elif prepared.get(view.setting):
        _prepare_clicks(view)
    else:
        if (known := jobs.known(view.setting)) and known.future.done():
            jobs.forget(view.setting)
        of_prompts = waiting.preparation(view.setting)
        of_prompts.future.add_done_callback(lambda done: _prepare_clicks(view))


def _draw_pairs(step: Step, view: View) -> None:
    from shell.function import pairs, patching

    pairs.drawing((step.choices.get(patching.MODELS) or [view.model])[0], view.prompts)


def _prepare_clicks(view: View) -> None:
    """A job of its own, which waits while somebody clicks."""
    if prepared.get(view.setting):
        jobs.forget(("step", view))
        jobs.job(("step", view), lambda report: _click(view, report), kind=jobs.SMALL)


def _click(view: View, report: Report) -> Iterator[View]:
    """Run what the page runs for this view, so that it is kept."""
    from backend.studies import session as studies_session

    if session := prepared.get(view.setting):
        report("Preparing the next step of the talk", 0.1)
        circuit = catalogue.circuit(view.circuit)
        circuit.check_task(view.task)
        circuit.check(session.loaded.shape, catalogue.label(view.model))
        tested = view.tested
        if view.mode is Mode.other:
            studies_session.prepare_source(session, view.source)
        elif tested:
            studies_session.alternate(session, tested.name)
        elif view.mode is not Mode.mean:
            studies_session.prepare_mode(session, view.reading, view.mode)
        if view.contributions:
            studies_session.head_contributions(session)
        report("Preparing the next step of the talk", 0.5)
        for switches in (Switches(), view.switches):
            asked = circuit, view.reading, view.mode, switches.off, switches.switched
            step = intervention(*asked, view.source, view.desideratum)
            studies_session.answers(session, step)
    yield view


def _import(page: str) -> Iterator[str]:
    """Load the modules that a page is made of: the first time, charts take seconds."""
    from shell.frame import places  # noqa: F401

    for room in pkgutil.iter_modules(shell.__path__):
        if room.name == page:
            package = importlib.import_module(f"shell.{page}")
            for module in pkgutil.iter_modules(package.__path__):
                importlib.import_module(f"shell.{page}.{module.name}")
    yield page
