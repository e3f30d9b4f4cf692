"""One circuit, many models: is it there, and what does each model lose without its parts?

All models are asked the same prompts, so their differences are paired. In each of them

- the circuit is evaluated with every other head knocked out, and beside it random circuits with as
  many heads at each token, drawn without replacement (the paper's were drawn with);
- faithfulness is the accuracy of the circuit over that of the model, or another metric so;
- every group is knocked out as a whole, in the circuit and in the whole model.

Knocked-out heads take each model's own means over reference prompts (Prakash et al., circuit
evaluation, table 1), unless another ablation is asked for.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import combinations
from math import comb
from pathlib import Path

import numpy as np

from backend.core.errors import UserError
from backend.core.estimates import change, figure, quotient_change
from backend.core.heads import Head, ModelShape, Site
from backend.core.metrics import Ablation, Metric
from backend.core.progress import Progress, between, silent
from backend.core.statistics import LEVEL, mean_estimate, mean_share
from backend.methods.evaluation import Evaluation, Right, Rows
from backend.methods.requests import N_RANDOM, N_REFERENCE
from backend.methods.results import (
    AsInPaper,
    Comparison,
    Difference,
    GroupOverlap,
    Knockout,
    ModelFigures,
    RandomCircuits,
)
from backend.models.loaded_models import load, until_unload
from backend.models.loading import LoadedModel, has_output_adapter, without_output_adapter
from backend.tasks.chance import faithfulness, forced_choice, undefined
from backend.tasks.circuit import Circuit
from backend.tasks.prompts import Prompts


@dataclass(frozen=True, eq=False)
class ModelAnswers:
    """A metric of what a model answers on the n prompts: bools for accuracy, else float64.

    whole, circuit [n]; random [n_random, n]; model_without, circuit_without [n_groups, n],
    a row for each group of the task; forced [n]: the whole model puts the right answer ahead of
    those it competes with.
    """

    whole: Rows
    circuit: Rows
    random: Rows
    model_without: Rows
    circuit_without: Rows
    forced: Right


def packed(answers: ModelAnswers) -> str:
    """The answers as text: a bit each, or eight bytes where they are numbers."""
    rows = np.concatenate([np.atleast_2d(getattr(answers, each.name)) for each in fields(answers)])
    held = np.packbits(rows) if rows.dtype == bool else rows.astype("<f8")
    return b64encode(held.tobytes()).decode()


def unpacked(text: str, n: int, n_groups: int, metric: Metric = Metric.accuracy) -> ModelAnswers:
    """What `packed` made text of, with `N_RANDOM` draws on `n` prompts and so many groups.

    Raises UserError for any other text.
    """
    rows = 3 + N_RANDOM + 2 * n_groups
    try:
        held = b64decode(text, validate=True)
        if metric is Metric.accuracy:
            bits = np.unpackbits(np.frombuffer(held, np.uint8))
            answers: Rows = bits[: rows * n].astype(bool).reshape(rows, n)
        else:
            answers = np.frombuffer(held, "<f8").astype(np.float64).reshape(rows, n)
    except ValueError as error:
        raise UserError("The saved answers are damaged. Delete the result, run again.") from error
    random, model_without, circuit_without = np.split(
        answers[2:-1], [N_RANDOM, N_RANDOM + n_groups]
    )
    forced = answers[-1].astype(bool)
    return ModelAnswers(answers[0], answers[1], random, model_without, circuit_without, forced)


def examine(
    loaded: LoadedModel, prompts: Prompts, ablation: Ablation = Ablation.mean
) -> Evaluation:
    """The model with these prompts, and its reference prompts of the same seed."""
    return Evaluation(
        loaded,
        prompts.sample(loaded.tokenizer),
        prompts.reference(loaded.tokenizer, N_REFERENCE),
        ablation,
    )


@until_unload(maxsize=2)
def evaluation(model: str, prompts: Prompts, ablation: Ablation) -> Evaluation:
    """The model under examination; a pair is kept, so that one more question costs little."""
    return examine(load(model), prompts, ablation)


def same_prompts(evaluations: Sequence[Evaluation]) -> None:
    """Raise UserError unless all evaluations are asked the same prompts, word for word."""
    for evaluation in evaluations[1:]:
        if evaluation.prompts.texts != evaluations[0].prompts.texts:
            raise UserError(
                f"The tokenizers of {evaluations[0].loaded.name} and {evaluation.loaded.name} "
                "write different words as one token, so the models cannot be asked the same "
                "prompts. Choose models that share a tokenizer."
            )


def random_circuits(
    circuit: Circuit, shape: ModelShape, n: int, seed: int
) -> list[frozenset[Site]]:
    """`n` draws of as many sites as the circuit has at each token, out of all heads there.

    Groups that work at one token are drawn together, no head of them twice.
    """
    rng = np.random.default_rng(seed)
    heads = [Head(layer, i) for layer in range(shape.n_layers) for i in range(shape.n_heads)]
    sizes = {
        token: sum(site.position == token for site in circuit.sites)
        for token in circuit.task.position_names
    }
    return [
        frozenset(
            Site(heads[chosen], token)
            for token, size in sizes.items()
            for chosen in rng.permutation(len(heads))[:size]
        )
        for _ in range(n)
    ]


def compare(
    evaluations: Sequence[Evaluation],
    circuit: Circuit,
    seed: int = 0,
    n_random: int = N_RANDOM,
    progress: Progress = silent,
    metric: Metric = Metric.accuracy,
) -> Comparison:
    """The circuit in every model, and the difference of every pair of models, by a metric.

    Raises UserError when a model lacks a head of the circuit, or when the models are not asked the
    same prompts.
    """
    same_prompts(evaluations)
    for evaluation in evaluations:
        circuit.check(evaluation.loaded.shape, evaluation.loaded.name)
    each = 1 / len(evaluations)
    answers = [
        answers_of(
            evaluation,
            circuit,
            seed,
            n_random,
            between(progress, i * each, (i + 1) * each),
            metric=metric,
        )
        for i, evaluation in enumerate(evaluations)
    ]
    return Comparison(
        circuit.name,
        tuple(
            figures(
                evaluation, answer, as_in_paper(evaluation, circuit, answer.whole, metric), metric
            )
            for evaluation, answer in zip(evaluations, answers, strict=True)
        ),
        tuple(
            difference(
                evaluations[i].loaded.name,
                answers[i],
                evaluations[j].loaded.name,
                answers[j],
                len(evaluations),
                evaluations[0].prompts.n_choices,
                metric,
            )
            for i, j in combinations(range(len(evaluations)), 2)
        ),
    )


def answers_of(
    evaluation: Evaluation,
    circuit: Circuit,
    seed: int = 0,
    n_random: int = N_RANDOM,
    progress: Progress = silent,
    kept_in: Path | None = None,
    metric: Metric = Metric.accuracy,
) -> ModelAnswers:
    """Everything that a model is asked for the comparison, by a metric.

    What is finished is kept in a folder, if there is one, and taken from there.
    """
    groups = [circuit.sites_of([key]) for key in circuit.task.keys]
    drawn = random_circuits(circuit, evaluation.loaded.shape, n_random, seed)
    without = [circuit.sites - group for group in groups]
    circuits = [circuit.sites, *without, *drawn]
    split = evaluation.share_alone(len(circuits), groups)
    alone = evaluation.circuit_only(circuits, between(progress, 0, split), kept_in, metric)
    model_without = evaluation.ablated(groups, between(progress, split, 1), kept_in, metric)
    return ModelAnswers(
        evaluation.whole_by(metric),
        alone[0],
        alone[1 + len(groups) :],
        model_without,
        alone[1 : 1 + len(groups)],
        evaluation.forced,
    )


def as_in_paper(
    evaluation: Evaluation, circuit: Circuit, whole: Rows, metric: Metric = Metric.accuracy
) -> AsInPaper | None:
    """The circuit as the authors' code would run it; None where that makes no difference.

    In the layers in which heads are replaced, that code multiplies by `o_proj.weight` and so leaves
    out an adapter there. Around a circuit heads are replaced in every layer. Means, and the whole
    model, come from plain runs, which have the adapter. It knows no other ablation than means.
    """
    if evaluation.ablation is not Ablation.mean or not has_output_adapter(evaluation.loaded):
        return None
    bare = evaluation.run_by(without_output_adapter(evaluation.loaded))
    (alone,) = bare.circuit_only([circuit.sites], metric=metric)
    return AsInPaper(figure(metric, alone), faithfulness(alone, whole, evaluation.choice, metric))


def figures(
    evaluation: Evaluation,
    answers: ModelAnswers,
    paper: AsInPaper | None = None,
    metric: Metric = Metric.accuracy,
) -> ModelFigures:
    """The model's row of the comparison."""
    of_draws, by_prompt = answers.random.mean(1), answers.random.mean(0)
    keys = evaluation.prompts.task.keys
    knocked_out = zip(keys, answers.model_without, answers.circuit_without, strict=True)
    choice = forced_choice(answers.forced, evaluation.prompts.n_choices)
    return ModelFigures(
        evaluation.loaded.name,
        figure(metric, answers.whole),
        figure(metric, answers.circuit),
        faithfulness(answers.circuit, answers.whole, choice, metric),
        RandomCircuits(
            mean_estimate(by_prompt)
            if metric is Metric.logit_difference
            else mean_share(by_prompt, answers.random.size),
            float(of_draws.std(ddof=1)) if len(of_draws) > 1 else float("nan"),
            tuple(of_draws.tolist()),
        ),
        {
            key: Knockout(
                figure(metric, of_model),
                figure(metric, of_circuit),
                change(metric, of_model, answers.whole),
                change(metric, of_circuit, answers.circuit),
            )
            for key, of_model, of_circuit in knocked_out
        },
        evaluation.n_reference,
        paper,
        choice,
    )


def difference(
    first: str,
    before: ModelAnswers,
    second: str,
    after: ModelAnswers,
    n_models: int,
    n_choices: int,
    metric: Metric = Metric.accuracy,
) -> Difference:
    """How far the second model is above the first; `is_clear` says if by more than its interval.

    The intervals of a measure hold together for all pairs of `n_models` (Bonferroni). That of
    faithfulness is undefined where either model is not above chance.
    """
    level = 1 - (1 - LEVEL) / comb(n_models, 2)
    later, earlier = (after.circuit, after.whole), (before.circuit, before.whole)
    return Difference(
        first,
        second,
        change(metric, after.whole, before.whole, level),
        change(metric, after.circuit, before.circuit, level),
        quotient_change(metric, later, earlier, level)
        if all(forced_choice(each.forced, n_choices).is_above_chance for each in (before, after))
        else undefined(len(after.whole)),
    )


def overlap(found: Circuit, expected: Circuit) -> dict[str, GroupOverlap]:
    """The heads that two circuits share, by the group's key."""
    return {key: _overlap({*found.heads(key)}, {*expected.heads(key)}) for key in found.task.keys}


def _overlap(found: set[Head], expected: set[Head]) -> GroupOverlap:
    shared = found & expected
    return GroupOverlap(
        tuple(sorted(shared)),
        tuple(sorted(found - expected)),
        tuple(sorted(expected - found)),
        len(shared) / len(found) if found else float("nan"),
        len(shared) / len(expected) if expected else float("nan"),
    )
