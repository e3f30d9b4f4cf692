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

from argparse import ArgumentParser, Namespace
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from math import comb
from typing import TYPE_CHECKING, Any

import numpy as np

from backend.core.errors import UserError
from backend.core.estimates import change, figure, quotient_change
from backend.core.heads import Head, ModelShape, Site
from backend.core.kept import Kept
from backend.core.metrics import Ablation, Metric
from backend.core.progress import Plan, Progress, Report, between, silent, step_of
from backend.core.statistics import LEVEL, Estimate, mean_estimate, mean_share
from backend.methods.asking import asked, averaged, not_done, same_prompts
from backend.methods.method import Command, Figure, Finished, Method, Unfinished
from backend.methods.plans import examined
from backend.models import catalogue, loaded_models
from backend.tasks.chance import ForcedChoice, faithfulness, forced_choice, undefined
from backend.tasks.circuit import Circuit
from backend.tasks.prompts import N_PROMPTS, Prompts

if TYPE_CHECKING:
    from backend.methods.evaluation import Evaluation, Right, Rows

N_RANDOM = 10
"""Random circuits beside each circuit."""


@dataclass(frozen=True)
class ComparisonRequest:
    """One circuit in many models."""

    models: tuple[str, ...]
    circuit: Circuit
    prompts: Prompts
    metric: Metric = Metric.accuracy
    ablation: Ablation = Ablation.mean


@dataclass(frozen=True)
class RandomCircuits:
    """How well random circuits of the same sizes do.

    mean: over prompts and draws, its interval over prompts; spread: standard deviation of the
    draws; accuracies: of each draw, or the mean of another metric.
    """

    mean: Estimate
    spread: float
    accuracies: tuple[float, ...]


@dataclass(frozen=True)
class Knockout:
    """What is left without one whole group, by the metric, and how far it is above that with it."""

    model: Estimate
    circuit: Estimate
    model_change: Estimate
    circuit_change: Estimate


@dataclass(frozen=True)
class AsInPaper:
    """A circuit as the paper's code ran it: without the adapter on `o_proj`, in every layer."""

    circuit: Estimate
    faithfulness: Estimate


@dataclass(frozen=True)
class ModelFigures:
    """One model's row of the comparison (Prakash et al., table 1); groups are letters.

    as_in_paper: beside the right figures of a model with an adapter on `o_proj`, None of any other.
    """

    name: str
    model: Estimate
    circuit: Estimate
    faithfulness: Estimate
    random: RandomCircuits
    groups: Mapping[str, Knockout]
    n_reference: int
    as_in_paper: AsInPaper | None = None
    forced_choice: ForcedChoice | None = None


@dataclass(frozen=True)
class Difference:
    """How far the second model is above the first, on the same prompts."""

    first: str
    second: str
    model: Estimate
    circuit: Estimate
    faithfulness: Estimate


@dataclass(frozen=True)
class ComparedModel:
    """A model of a comparison, and how far it is above those before it.

    answers: what it answers right, packed, so that models that come later can be paired with it.
    """

    figures: ModelFigures
    differences: tuple[Difference, ...]
    answers: str

    @property
    def choices(self) -> tuple[ForcedChoice | None]:
        """How the model does beside guessing."""
        return (self.figures.forced_choice,)


@dataclass(frozen=True)
class Comparison:
    """One circuit in many models, and all pairs of them, in the order in which they were given."""

    circuit: str
    models: tuple[ModelFigures, ...]
    differences: tuple[Difference, ...]


@dataclass(frozen=True)
class GroupOverlap:
    """Heads that two circuits share in a group, and those in only one of them.

    precision: share of the found heads that are expected; recall: share of the expected ones that
    are found. NaN of no heads.
    """

    shared: tuple[Head, ...]
    only_found: tuple[Head, ...]
    only_expected: tuple[Head, ...]
    precision: float
    recall: float


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
    n, parts = len(evaluations), list[ComparedModel]()
    earlier: list[tuple[str, ModelAnswers]] = []
    for place, evaluation in enumerate(evaluations):
        told = between(progress, place / n, (place + 1) / n)
        part, answers = compared(
            evaluation, circuit, earlier, n, metric, seed, n_random, progress=told
        )
        parts.append(part)
        earlier.append((evaluation.loaded.name, answers))
    return _together(circuit, parts)


def compared(
    evaluation: Evaluation,
    circuit: Circuit,
    earlier: Sequence[tuple[str, ModelAnswers]],
    n_models: int,
    metric: Metric,
    seed: int = 0,
    n_random: int = N_RANDOM,
    progress: Progress = silent,
    kept_in: Kept | None = None,
) -> tuple[ComparedModel, ModelAnswers]:
    """One of `n_models`, and how far it is above the earlier ones, by name; its answers as well.

    Raises UserError when it lacks a head of the circuit.
    """
    name = evaluation.loaded.name
    circuit.check(evaluation.loaded.shape, catalogue.label(name))
    answers = answers_of(evaluation, circuit, seed, n_random, progress, kept_in, metric)
    paper = as_in_paper(evaluation, circuit, answers.whole, metric)
    n_choices = evaluation.prompts.n_choices
    differences = tuple(
        difference(other, before, name, answers, n_models, n_choices, metric)
        for other, before in earlier
    )
    part = ComparedModel(figures(evaluation, answers, paper, metric), differences, packed(answers))
    return part, answers


def answers_of(
    evaluation: Evaluation,
    circuit: Circuit,
    seed: int = 0,
    n_random: int = N_RANDOM,
    progress: Progress = silent,
    kept_in: Kept | None = None,
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
    from backend.models.loading import has_output_adapter, without_output_adapter

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


def joined(request: ComparisonRequest, parts: Sequence[ComparedModel]) -> Comparison:
    """The comparison of the models that are finished."""
    return _together(request.circuit, parts)


def _together(circuit: Circuit, parts: Sequence[ComparedModel]) -> Comparison:
    return Comparison(
        circuit.name,
        tuple(part.figures for part in parts),
        tuple(difference for part in parts for difference in part.differences),
    )


def _plan(request: ComparisonRequest) -> Plan:
    circuit = request.circuit
    groups = [circuit.sites_of([key]) for key in circuit.task.keys]
    k = 1 + len(groups) + N_RANDOM
    return [examined(name, request.prompts, k, groups) for name in request.models]


def _work(
    request: ComparisonRequest, done: Finished, report: Report, unfinished: Unfinished
) -> Iterator[ComparedModel]:
    plan, circuit, prompts = _plan(request), request.circuit, request.prompts
    n_groups, metric = len(prompts.task.groups), request.metric
    # Prompts of one's own may be fewer than were asked for.
    earlier = [
        (part.figures.name, unpacked(part.answers, part.figures.model.n, n_groups, metric))
        for part in done
    ]
    for place, name in not_done(request.models, done):
        evaluation = averaged(name, request, report, plan, place)
        if not _share_tokenizer(name, request.models[0]):
            same_prompts([asked(request.models[0], request, report, plan, place), evaluation])
        part, answers = compared(
            evaluation,
            circuit,
            earlier,
            len(request.models),
            metric,
            prompts.seed,
            progress=step_of(report, plan, place, 1),
            kept_in=unfinished(place),
        )
        yield part
        earlier.append((name, answers))


def _share_tokenizer(*models: str) -> bool:
    found = [loaded_models.fingerprint_of(name) for name in models]
    return None not in found and len({each.tokenizer for each in found if each}) == 1


def _rows(request: ComparisonRequest, place: int, part: ComparedModel) -> Iterator[Figure]:
    model, row = catalogue.label(request.models[place]), part.figures
    yield Figure(model, "full model", row.model)
    yield Figure(model, "circuit", row.circuit)
    yield Figure(model, "random circuits", row.random.mean)
    yield Figure(model, "faithfulness", row.faithfulness)
    for group, left in row.groups.items():
        yield Figure(model, f"circuit without {group}", left.circuit)
        yield Figure(model, f"full model without {group}", left.model)
    for pair in part.differences:
        names = " → ".join(map(catalogue.label, (pair.first, pair.second)))
        yield Figure(names, "full model", pair.model)
        yield Figure(names, "circuit", pair.circuit)
        yield Figure(names, "faithfulness", pair.faithfulness)


def _named(part: ComparedModel, models: Mapping[str, str], _: str) -> ComparedModel:
    return replace(
        part,
        figures=replace(part.figures, name=models[part.figures.name]),
        differences=tuple(
            replace(each, first=models[each.first], second=models[each.second])
            for each in part.differences
        ),
    )


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--overlap", metavar="CIRCUIT", help="also count the heads shared with it")


def _fields(options: Namespace, circuit: Circuit) -> Mapping[str, Any]:
    if options.overlap:  # what cannot be read is told before anything is computed
        catalogue.named_circuit(options.overlap).check_task(circuit.task)
    return {}


def _beside(options: Namespace, request: ComparisonRequest, _: Finished) -> Mapping[str, Any]:
    if not options.overlap:
        return {}
    return {"overlap": overlap(request.circuit, catalogue.named_circuit(options.overlap))}


METHOD = Method(
    "compare",
    "Compare",
    ComparisonRequest,
    lambda request: (ComparedModel,) * len(request.models),
    _plan,
    _work,
    _rows,
    named=_named,
    command=Command(
        "one circuit in many models: accuracies, faithfulness, what each group is worth",
        "compare base arithmetic-lora arithmetic-full --prompts 500 --out family.json",
        N_PROMPTS,
        _arguments,
        _fields,
        beside=_beside,
    ),
)
