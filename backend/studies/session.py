"""A model on its prompts, prepared once so that every click is cheap, for all sessions.

Importing this module imports torch: pages reach it from a background job.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from torch import Tensor, nn

from backend.core.errors import UserError
from backend.core.priority import unhurried
from backend.core.progress import Report
from backend.core.runtime import at_work
from backend.core.statistics import Estimate, mean_estimate
from backend.engine.activation_patching import CleanRun, clean_logits, patched_logits
from backend.engine.answers import Answers, read_answers
from backend.engine.architectures import dtype_of, shape_of, widths
from backend.engine.attention import AttentionMass, clean_with_attention
from backend.engine.logit_attribution import direct_contributions
from backend.engine.mean_ablation import (
    AblatedRun,
    circuit_logits,
    prepare_ablated_run,
    prepare_resampled_run,
    with_circuit,
    with_values,
)
from backend.engine.memory import bytes_in, bytes_of_prompt, check_fits, fits
from backend.engine.positions import (
    position_head_outputs,
    position_means,
    zero_head_outputs,
)
from backend.methods.cmap import compatible, read_alike
from backend.methods.reference_means import reference_means
from backend.methods.requests import N_REFERENCE
from backend.models import loaded_models
from backend.models.elsewhere import RemoteModel
from backend.models.loaded_models import load
from backend.models.loading import LoadedModel
from backend.models.prepared import PARTS, get, keep, keep_part, make_room, part
from backend.studies import remote
from backend.tasks.desiderata import Pairs
from backend.tasks.prompts import PromptSet
from backend.tasks.setting import Intervention, Mode, Reading, Setting

_SMALL = 1_000_000
_N_CLICKS = 20
"""So many of them are kept of a session that is prepared elsewhere, and takes little here."""
_PIECE = 90_000
"""Bytes of an answer that travel together; Ray takes 100 kB into its message."""


@dataclass(frozen=True, eq=False)
class Session:
    """What a page reads of a prepared model. whole: the answers of the model as it is."""

    setting: Setting
    loaded: LoadedModel | RemoteModel
    prompts: PromptSet
    whole: Answers
    attention: AttentionMass
    n_reference: int


@dataclass(frozen=True, eq=False)
class LocalSession(Session):
    """What is the same for every click: prompts, cached runs and means.

    ablated_run: with every head at its mean; means [n_layers, n, n_positions, n_heads, d_head].
    """

    loaded: LoadedModel
    clean: CleanRun
    ablated_run: AblatedRun
    means: Tensor


@dataclass(frozen=True, eq=False)
class RemoteSession(Session):
    """One that is prepared on a cluster, which answers for it."""

    loaded: RemoteModel

    def ask(self, what: str, *asked: Any, n_answers: int = 1) -> Any:
        """One question to the cluster, and its answer; see `backend.studies.questions`.

        n_answers: how often the size of `whole` it may have.
        """
        n_pieces = 1 + n_answers * bytes_in(self.whole) // _PIECE
        return remote.ask(self.setting, what, *asked, n_pieces=n_pieces)


def prepare(setting: Setting, report: Report) -> Session:
    """Load the model and run everything that does not depend on which heads are on; it is kept.

    For a model that is on the cluster, all that is done there. Waits until there is room for it.
    Raises UserError when the model cannot be loaded, its tokenizer does not fit the task, or there
    is not enough memory for so many prompts.
    """
    if remote.is_remote(setting.model):
        return _prepare_there(setting, report)
    return prepare_here(setting, report)


def _prepare_there(setting: Setting, report: Report) -> RemoteSession:
    loaded = remote.load(setting.model, report)
    prompts = setting.prompts.sample(loaded.tokenizer)
    found = remote.prepare(setting, report)
    if found.prompts != prompts.digest:
        raise UserError(
            f"This computer writes other prompts for “{setting.model}” than the cluster does. Copy "
            "the model’s files here and add it, or choose another model."
        )
    session = RemoteSession(
        setting, loaded, prompts, found.whole, found.attention, found.n_reference
    )
    room = int(_N_CLICKS / PARTS) * bytes_in(found.whole)
    keep(setting, session, bytes_of(session) + room, setting.model)
    return session


def prepare_here(setting: Setting, report: Report) -> LocalSession:
    """The same by this process."""
    report("Loading the model", 0.1)
    loaded = load(setting.model)
    report("Writing the prompts", 0.15)
    prompts = setting.prompts.sample(loaded.tokenizer)
    n, length = prompts.input_ids.shape
    size = loaded.model, n, length
    expected = bytes_expected(loaded.model, n, length, len(prompts.task.positions))
    with unhurried():
        make_room(expected, lambda: fits(*size), lambda said: report(said, 0.2))
    check_fits(*size)
    with at_work(loaded.runtime):
        session = _run(setting, loaded, prompts, report)
    keep(setting, session, bytes_of(session), setting.model)
    return session


def bytes_expected(model: nn.Module, n: int, length: int, n_positions: int) -> int:
    """What a session for `n` prompts of `length` tokens takes at most."""
    shape, itemsize = shape_of(model), dtype_of(model).itemsize
    kept, _ = bytes_of_prompt(model, length)
    heads = itemsize * shape.n_layers * shape.n_heads * shape.d_head
    d_model, _ = widths(model)
    rows = itemsize * (shape.n_layers + 1) * n_positions * d_model
    # Two runs, the residual stream after the last layer and where circuits start, means, token ids.
    of_prompt = (
        2 * kept + itemsize * length * d_model + rows + 2 * n_positions * heads + 64 * length
    )
    return n * of_prompt + length * heads + _SMALL


def bytes_of(session: Session) -> int:
    """What a session takes, without its model."""
    return bytes_in([getattr(session, f.name) for f in fields(session) if f.name != "loaded"])


def _run(setting: Setting, loaded: LoadedModel, prompts: PromptSet, report: Report) -> LocalSession:
    model, tokenizer = loaded.model, loaded.tokenizer
    reference = setting.prompts.reference(tokenizer, N_REFERENCE)
    what = f"Averaging head outputs over {N_REFERENCE} reference prompts"
    means = reference_means(
        loaded, reference, lambda done, total: report(what, 0.2 + 0.5 * done / total)
    )
    report("Running the prompts with everything knocked out", 0.7)
    ablated_run = prepare_ablated_run(model, prompts, means)
    report("Running the prompts as they are", 0.8)
    clean, attention = clean_with_attention(model, prompts)
    whole = read_answers([clean_logits(clean)], prompts)
    means = position_means(means, prompts)
    return LocalSession(
        setting, loaded, prompts, whole, attention, N_REFERENCE, clean, ablated_run, means
    )


@dataclass(frozen=True, eq=False)
class Alternate:
    """A session's prompts in pairs with those of a desideratum, and what heads give on these.

    values [n_layers, n, n_positions, n_heads, d_head], each prompt's at its own tokens; none where
    the session is on a cluster, which has them.
    """

    pairs: Pairs
    values: Tensor | None


def alternate(session: Session, desideratum: str) -> Alternate:
    """The alternate prompts of a desideratum, run when they are first asked for, and kept.

    Raises UserError when the tokenizer cannot write them, or the model cannot read them.
    """
    return part(
        session.setting,
        session,
        ("alternate", desideratum),
        lambda: _alternate(session, desideratum),
        bytes_in,
    )


def _alternate(session: Session, desideratum: str) -> Alternate:
    prompts = session.prompts
    drawn = prompts.task.desideratum(desideratum).draw(
        session.loaded.tokenizer, prompts, prompts.seed
    )
    if isinstance(session, RemoteSession):
        session.ask("alternate", desideratum)
        return Alternate(drawn, None)
    loaded = _here(session).loaded
    with at_work(loaded.runtime):
        return Alternate(drawn, position_head_outputs(loaded.model, drawn.alternate))


def prepare_source(session: Session, source: str) -> None:
    """Run another model on the session's prompts, where the session's model is; what its heads give
    is kept there.

    Raises UserError when they do not fit into the session's model.
    """
    if not isinstance(session, RemoteSession):
        source_values(_here(session), source)
        return
    files = loaded_models.fingerprint_of(source)
    part(
        session.setting,
        session,
        source,
        lambda: session.ask("source", source, files),
        bytes_in,
        frozenset({source}),
    )


def source_values(session: LocalSession, source: str) -> Tensor:
    """Another model's head outputs on the session's prompts.

    [n_layers, n, n_positions, n_heads, d_head]. Raises UserError when they do not fit into the
    session's model.
    """
    load(source)  # files that have changed are another model: what was kept of it goes
    return part(
        session.setting,
        session,
        source,
        lambda: _source_values(session, source),
        bytes_in,
        frozenset({source}),
    )


def _source_values(session: LocalSession, source: str) -> Tensor:
    other = load(source)
    pair = other, session.loaded
    if reason := compatible(*pair) or read_alike(*pair, session.prompts):
        raise UserError(f"{reason} Choose a source of the same shape and tokenizer, loaded alike.")
    with at_work(other.runtime):
        return position_head_outputs(other.model, session.prompts)


def prepare_mode(session: Session, reading: Reading, mode: Mode) -> None:
    """Make what heads need that are knocked out by this mode, if it is not there."""
    if isinstance(session, RemoteSession):
        asked = "mode", reading, mode
        part(session.setting, session, asked, lambda: session.ask(*asked), bytes_in)
    elif reading is Reading.circuit:
        ablated_run(_here(session), mode)
    else:
        _own_values(_here(session), mode)


def ablated_run(session: LocalSession, mode: Mode) -> AblatedRun:
    """The run of the session's prompts with every head knocked out by this mode.

    That of means is there, as is what stands around heads of another model or of an alternate
    prompt; others are made when they are first asked for, and kept.
    """
    if mode in (Mode.mean, Mode.other):
        return session.ablated_run
    return part(session.setting, session, mode, lambda: _ablated_run(session, mode), bytes_in)


def _ablated_run(session: LocalSession, mode: Mode) -> AblatedRun:
    model, prompts = session.loaded.model, session.prompts
    with at_work(session.loaded.runtime):
        if mode is Mode.zero:
            return prepare_ablated_run(model, prompts, zero_head_outputs(model, prompts))
        other = prompts.task.counterfactual(session.loaded.tokenizer, prompts)
        return prepare_resampled_run(model, prompts, other)


def head_contributions(session: Session) -> tuple[tuple[Estimate, ...], ...]:
    """What each head adds directly to the logit difference of the session's prompts, by layer.

    In the untouched model, in logits; read when it is first asked for, and kept. Raises UserError
    for a model that cannot be taken apart.
    """
    return part(
        session.setting,
        session,
        "contributions",
        lambda: _head_contributions(session),
        bytes_in,
    )


def _head_contributions(session: Session) -> tuple[tuple[Estimate, ...], ...]:
    if isinstance(session, RemoteSession):
        there: tuple[tuple[Estimate, ...], ...] = session.ask("contributions")
        return there
    loaded = _here(session).loaded
    with at_work(loaded.runtime):
        heads = direct_contributions(loaded.model, session.prompts).heads.numpy()
    return tuple(tuple(map(mean_estimate, layer)) for layer in heads.transpose(1, 2, 0))


def answers(session: Session, intervention: Intervention) -> Answers:
    """The answers with the heads switched as the intervention says; the last ones are kept."""
    return read(session, intervention)[0]


def expected_answers(session: Session, intervention: Intervention) -> Answers:
    """The same answers beside what the intervention's desideratum expects: that is right here.

    Logit differences are none, as what is expected need not be among the choices.
    """
    return read(session, intervention)[1]


def read(session: Session, intervention: Intervention) -> tuple[Answers, ...]:
    """The answers, and beside them those that a desideratum expects, if there is one."""
    source = intervention.source
    return part(
        session.setting,
        session,
        intervention,
        lambda: _answers(session, intervention),
        bytes_in,
        frozenset({source} if source else ()),
    )


def _answers(session: Session, intervention: Intervention) -> tuple[Answers, ...]:
    if isinstance(session, RemoteSession):
        there: tuple[Answers, ...] = session.ask(
            "answers", intervention, n_answers=2 if intervention.desideratum else 1
        )
        return there
    return _answers_here(_here(session), intervention)


def _answers_here(session: LocalSession, intervention: Intervention) -> tuple[Answers, ...]:
    beside, others = [session.prompts], None
    if intervention.desideratum is not None:
        found = alternate(session, intervention.desideratum)
        others, expected = found.values, found.pairs.expected_ids
        beside.append(replace(session.prompts, answer_ids=expected))
    elif intervention.source is not None:
        others = source_values(session, intervention.source)
    with at_work(session.loaded.runtime):
        logits = _logits(session, intervention, others)
        return tuple(read_answers([logits], prompts) for prompts in beside)


def _own_values(session: LocalSession, mode: Mode) -> Tensor:
    """What replaces a head by this mode: [n_layers, n, n_positions, n_heads, d_head].

    Those of the counterfactual are made when they are first asked for, and kept.
    """
    if mode is Mode.mean:
        return session.means
    if mode is Mode.zero:
        return session.means.new_zeros(()).expand_as(session.means)
    return part(
        session.setting, session, "counterfactual", lambda: _counterfactual(session), bytes_in
    )


def _counterfactual(session: LocalSession) -> Tensor:
    loaded, prompts = session.loaded, session.prompts
    with at_work(loaded.runtime):
        other = prompts.task.counterfactual(loaded.tokenizer, prompts)
        return position_head_outputs(loaded.model, other)


def _logits(session: LocalSession, intervention: Intervention, others: Tensor | None) -> Tensor:
    """others: what heads give that take another model's values, or an alternate prompt's."""
    if intervention.reading is Reading.model:
        values = _own_values(session, intervention.mode) if others is None else others
        return patched_logits(session.clean, intervention.off, values)
    # A head that is off says what another model or prompt does, and must be alone in that.
    mode = intervention.mode if others is None else Mode.mean
    run = _last_run(session, mode)
    if others is not None:
        return circuit_logits(with_values(run, intervention.off, others), intervention.on)
    run = with_circuit(run, intervention.on)
    # With the mean it shares all but where it starts with the session.
    shared = bytes_in(session.ablated_run) if mode is Mode.mean else 0
    n_bytes = bytes_in([session.ablated_run, run] if shared else run) - shared
    keep_part(session.setting, session, ("last run", mode), run, n_bytes)
    return circuit_logits(run, intervention.on)


def _here(session: Session) -> LocalSession:
    assert isinstance(session, LocalSession)
    return session


def _last_run(session: LocalSession, mode: Mode) -> AblatedRun:
    """The run of the circuit that was asked last: a click starts where it differs from that."""
    kept: AblatedRun | None = get((session.setting, ("last run", mode)))
    if kept is not None and kept.model is session.loaded.model:
        return kept
    return ablated_run(session, mode)
