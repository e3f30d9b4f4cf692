"""What `backend` offers to programs: a model, prompts of a task, and what is asked of them.

`backend` re-exports what is here; README lists it. Models and prompts go in, and tensors, answers,
estimates and circuits come out: nothing is stored. Everything below may change.

Head outputs are [n_layers, n, n_positions, n_heads, d_head], at the positions of the task, and are
what a head gives before the output projection (TransformerLens' `z`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from backend.core.components import Component
from backend.core.errors import UserError
from backend.core.heads import Head, Site, check_sites
from backend.core.metrics import Ablation, Score
from backend.core.placement import AUTO, Dtype, Placement
from backend.core.progress import Progress, silent
from backend.core.runtime import at_work
from backend.core.statistics import Estimate, wilson
from backend.engine.activation_patching import patched_logits, prepare_clean
from backend.engine.answers import Answers, read_answers
from backend.engine.copying import CopyingRanks, copying_ranks, words_in
from backend.engine.logit_attribution import Contributions, direct_contributions
from backend.engine.logit_lens import LensReading, lens_reading
from backend.engine.memory import memory_errors_explained, prompt_batches
from backend.engine.path_patching.attribution_patching import attribution_scores
from backend.engine.path_patching.run_pairs import RunPairs
from backend.engine.path_patching.scores import path_patching_scores
from backend.engine.positions import mean_head_outputs, position_head_outputs, position_means
from backend.methods import cmap as transplants
from backend.methods import discovery
from backend.methods import functions as group_functions
from backend.methods.answering import whole_answers
from backend.methods.cmap import Cmap
from backend.methods.evaluation import Evaluation
from backend.methods.faithfulness import faithfulness_report
from backend.methods.functions import Functions
from backend.methods.requests import N_REFERENCE
from backend.methods.stages import Criteria
from backend.models import catalogue
from backend.models.loading import LoadedModel, load_model, model_of_ones_own
from backend.tasks.circuit import Circuit
from backend.tasks.prompts import N_PROMPTS, Prompts, PromptSet, select
from backend.tasks.registry import task_named
from backend.tasks.task import Task


def load(
    model: str | Path | nn.Module,
    tokenizer: Any = None,
    *,
    name: str = "model",
    device: str = AUTO,
    dtype: str = Dtype.float32.name,
) -> LoadedModel:
    """A model ready to run: one that is known by name, a folder, a hub name, or an object.

    An object comes with its tokenizer, gets a `name`, and stays where it is, in its own numbers; it
    is put into evaluation mode. Raises UserError when it cannot be loaded or is not of a kind that
    the engine knows.
    """
    if isinstance(model, nn.Module):
        return model_of_ones_own(name, model, tokenizer)
    if tokenizer is not None:
        raise UserError("A model that is loaded brings its own tokenizer. Give the name alone.")
    if dtype not in Dtype.__members__:
        raise UserError(
            f"There are no numbers “{dtype}”. Choose one of {', '.join(Dtype.__members__)}."
        )
    return load_model(str(model), Placement(device, Dtype[dtype]))


def load_circuit(name: str | Path) -> Circuit:
    """The circuit that is known by this name (`base` is the bundled one), or in this file.

    Raises UserError when there is none, or its file is malformed.
    """
    known = catalogue.circuits().get(str(name))
    return catalogue.read_circuit(known or Path(name))


def sample(
    model: LoadedModel, task: Task | str, n: int = N_PROMPTS, seed: int = 0, **options: int
) -> PromptSet:
    """`n` prompts of a task, in words that the model's tokenizer writes as one token.

    `options` are the task's own, by name. Raises UserError for what the task
    does not have.
    """
    task = task_named(task) if isinstance(task, str) else task
    known = {option.name: option.default for option in task.options}
    if unknown := options.keys() - known.keys():
        raise UserError(
            f"{task.title} has no option “{min(unknown)}”. Choose of {', '.join(known) or 'none'}."
        )
    return Prompts(task, n, seed, tuple((known | options).values())).sample(model.tokenizer)


def counterfactual(model: LoadedModel, prompts: PromptSet) -> PromptSet:
    """For each prompt the one with another answer that activation and path patching patch from."""
    return prompts.task.counterfactual(model.tokenizer, prompts)


def reference(model: LoadedModel, prompts: PromptSet, n: int = N_REFERENCE) -> PromptSet:
    """`n` other prompts, over which heads are averaged that are knocked out by their mean."""
    return prompts.task.reference(model.tokenizer, n, prompts.seed, *prompts.options)


def answers(model: LoadedModel, prompts: PromptSet) -> Answers:
    """What the model answers."""
    return whole_answers(model, prompts)


def record_heads(model: LoadedModel, prompts: PromptSet) -> Tensor:
    """Head outputs at the task's positions: [n_layers, n, n_positions, n_heads, d_head]."""
    with at_work(model.runtime):
        return position_head_outputs(model.model, prompts)


def patch(
    model: LoadedModel, prompts: PromptSet, sites: Collection[Site], values: Tensor
) -> Answers:
    """What the model answers when some heads give other values at their positions.

    `values` [n_layers, n, n_positions, n_heads, d_head], such as `record_heads` of the
    `counterfactual`; everything else is computed (activation patching). Raises UserError for heads
    that the model does not have.
    """
    check_sites(sites, model.shape, model.name)

    def logits(some: PromptSet, rows: slice) -> Tensor:
        return patched_logits(prepare_clean(model.model, some), sites, values[:, rows])

    return _answers(model, prompts, logits)


def ablate(
    model: LoadedModel,
    prompts: PromptSet,
    sites: Collection[Site],
    ablation: Ablation | str = Ablation.mean,
) -> Answers:
    """What the model answers when some heads are knocked out at their positions.

    By their mean over `reference` prompts, by zero, or by what they give in the `counterfactual`
    (`resample`). Raises UserError for heads that the model does not have.
    """
    with at_work(model.runtime):
        values = _ablated_values(model, prompts, Ablation(ablation))
    return patch(model, prompts, sites, values)


def path_patch(
    model: LoadedModel,
    prompts: PromptSet,
    group: str,
    receivers: Collection[Head] = (),
    score: Score | str = Score.probability,
) -> Tensor:
    """What every head sends to the receivers, as a change of the answer: [n, n_layers, n_heads].

    `group` is the key of the group that the senders would be in; `receivers` are heads of those
    that it writes into, and none if it writes into the logits. Negative where a head matters (Wang
    et al., 2023; Prakash et al., 2024). Raises UserError for a group that the task does not have.
    """
    _check_group(prompts.task, group)
    other = counterfactual(model, prompts)
    with at_work(model.runtime):
        return path_patching_scores(
            model.model, prompts, other, group, receivers, score=Score(score)
        )


def attribution_patch(
    model: LoadedModel,
    prompts: PromptSet,
    group: str,
    receivers: Collection[Head] = (),
    score: Score | str = Score.probability,
    steps: int = 0,
) -> Tensor:
    """What `path_patch` gives, estimated for all heads at once: [n, n_layers, n_heads].

    To first order at the clean run, or with gradients integrated over so many `steps`; not exact
    (Nanda, 2023; Syed et al., 2023; Hanna et al., 2024). Raises UserError for a group that the task
    does not have.
    """
    _check_group(prompts.task, group)
    other = counterfactual(model, prompts)
    with at_work(model.runtime):
        return attribution_scores(
            model.model, prompts, other, group, receivers, Score(score), steps
        )


def logit_attribution(model: LoadedModel, prompts: PromptSet) -> Contributions:
    """What each head, each MLP and the embedding add to the logit difference at the last token.

    In logits, by prompt, with the scale of the final norm held at what it is there (direct logit
    attribution). Raises UserError for a model that cannot be taken apart.
    """
    with at_work(model.runtime):
        return direct_contributions(model.model, prompts)


def logit_lens(model: LoadedModel, prompts: PromptSet) -> LensReading:
    """The right answer and its competitors, read off every layer at the task's positions.

    By prompt, position and layer, the embedding first. Raises UserError for a model that cannot be
    taken apart.
    """
    tokens = np.stack([prompts.positions[name] for name in prompts.task.position_names], 1)
    with at_work(model.runtime):
        return lens_reading(model.model, prompts, tokens)


def copying(model: LoadedModel, prompts: PromptSet) -> CopyingRanks:
    """Where each answer's word stands in what every head makes of it, by layer, head and word.

    The share within the first five is the copying score (Wang et al., 2023). Raises UserError for a
    model that cannot be taken apart, and where no answer stands in its prompt.
    """
    with at_work(model.runtime):
        return copying_ranks(model.model, prompts, words_in(prompts))


def discover(
    model: LoadedModel,
    prompts: PromptSet,
    criteria: Criteria = Criteria(),  # noqa: B008  # frozen
    name: str = "found",
    progress: Progress = silent,
) -> Circuit:
    """The task's circuit in a model, by path patching group by group on what it answers right.

    Scores, their standard errors and receivers are in the circuit's provenance. Raises UserError
    when the model answers none of the prompts right.
    """
    right = select(prompts, answers(model, prompts).correct)
    if not len(right):
        raise UserError(
            f"{model.name} answers none of {len(prompts)} prompts right. Choose more or easier "
            "prompts, or a model that does the task."
        )
    pairs = RunPairs(model.model, right, counterfactual(model, right))
    with at_work(model.runtime):
        found = discovery.discover(pairs, criteria, progress)
    about = {
        "model": model.name,
        "method": "path patching on correctly answered prompts",
        "seed": prompts.seed,
    }
    return found.circuit(criteria, name, about)


def circuit_accuracy(
    model: LoadedModel,
    prompts: PromptSet,
    circuit: Circuit,
    ablation: Ablation | str = Ablation.mean,
) -> Estimate:
    """How often the circuit alone answers right, every other head ablated at every token.

    Raises UserError when it has heads that the model does not have.
    """
    circuit.check(model.shape, model.name)
    return wilson(_evaluation(model, prompts, ablation).circuit_only([circuit.sites])[0])


def faithfulness(
    model: LoadedModel,
    prompts: PromptSet,
    circuit: Circuit,
    ablation: Ablation | str = Ablation.mean,
) -> Estimate:
    """`circuit_accuracy` over the accuracy of the model (Prakash et al., circuit evaluation).

    Undefined (NaN) where the model is not above chance. Raises UserError when the circuit has heads
    that the model does not have.
    """
    return faithfulness_report(_evaluation(model, prompts, ablation), circuit).faithfulness


def cmap(
    source: LoadedModel,
    target: LoadedModel,
    prompts: PromptSet,
    sets: Circuit | Mapping[str, Collection[Site]],
    component: Component | str = Component.output,
) -> Cmap:
    """Cross-model activation patching: heads of the source in the target, set by set.

    Of a circuit, the sets are its groups, none and all. `component` is `output`, `q`, `k` or `v`.
    Raises UserError when the models do not fit together.
    """
    component = Component[component] if isinstance(component, str) else component
    if isinstance(sets, Circuit):
        sets.check(target.shape, target.name)
        sets = transplants.group_sets(sets)
    ours, theirs = _evaluation(source, prompts), _evaluation(target, prompts)
    return transplants.cmap(ours, theirs, sets, component)


def functions(
    model: LoadedModel, prompts: PromptSet, circuit: Circuit, desideratum: str
) -> Functions:
    """What each group of the circuit carries, by a desideratum of the task.

    Raises UserError for one that the task does not have or the tokenizer cannot write, and when
    the circuit has heads that the model does not have.
    """
    known = {each.name: each for each in prompts.task.desiderata}
    if desideratum not in known:
        names = ", ".join(known) or "another task: it has none"
        raise UserError(f"There is no desideratum “{desideratum}”. Choose {names}.")
    found = group_functions.functions(_evaluation(model, prompts), circuit, known[desideratum])
    if found.reason:
        raise UserError(found.reason)
    return found


def _check_group(task: Task, group: str) -> None:
    if group not in task.keys:
        keys = ", ".join(task.keys)
        raise UserError(f"{task.title} has no group “{group}”. Choose one of {keys}.")


def _evaluation(
    model: LoadedModel, prompts: PromptSet, ablation: Ablation | str = Ablation.mean
) -> Evaluation:
    return Evaluation(model, prompts, reference(model, prompts), Ablation(ablation))


def _answers(
    model: LoadedModel, prompts: PromptSet, logits: Callable[[PromptSet, slice], Tensor]
) -> Answers:
    """Answers read off logits of batches that fit into memory."""
    batches, places = prompt_batches(model.model, *prompts.input_ids.shape), np.arange(len(prompts))

    def of(rows: slice) -> Tensor:
        return logits(select(prompts, (rows.start <= places) & (places < rows.stop)), rows)

    with at_work(model.runtime), memory_errors_explained(model.model, batches[0].stop):
        return read_answers(map(of, batches), prompts)


def _ablated_values(model: LoadedModel, prompts: PromptSet, ablation: Ablation) -> Tensor:
    match ablation:
        case Ablation.mean:
            means = mean_head_outputs(model.model, reference(model, prompts))
            return position_means(means, prompts)
        case Ablation.zero:
            return torch.zeros_like(position_head_outputs(model.model, prompts))
        case Ablation.resample:
            return position_head_outputs(model.model, counterfactual(model, prompts))
