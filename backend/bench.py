"""A model on its prompts, prepared once so that every click is cheap.

Importing this module imports torch: pages reach it from a background job.
"""

from __future__ import annotations

from dataclasses import dataclass
from weakref import ref

from torch import Tensor

from backend.answers import Answers, read_answers
from backend.attention import AttentionMass, attention_mass
from backend.clicks import CleanRun, clean_logits, patched_logits, prepare_clean
from backend.cmap import compatible
from backend.compare import N_REFERENCE, examine
from backend.errors import UserError
from backend.faithfulness import Backdrop, circuit_logits, prepare_backdrop, with_values
from backend.jobs import Report
from backend.loading import LoadedModel
from backend.memory import check_fits
from backend.runtime import at_work
from backend.setting import Intervention, Mode, Reading, Setting
from backend.shelf import load, until_unload
from backend.subject import Subject
from backend.tasks import PromptSet, counterfactual_prompts, reference_prompts, sample_prompts
from backend.vital import mean_head_outputs, vital_head_outputs, vital_means

_N_ATTENTION = 100


@dataclass(frozen=True, eq=False)
class Bench:
    """What is the same for every click: prompts, cached runs and the values to patch with.

    values: what replaces a head, by mode: [n_layers, n, 3, n_heads, d_head] at the vital tokens.
    whole: the answers of the model as it is.
    """

    setting: Setting
    loaded: LoadedModel
    prompts: PromptSet
    clean: CleanRun
    backdrop: Backdrop
    values: dict[Mode, Tensor]
    whole: Answers
    attention: AttentionMass
    n_reference: int


def prepare(setting: Setting, report: Report) -> Bench:
    """Load the model and run everything that does not depend on which heads are on.

    Raises UserError when the model cannot be loaded or its tokenizer does not fit the task.
    """
    report("Loading the model", 0.1)
    loaded = load(setting.model)
    with at_work(loaded.runtime):
        return _prepared(setting, loaded, report)


def _prepared(setting: Setting, loaded: LoadedModel, report: Report) -> Bench:
    model, tokenizer = loaded.model, loaded.tokenizer
    report("Writing the prompts", 0.4)
    prompts = sample_prompts(tokenizer, setting.n, setting.boxes, setting.seed)
    reference = reference_prompts(tokenizer, N_REFERENCE, setting.boxes, setting.seed)
    check_fits(model, *prompts.input_ids.shape)
    report(f"Averaging head outputs over {N_REFERENCE} reference prompts", 0.45)
    means = mean_head_outputs(model, reference)
    report("Running the counterfactual prompts", 0.6)
    counterfactual = vital_head_outputs(model, counterfactual_prompts(tokenizer, prompts))
    report("Running the prompts with everything knocked out", 0.7)
    backdrop = prepare_backdrop(model, prompts, means)
    report("Running the prompts as they are", 0.8)
    clean = prepare_clean(model, prompts)
    whole = read_answers([clean_logits(clean)], prompts)
    report("Reading attention patterns", 0.9)
    attention = attention_mass(
        model, sample_prompts(tokenizer, _N_ATTENTION, setting.boxes, setting.seed)
    )
    values = {Mode.mean: vital_means(means, prompts), Mode.counterfactual: counterfactual}
    return Bench(setting, loaded, prompts, clean, backdrop, values, whole, attention, N_REFERENCE)


def source_values(bench: Bench, source: str) -> Tensor:
    """Another model's head outputs on the bench's prompts: [n_layers, n, 3, n_heads, d_head].

    Raises UserError when they do not fit into the bench's model.
    """
    return _source_values(ref(bench), source)


@until_unload(maxsize=4)
def _source_values(of: ref[Bench], source: str) -> Tensor:
    bench = _still_there(of)
    other = load(source)
    if reason := compatible(other, bench.loaded):
        raise UserError(f"{reason} Choose a source of the same shape and tokenizer, loaded alike.")
    with at_work(other.runtime):
        return vital_head_outputs(other.model, bench.prompts)


def answers(bench: Bench, intervention: Intervention) -> Answers:
    """The answers with the heads switched as the intervention says; the last ones are kept."""
    return _answers(ref(bench), intervention)


@until_unload(maxsize=32)
def _answers(of: ref[Bench], intervention: Intervention) -> Answers:
    bench = _still_there(of)
    if intervention.source is None:
        values = bench.values[intervention.mode]
    else:
        values = source_values(bench, intervention.source)
    with at_work(bench.loaded.runtime):
        return read_answers([_logits(bench, intervention, values)], bench.prompts)


def _logits(bench: Bench, intervention: Intervention, values: Tensor) -> Tensor:
    if intervention.reading is Reading.model:
        return patched_logits(bench.clean, intervention.off, values)
    backdrop = bench.backdrop
    if intervention.mode is not Mode.mean:
        backdrop = with_values(backdrop, intervention.off, values)
    return circuit_logits(backdrop, intervention.on)


@until_unload(maxsize=2)
def subject(model: str, n: int, boxes: int, seed: int) -> Subject:
    """The model under examination; a pair is kept, so that one more question costs little."""
    return examine(load(model), n, boxes, seed)


def _still_there(of: ref[Bench]) -> Bench:
    """What is cached of a bench does not keep it in memory; whoever asks does."""
    bench = of()
    assert bench
    return bench
