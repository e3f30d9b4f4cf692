"""Long work on the page: how far it is, a way to cancel it, and what became of it."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from concurrent.futures import wait
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from weakref import ref

import streamlit as st

from backend.cluster.host import Unreachable
from backend.core.errors import explained
from backend.core.progress import Cancelled, Report
from backend.models import catalogue, loaded_models, prepared
from backend.studies import jobs
from backend.studies.device_locks import Notice
from backend.tasks.prompts import Prompts
from backend.tasks.setting import Intervention, Mode, Reading, Setting
from shell.frame.visitors import spend_a_preparation, visitor
from shell.frame.words import unmarked

if TYPE_CHECKING:
    from backend.studies.session import Session

_PATIENCE_S = 2.0


def bench_for(setting: Setting) -> Session:
    """The prepared session; while it is not there, a panel stands in for the rest of the page."""
    while not ((session := prepared.get(setting)) and loaded_models.is_current(session.loaded)):
        if (known := jobs.known(setting)) and known.state is jobs.State.finished:
            jobs.forget(setting)  # what it prepared has made room for others, or is another model
        if not jobs.known(setting):
            spend_a_preparation()
        _result(setting, preparation(setting))
    st.session_state["painted"] = True
    found: Session = session
    return found


def preparation(setting: Setting) -> jobs.Job:
    """The job that prepares a setting: the one that runs or has ended, or a new one."""
    return jobs.job(
        setting,
        lambda report: _prepare(setting, report),
        kind=jobs.PREPARATION,
        who=visitor(),
    )


def wait_for_source(session: Session, source: str) -> None:
    """Come back when the other model's values for this session are there, in the same way."""
    of = ref(session)  # a job is kept for longer than its session
    if (known := loaded_models.loaded().get(source)) and not loaded_models.is_current(known):
        jobs.forget((of, source))
    _result_of((of, source), lambda report: _run_source(of, source, report), jobs.QUICK)


def wait_for_mode(session: Session, reading: Reading, mode: Mode) -> None:
    """Come back when what replaces heads by this mode is there, in the same way."""
    of = ref(session)
    _result_of((of, reading, mode), lambda report: _run_mode(of, reading, mode, report), jobs.QUICK)


def wait_for_alternate(session: Session, desideratum: str) -> None:
    """Come back when the alternate prompts of a desideratum are run, in the same way."""
    of = ref(session)
    _result_of(
        (of, "alternate", desideratum),
        lambda report: _run_alternate(of, desideratum, report),
        jobs.QUICK,
    )


def wait_for_contributions(session: Session) -> None:
    """Come back when it is known what heads add to the logits directly, in the same way."""
    of = ref(session)
    _result_of((of, "contributions"), lambda report: _run_contributions(of, report), jobs.QUICK)


def wait_for_patterns(
    model: str, prompts: Prompts, number: int, switched: Intervention | None
) -> None:
    """Come back when the attention of a model on one prompt is there, in the same way.

    Raises UserError for a name that cannot be a model's.
    """
    files = loaded_models.fingerprint_of(model, patiently=False)
    asked = model, prompts, number, switched
    _result_of(
        ("patterns", files, *asked),
        lambda report: _run_patterns(*asked, report),
        jobs.QUICK if loaded_models.loaded_anywhere(model) else jobs.PREPARATION,
    )


def wait_for_model(model: str, prompts: Prompts) -> None:
    """Come back when a model is loaded, and what its heads give on reference prompts is known, in
    the same way.

    Raises UserError for a name that cannot be a model's.
    """
    files = loaded_models.fingerprint_of(model, patiently=False)
    asked = model, replace(prompts, n=1)
    key = "written", files, *asked
    is_loaded = model in loaded_models.loaded()
    if (known := jobs.known(key)) and known.state is jobs.State.finished and not is_loaded:
        jobs.forget(key)  # the model has made room for others
    _result_of(
        key,
        lambda report: _run_written(*asked, report),
        jobs.QUICK if is_loaded else jobs.PREPARATION,
    )


@contextmanager
def memory_permitting() -> Iterator[None]:
    """Say so, and draw no more of the page, when the memory is full (torch's RuntimeError), or the
    cluster that has the model does not answer."""
    try:
        yield
    except (RuntimeError, Unreachable) as error:
        st.error(unmarked(explained(error)))
        st.button("Try again")
        st.stop()


def _result_of(key: Hashable, work: jobs.Work, kind: jobs.Kind) -> Any:
    if kind is jobs.PREPARATION and not jobs.known(key):
        spend_a_preparation()
    return _result(key, jobs.job(key, work, kind=kind, who=visitor()))


def _result(key: Hashable, running: jobs.Job) -> Any:
    # Once something is on screen it may stay a moment longer: a quick change does not flicker.
    wait([running.future], timeout=_PATIENCE_S if st.session_state.get("painted") else 0)
    st.session_state["painted"] = True
    follow(running)
    if not running.parts:
        if running.future.done():
            st.button("Try again", on_click=jobs.forget, args=(key,))
        st.stop()
    return running.parts[0]


def follow(running: jobs.Job) -> None:
    """Show how far a job is, or why it ended early; nothing once it is done."""
    # A place of its own: what comes after it is not drawn anew when it vanishes.
    with st.container():
        if running.future.done():
            _say_why_it_ended_early(running)
        else:
            _progress(running, len(running.parts))


def _say_why_it_ended_early(ended: jobs.Job) -> None:
    if ended.state is jobs.State.cancelled:
        st.info(unmarked(how_it_ended(ended)))
    elif ended.state is jobs.State.failed:
        st.error(unmarked(how_it_ended(ended)))


def what_now(running: jobs.Job) -> str:
    """The step that it is at, what it lets go first, or which jobs it waits for."""
    if running.state is not jobs.State.queued:
        held = " Held: a page that someone is waiting for goes first." if running.is_held else ""
        return f"{running.stage} …{held}"
    before = jobs.before(running)
    if not before:
        return "Starting …"
    n_before, first = len(before), f", first for “{before[0].title}”" if before[0].title else ""
    return f"Waiting for {n_before} {'job' if n_before == 1 else 'jobs'} before it{first} …"


def how_long(running: jobs.Job | Notice) -> str:
    """How long it has been running, and an estimate of what is left."""
    left = running.seconds_left
    estimate = "" if left is None else f", about {duration(left)} to go"
    return f"{duration(running.seconds)} so far{estimate}"


def duration(seconds: float) -> str:
    """Seconds as people say them: 40 s, 5 min, 2 h 10 min."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def how_it_ended(ended: jobs.Job) -> str:
    """What became of it, and what to do next if that is not the result."""
    error = ended.future.exception()
    if error is None:
        return f"Finished in {duration(ended.seconds)}."
    if isinstance(error, Cancelled):
        kept = " What was finished is kept." if ended.kind is jobs.LONG and ended.seconds else ""
        return f"Cancelled.{kept} Start again, or change the settings."
    return explained(error)


def _prepare(setting: Setting, report: Report) -> Iterator[Setting]:
    from backend.studies.session import prepare

    prepare(setting, report)
    yield setting


def _run_source(of: ref[Session], source: str, report: Report) -> Iterator[str]:
    report(f"Running {catalogue.label(source)} on the same prompts", 0.1)
    from backend.studies.session import prepare_source

    if session := of():
        prepare_source(session, source)
    yield source


def _run_mode(of: ref[Session], reading: Reading, mode: Mode, report: Report) -> Iterator[Mode]:
    report("Running what replaces the heads", 0.1)
    from backend.studies.session import prepare_mode

    if session := of():
        prepare_mode(session, reading, mode)
    yield mode


def _run_alternate(of: ref[Session], desideratum: str, report: Report) -> Iterator[str]:
    report("Running the alternate prompts", 0.1)
    from backend.studies.session import alternate

    if session := of():
        alternate(session, desideratum)
    yield desideratum


def _run_contributions(of: ref[Session], report: Report) -> Iterator[bool]:
    report("Splitting the logits into what each head adds", 0.1)
    from backend.studies.session import head_contributions

    if session := of():
        head_contributions(session)
    yield True


def _run_written(model: str, prompts: Prompts, report: Report) -> Iterator[bool]:
    report(f"Loading {catalogue.label(model)}", 0.1)
    from backend.studies.written import prepare

    prepare(model, prompts, report)
    yield True


def _run_patterns(
    model: str, prompts: Prompts, number: int, switched: Intervention | None, report: Report
) -> Iterator[bool]:
    report(f"Loading {catalogue.label(model)} and reading its attention", 0.1)
    from backend.studies.patterns import patterns

    patterns(model, prompts, number, switched)
    yield True


@st.fragment(run_every=1.0)
def _progress(running: jobs.Job, n_parts: int) -> None:
    if running.future.done() or len(running.parts) != n_parts:
        st.rerun()
    with st.container(border=True):
        st.markdown(f"#### {unmarked(what_now(running))}")
        if running.state is jobs.State.running:
            st.progress(running.share, how_long(running))
        st.button("Cancel", key=f"cancel {id(running)}", on_click=running.cancel)
