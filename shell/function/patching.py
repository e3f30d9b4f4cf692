"""Activation patching of whole groups: which tests come true, as a map and as a table."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pandas as pd
import streamlit as st

from backend.core.statistics import Estimate
from backend.methods.functions import Functions, FunctionsRequest, carried
from backend.models import catalogue
from backend.tasks.task import Task
from circuitviz.function_charts import carried_map
from shell.frame import choices, fitting, studies, waiting
from shell.frame.chance import warn_of_chance
from shell.frame.studies import Study
from shell.frame.take_home import Origin, show_chart, show_table
from shell.frame.words import unmarked
from shell.function import chosen

MODELS = "function_models"
MOST_BESIDE_A_PAIR = 2
"""Models whose maps leave room for a pair of prompts."""
_METHOD = (
    "All heads of a group, at its token, give what they give on the alternate prompt; everything "
    "else computes as usual. If the answer is then the one that follows from a variable of the "
    "alternate prompt, the group carries that variable (activation patching; Prakash et al., "
    "circuit functionality)."
)


def study_of(model: str) -> str:
    """What the page calls the study of a model: each has its own, side by side."""
    return f"functions of {model}"


def choose(task: Task) -> list[FunctionsRequest]:
    """What is to be patched, in which models; raises UserError for a circuit that is malformed."""
    if choices.is_start(MODELS):
        st.session_state[MODELS] = [st.session_state["model"]]
    labels = {each.name: each.label for each in task.desiderata}
    key = chosen.tests_key(task)
    st.session_state.setdefault(key, [*labels])
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        models = choices.choose_models(MODELS)
        tests = st.multiselect(
            "Tests",
            [*labels],
            format_func=labels.__getitem__,
            key=key,
            persist_state="session",
            help="Each is a change of prompt, and the answer to expect if heads carry one variable "
            "of it (a desideratum). Below, each can be seen as a pair of prompts.",
        )
        circuit = choices.choose_heads("function_heads")
        prompts = choices.chosen_prompts()
        # All of them are what a request asks for that names none, as those that came with the tool.
        some = () if len(tests) == len(labels) else tuple(tests)
        requests = [FunctionsRequest(model, circuit, prompts, some) for model in models]
        reason = fitting.circuit_misfit(circuit, models)
        st.button(
            "Run",
            type="primary",
            icon="▶",
            disabled=not requests or not tests or bool(reason),
            on_click=_start,
            args=(requests,),
        )
    if reason:
        st.warning(unmarked(reason))
    return requests if tests else []


def found(requests: Sequence[FunctionsRequest]) -> list[Study[FunctionsRequest]]:
    """What there is of the requests so far; says what they take, and how far the first one is that
    is on its way."""
    shown, is_busy = [], False
    for request in requests:
        study = studies.latest(study_of(request.model), request)
        studies.say_cost_of(request, study)
        if study is None:
            continue
        choices.say_what_changed(study.request, request)
        studies.say_when(study)
        is_done = study.job.future.done()
        if is_done or not is_busy:
            waiting.follow(study.job)
        is_busy = is_busy or not is_done
        warn_of_chance([study.request.model], study.job.parts)
        shown += [study] if study.job.parts else []
    return shown


def invite(requests: Sequence[FunctionsRequest]) -> None:
    """What Run would do, or what to choose before it."""
    if not requests:
        st.info("Choose at least one model and one test above.")
        return
    first = requests[0]
    circuit = first.circuit
    st.info(
        f"Press Run to give each group of the circuit “{unmarked(circuit.name)}” "
        f"({choices.sizes(circuit)}) what its heads give on alternate prompts, for "
        f"{len(first.tested)} tests, on {first.draws} draws of {first.prompts}; beside it, nothing "
        "patched, random groups of the same size, and chance."
    )


def show_map(task: Task, found: Sequence[Study[FunctionsRequest]]) -> None:
    """The share of expected answers for each group and test, model beside model."""
    request = found[0].request
    st.markdown("#### Which test comes true with which group?", help=_METHOD)
    labels = {each.name: each.label for each in request.tested}
    models = [catalogue.label(study.request.model) for study in found]
    frame = cells_frame(found, chosen.test(task).name, chosen.group(task).key)
    if frame.empty:
        st.caption("None of these tests can be written for these models: see below why.")
        return
    there = [label for label in labels.values() if label in set(frame["test"])]
    key = f"carried_map_{st.session_state.get('carried_epoch', 0)}"
    show_chart(
        carried_map(frame, there, models, task.reading_order),
        _origin(found),
        key,
        "Share of expected answers with each group patched, for each test and model",
        partial(_take_in, key, task),
        what="carried",
    )
    names = ", ".join(f"{group.key} {group.name}" for group in task.reading_order)
    st.caption(
        f"Share of prompts answered as the test expects; {names}. Coloured is what is clearly "
        "above nothing patched, random groups and chance, all cells of a model looked at together "
        f"(false discovery rate 5 %); the others are no findings. {request.draws} draws of "
        f"{request.prompts}; circuit “{unmarked(request.circuit.name)}”. Click a cell to choose it."
    )


def cells_frame(found: Sequence[Study[FunctionsRequest]], test: str, group: str) -> pd.DataFrame:
    """A row for each group and test of each model, as `carried_map` takes them; one is chosen."""
    rows = []
    for study in found:
        parts: list[Functions] = study.job.parts
        clear = {*carried(parts)}
        labels = {each.name: each.label for each in study.request.tested}
        for part in parts:
            for key, each in part.groups.items():
                rows.append(
                    {
                        "model": catalogue.label(study.request.model),
                        "group": key,
                        "name": part.desideratum,
                        "test": labels[part.desideratum],
                        "share": each.expected.value,
                        "clear": (key, part.desideratum) in clear,
                        "chosen": (part.desideratum, key) == (test, group),
                        "interval": _in_words(each.expected),
                        "n": each.expected.n,
                        "nothing": _in_words(part.unpatched),
                        "random": _in_words(each.random),
                        "chance": f"{part.chance:.3f}",
                        "own": _in_words(each.own),
                    }
                )
    return pd.DataFrame(rows)


def _origin(found: Sequence[Study[FunctionsRequest]]) -> Origin:
    models = tuple(study.request.model for study in found)
    return Origin("function", models, found[0].request.prompts)


def show_figures(found: Sequence[Study[FunctionsRequest]]) -> None:
    """All figures, with what they are compared with."""
    with st.expander("As a table"):
        show_table(
            (
                "Test, group", "Expected answer", "Nothing patched", "Random groups",
                "Less nothing", "Less random", "Base’s own answer", "Chance",
            ),
            [
                (
                    f"{labels[part.desideratum]}, {key}\n{catalogue.label(study.request.model)}"
                    + ("" if (key, part.desideratum) in clear else ", not clear"),
                    each.expected,
                    part.unpatched or "–",
                    each.random,
                    each.change,
                    each.above_random,
                    each.own,
                    f"{part.chance:.3f}",
                )
                for study, clear, labels in map(_with_words, found)
                for part in study.job.parts
                for key, each in part.groups.items()
            ],
            _origin(found),
            "carried table",
        )  # fmt: skip
        st.caption(
            "95 % intervals: Wilson’s for shares, with the variance seen for random groups; "
            "Tango’s for the difference to nothing patched, a score interval for that to random "
            "groups. Chance: of guessing the expected answer among those it competes with."
        )


def _with_words(
    study: Study[FunctionsRequest],
) -> tuple[Study[FunctionsRequest], set[tuple[str, str]], dict[str, str]]:
    labels = {each.name: each.label for each in study.request.tested}
    return study, {*carried(study.job.parts)}, labels


def _in_words(estimate: Estimate | None) -> str:
    if estimate is None:
        return "–"
    return f"{estimate.value:.3f}, 95 %: {estimate.low:.3f} to {estimate.high:.3f}"


def _start(requests: Sequence[FunctionsRequest]) -> None:
    for request in requests:
        studies.start(study_of(request.model), request)


def _take_in(key: str, task: Task) -> None:
    """Choose the test and the group of the clicked cell; the next click finds a clean chart."""
    cells = st.session_state[key].selection.get("cell", [])
    if cells:
        chosen.choose(task, cells[0]["name"], cells[0]["group"])
    st.session_state["carried_epoch"] = st.session_state.get("carried_epoch", 0) + 1
