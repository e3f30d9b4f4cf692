"""DCM on the page: which heads carry the variable, learned while one looks on."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pandas as pd
import streamlit as st

from backend.core.errors import UserError
from backend.methods.dcm import (
    BATCH,
    EPOCHS,
    N_PAIRS,
    PENALTY,
    RATE,
    TRAINING,
    VALIDATION,
    Among,
    Curve,
    Dcm,
    DcmRequest,
    best,
    curve_so_far,
    found_circuit,
)
from backend.models import catalogue
from backend.studies import jobs
from backend.studies import studies as stored
from backend.tasks.circuit import Circuit
from backend.tasks.desiderata import Desideratum
from backend.tasks.prompts import MAX_PROMPTS, Prompts
from backend.tasks.setting import Mode, Reading, Setting
from backend.tasks.task import Group, Task
from circuitviz.component import circuit_component
from circuitviz.function_charts import heads_line, loss_line, penalty_chart, validation_line
from circuitviz.graph import circuit_graph
from circuitviz.layout import circuit_layout
from circuitviz.picture import circuit_picture
from circuitviz.provenance import scores_of
from circuitviz.tables import signed
from shell.discover.found import plain, show_saving
from shell.frame import fitting, state, studies, waiting
from shell.frame.chance import warn_of_chance
from shell.frame.choices import choose_one
from shell.frame.studies import Study
from shell.frame.take_home import origin_of, picture_files, show_chart, show_control, show_table
from shell.frame.words import unmarked
from shell.function import chosen
from shell.function.patching import MODELS

STUDY = "mask"
RUN = "Learn the mask"
SWEPT = (0.01, 0.1, 0.3, 1.0, 2.0, 4.0)
"""Values of λ, from the paper’s to as many logits as a head brings."""
_METHOD = (
    "Desiderata-based component masking (Davies et al., 2023; Prakash et al., circuit "
    "functionality): a mask over the heads is learned by gradient descent so that the expected "
    "answer becomes likely, while each head that takes its alternate value costs λ. The model "
    "itself does not change."
)
_AMONG = {Among.group: "the group’s heads", Among.all: "all heads at its token"}
_HEIGHT, _ASPECT = "460px", 1.9


def show_title(tested: Desideratum, group: Group) -> None:
    """What is learned, and how."""
    st.markdown(
        f"#### Which heads of {unmarked(group.key)} carry it? “{unmarked(tested.label)}”, learned",
        help=_METHOD,
    )


def set_defaults() -> None:
    """The paper's settings."""
    state.remember(
        dcm_n=N_PAIRS,
        dcm_penalty=PENALTY,
        dcm_sweep=False,
        dcm_rate=RATE,
        dcm_epochs=EPOCHS,
        dcm_batch=BATCH,
        dcm_training=round(100 * TRAINING),
        dcm_validation=round(100 * VALIDATION),
    )


def choose(
    models: list[str], circuit: Circuit, prompts: Prompts, tested: Desideratum, group: Group
) -> DcmRequest | None:
    """The settings, and the button that runs them; None, with the reason, for what cannot be."""
    set_defaults()
    now = st.session_state
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        if now.get("dcm_model") not in models:
            now["dcm_model"] = models[0]
        st.selectbox(
            "Model", models, format_func=catalogue.label, key="dcm_model", width=220,
            persist_state="session",
        )  # fmt: skip
        st.number_input(
            "Pairs", min_value=20, max_value=MAX_PROMPTS, step=200, key="dcm_n", width=150,
            persist_state="session", help=f"The paper used {N_PAIRS}: half to learn from, a "
            "quarter to choose the heads with, a quarter to test them.",
        )  # fmt: skip
        choose_one("The mask is over", _AMONG, "dcm_among")
        place = st.container(width="content")
    _show_settings()
    try:
        request = _request(circuit, prompts, tested, group)
    except UserError as error:
        st.warning(unmarked(error))
        return None
    reason = fitting.circuit_misfit(circuit, [request.model])
    place.button(
        RUN,
        type="primary",
        icon="▶",
        disabled=bool(reason),
        on_click=studies.start,
        args=(STUDY, request),
    )
    if reason:
        st.warning(unmarked(reason))
    return request


def _request(circuit: Circuit, prompts: Prompts, tested: Desideratum, group: Group) -> DcmRequest:
    """Raises UserError for settings that there cannot be."""
    now = st.session_state
    penalty = float(now["dcm_penalty"])
    return DcmRequest(
        now["dcm_model"],
        circuit,
        replace(prompts, n=now["dcm_n"]),
        group.key,
        tested.name,
        now["dcm_among"],
        SWEPT if now["dcm_sweep"] else (penalty,),
        now["dcm_rate"],
        now["dcm_epochs"],
        now["dcm_batch"],
        now["dcm_training"] / 100,
        now["dcm_validation"] / 100,
    )


def _show_settings() -> None:
    with st.expander("Settings: the paper’s unless changed"):
        left, middle, right = st.columns(3, gap="medium")
        number = partial(st.number_input, persist_state="session")
        with left:
            number(
                "λ, what each head costs (logits)", min_value=0.0, max_value=100.0, step=0.005,
                format="%g", key="dcm_penalty", disabled=st.session_state["dcm_sweep"],
            )  # fmt: skip
            st.toggle(
                "Try several λ",
                key="dcm_sweep",
                persist_state="session",
                help=f"{', '.join(f'{each:g}' for each in SWEPT)}: how many heads are needed for "
                "how much.",
            )
        with middle:
            number(
                "Learning rate", min_value=0.001, max_value=10.0, step=0.05, format="%g",
                key="dcm_rate",
            )  # fmt: skip
            number("Epochs", min_value=1, max_value=100, key="dcm_epochs")
            number("Pairs in a batch", min_value=1, max_value=10_000, key="dcm_batch")
        with right:
            number("To learn from (%)", min_value=1, max_value=98, key="dcm_training")
            number("To choose with (%)", min_value=1, max_value=98, key="dcm_validation")


def choose_again(request: DcmRequest) -> None:
    """Make the settings of a request those of the page."""
    set_defaults()
    task, now = request.prompts.task, st.session_state
    chosen.choose(task, request.desideratum, request.group)
    now[MODELS], now[f"{MODELS}_started_from"] = [request.model], now["model"]
    now["dcm_model"], now["dcm_n"] = request.model, request.prompts.n
    now["dcm_among"] = request.among
    now["dcm_sweep"] = request.penalties == SWEPT
    now["dcm_penalty"] = request.penalties[0] if len(request.penalties) == 1 else PENALTY
    now["dcm_rate"], now["dcm_epochs"] = request.rate, request.epochs
    now["dcm_batch"] = request.batch
    now["dcm_training"], now["dcm_validation"] = (
        round(100 * share) for share in (request.training, request.validation)
    )


def show(task: Task, study: Study[DcmRequest]) -> None:
    """The curve while the mask is learned, and what came of it."""
    studies.say_when(study)
    waiting.follow(study.job)
    request, job = study.request, study.job
    parts: list[Dcm] = job.parts
    if not job.future.done():
        _watch(request, job, len(parts))
    if not parts:
        return
    warn_of_chance([request.model], parts)
    part = _choose_part(request, parts)
    left, right = st.columns([1, 1.4], gap="large")
    with left:
        _show_outcome(task, request, part)
    with right:
        _show_picture(task, request, part)
    if len(parts) > 1:
        _show_penalties(request, parts, part)
    _show_curve(request, part.curve, part.validated.step)
    if part.heads:
        circuit = found_circuit(request, part, "mask")
        named = plain(f"{request.model}-{request.group}-{request.desideratum}")
        asked = Setting(request.model, request.prompts)
        show_saving(circuit, named, asked, "function", partial(_test_it, request))
    else:
        st.info("The mask keeps no head: there is no circuit to open.")


def _choose_part(request: DcmRequest, parts: list[Dcm]) -> Dcm:
    """The result of one λ: of several, at first of that which does best in the validation."""
    if len(parts) == 1:
        return parts[0]
    by_penalty = {part.penalty: part for part in parts}
    return by_penalty[
        st.segmented_control(
            "λ",
            [*by_penalty],
            default=best(parts).penalty,
            format_func="{:g}".format,
            key=f"dcm_shown_{len(parts)}",
            required=True,
        )
    ]


@st.fragment(run_every=1.0)
def _watch(request: DcmRequest, job: jobs.Job, n_done: int) -> None:
    """The curve so far of the mask that is being learned."""
    if job.future.done() or len(job.parts) != n_done:
        st.rerun()
    if job.state is not jobs.State.running:
        return
    if curve := curve_so_far(stored.unfinished(request, n_done)):
        _show_curve(request, curve, None)


def _show_curve(request: DcmRequest, curve: Curve, kept_at: int | None) -> None:
    n_heads = max(1, *(check.n_heads for check in curve.checks), _n_heads(request))
    checks = pd.DataFrame(
        [
            {
                "batch": check.step,
                "heads": check.n_heads,
                "share": check.accuracy.value,
                "low": check.accuracy.low,
                "high": check.accuracy.high,
                "n": check.accuracy.n,
            }
            for check in curve.checks
        ]
    )
    live = "live" if kept_at is None else "done"
    n_steps = request.n_steps
    for place, (name, chart, alt) in zip(
        st.columns(3, gap="medium"),
        (
            ("loss", loss_line(curve.losses, n_steps), "Loss by batch"),
            ("heads", heads_line(checks, n_heads, n_steps), "Heads kept by batch"),
            ("share", validation_line(checks, n_steps, kept_at), "Expected answers by batch"),
        ),
        strict=True,
    ):
        with place:
            show_chart(chart, origin_of("function", request), f"dcm_{name}_{live}", alt)
    st.caption(
        "Loss: −logit of the expected answer + λ × heads, of each batch. Heads kept, and the share "
        f"of expected answers with them in the validation ({curve.checks[0].accuracy.n} pairs, "
        "95 % Wilson): of the rounded mask."
        + ("" if kept_at is None else " The dot is the mask that is kept.")
    )


def _n_heads(request: DcmRequest) -> int:
    return len(request.circuit.heads(request.group)) if request.among is Among.group else 1


def _show_outcome(task: Task, request: DcmRequest, part: Dcm) -> None:
    label = unmarked(task.desideratum(request.desideratum).label.lower())
    n_kept = len(part.heads)
    st.markdown(f"##### {request.group}, {label}: {n_kept} of {len(part.mask)} heads are kept")
    above = part.above_nothing
    verdict = "carry" if part.is_carried else "do not clearly carry"
    st.markdown(
        f"{', '.join(map(str, part.heads))} **{verdict}** it: {signed(above.value)} "
        f"({signed(above.low)} to {signed(above.high)}) above nothing patched; chance is "
        f"{part.chance:.3f}."
        if n_kept
        else "No head helps: with nothing patched, as many answers are as expected."
    )
    random = part.random
    show_table(
        ("Patched, on test pairs", "Expected answer"),
        [
            (f"The heads kept\n{n_kept} heads", part.accuracy),
            (f"The whole group\n{len(request.circuit.heads(request.group))} heads", part.group),
            (f"Random heads\n{n_kept} heads, mean of draws", random or "no choice"),
            ("Nothing", part.nothing),
        ],
        origin_of("function", request),
        "dcm table",
    )
    differences = [("the whole group", part.above_group)]
    if part.above_random:
        differences.append(("random heads", part.above_random))
    st.caption(
        "Heads kept less "
        + "; less ".join(
            f"{words}: {signed(each.value)} ({signed(each.low)} to {signed(each.high)})"
            for words, each in differences
        )
        + f". {part.accuracy.n} test pairs that the mask has not seen; λ = {part.penalty:g}. "
        f"{unmarked(catalogue.label(request.model))}, "
        f"circuit “{unmarked(request.circuit.name)}”, {request.prompts}."
    )


def _show_penalties(request: DcmRequest, parts: list[Dcm], shown: Dcm) -> None:
    frame = pd.DataFrame(
        [
            {
                "penalty": part.penalty,
                "heads": len(part.heads),
                "share": part.accuracy.value,
                "low": part.accuracy.low,
                "high": part.accuracy.high,
                "n": part.accuracy.n,
            }
            for part in parts
        ]
    )
    st.markdown("##### How many heads for how much?")
    show_chart(
        penalty_chart(frame, shown.penalty),
        origin_of("function", request),
        "dcm_penalties",
        "Expected answers against heads kept, for each λ",
    )


def _show_picture(task: Task, request: DcmRequest, part: Dcm) -> None:
    """The circuit with the heads kept in their colours; the others are pale."""
    if not (shape := fitting.shape_of(request.model)):
        return
    whole = request.circuit
    kept = Circuit.of(task, {request.group: part.heads}, whole.name)
    rest = [key for key in whole.members if key not in kept.nodes]
    scores = scores_of(whole, whole.members)
    graph = circuit_graph(kept, shape, scores, extra=rest, added=rest)
    picture = circuit_picture(
        graph,
        circuit_layout(graph, shape, aspect=_ASPECT),
        outside_word="not kept by the mask",
        switchable=False,
    )
    circuit_component(picture, key="dcm_picture", height=_HEIGHT)
    origin = origin_of("function", request)
    what = f"heads kept {request.group} {request.desideratum}"
    show_control("dcm_picture", lambda: picture_files(picture, origin, what))


def _test_it(request: DcmRequest) -> None:
    """On the Circuit page, heads that are off give what they gave under the mask."""
    now = st.session_state
    now["model"], now["desideratum"] = request.model, request.desideratum
    now["reading"], now["mode"] = Reading.model, Mode.counterfactual
