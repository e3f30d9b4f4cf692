"""A model on its prompts, prepared once so that every click is cheap.

Importing this module imports torch: pages reach it from a background job.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from backend.attention import AttentionMass, attention_mass
from backend.clicks import CleanRun, clean_logits, patched_logits, prepare_clean
from backend.cmap import compatible
from backend.compare import N_REFERENCE
from backend.errors import UserError
from backend.faithfulness import Backdrop, circuit_logits, prepare_backdrop, with_values
from backend.fingerprints import Fingerprint, fingerprint
from backend.jobs import Report
from backend.loading import LoadedModel, load_model
from backend.measures import Answers, read_answers
from backend.setting import Intervention, Mode, Reading, Setting
from backend.tasks import PromptSet, counterfactual_prompts, reference_prompts, sample_prompts
from backend.vital import mean_head_outputs, vital_head_outputs, vital_means

_N_ATTENTION = 100
_TINY = 10_000_000


def load(name: str) -> LoadedModel:
    """`load_model`, keeping the last four, with as many threads as serve the model best.

    A model whose files have changed is loaded again.
    """
    return _loaded(name, fingerprint(name))


@lru_cache(maxsize=4)
def _loaded(name: str, _: Fingerprint | None) -> LoadedModel:
    loaded = load_model(name)
    torch.set_num_threads(_threads(loaded.model))
    return loaded


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
    model, tokenizer = loaded.model, loaded.tokenizer
    report("Writing the prompts", 0.4)
    prompts = sample_prompts(tokenizer, setting.n, setting.boxes, setting.seed)
    reference = reference_prompts(tokenizer, N_REFERENCE, setting.boxes, setting.seed)
    report(f"Averaging head outputs over {N_REFERENCE} reference prompts", 0.45)
    means = mean_head_outputs(model, reference)
    report("Running the counterfactual prompts", 0.6)
    counterfactual = vital_head_outputs(model, counterfactual_prompts(tokenizer, prompts))
    report("Running the prompts with everything knocked out", 0.7)
    backdrop = prepare_backdrop(model, prompts, means)
    report("Running the prompts as they are", 0.8)
    clean = prepare_clean(model, prompts)
    whole = _read(clean_logits(clean), prompts)
    report("Reading attention patterns", 0.9)
    attention = attention_mass(
        model, sample_prompts(tokenizer, _N_ATTENTION, setting.boxes, setting.seed)
    )
    values = {Mode.mean: vital_means(means, prompts), Mode.counterfactual: counterfactual}
    return Bench(setting, loaded, prompts, clean, backdrop, values, whole, attention, N_REFERENCE)


@lru_cache(maxsize=4)
def source_values(bench: Bench, source: str) -> Tensor:
    """Another model's head outputs on the bench's prompts: [n_layers, n, 3, n_heads, d_head].

    Raises UserError when they do not fit into the bench's model.
    """
    other = load(source)
    if reason := compatible(other, bench.loaded):
        raise UserError(f"{reason} Choose a source of the same shape and tokenizer.")
    return vital_head_outputs(other.model, bench.prompts)


@lru_cache(maxsize=32)
def answers(bench: Bench, intervention: Intervention) -> Answers:
    """The answers with the heads switched as the intervention says."""
    if intervention.source is None:
        values = bench.values[intervention.mode]
    else:
        values = source_values(bench, intervention.source)
    if intervention.reading is Reading.model:
        return _read(patched_logits(bench.clean, intervention.off, values), bench.prompts)
    backdrop = bench.backdrop
    if intervention.mode is not Mode.mean:
        backdrop = with_values(backdrop, intervention.off, values)
    return _read(circuit_logits(backdrop, intervention.on), bench.prompts)


def _threads(model: nn.Module) -> int:
    """On tensors as small as a tiny model's, threads cost more than they bring."""
    n_parameters = sum(weight.numel() for weight in model.parameters())
    return 1 if n_parameters < _TINY else os.cpu_count() or 1


def _read(logits: Tensor, prompts: PromptSet) -> Answers:
    return read_answers(logits.double().cpu().numpy(), prompts)
