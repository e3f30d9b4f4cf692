"""Knock-outs: what is left without each head of a circuit, each pair of heads and each group.

All that a click, or two, would show of a circuit, measured beforehand: in the circuit alone, with
everything else knocked out (Prakash et al., circuit evaluation), or in the whole model. Beside the
figures stand a few prompts with their likeliest answers.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from backend.core.errors import UserError
from backend.core.heads import ModelShape, Site
from backend.core.kept import Kept
from backend.core.metrics import Ablation, Metric
from backend.core.progress import Plan, Progress, Report, between, silent, step_of
from backend.core.statistics import Estimate, mean_share, wilson
from backend.methods.asking import averaged
from backend.methods.method import Command, Figure, Finished, Method, Unfinished
from backend.methods.plans import examined
from backend.models import catalogue
from backend.tasks.chance import ForcedChoice, faithfulness
from backend.tasks.circuit import Circuit, Node
from backend.tasks.prompts import N_PROMPTS, Prompts, PromptSet
from backend.tasks.setting import Reading

if TYPE_CHECKING:
    from torch import Tensor

    from backend.engine.answers import Answers
    from backend.methods.evaluation import Batch, Evaluation, Questions, Rows

MOST_HEADS = 80
"""Of a circuit: pairs go by the square, and are all to be looked at in one file."""
N_EXAMPLES = 4
_SHOWN = 5
_AT_ONCE = 8
_READINGS = {Reading.circuit: "circuit only", Reading.model: "whole model minus heads"}


@dataclass(frozen=True)
class KnockoutsRequest:
    """What a circuit, or the whole model, does without each head, pair of heads and group."""

    model: str
    circuit: Circuit
    prompts: Prompts
    reading: Reading = Reading.circuit
    ablation: Ablation = Ablation.mean


@dataclass(frozen=True)
class State:
    """What is answered with some heads off; faithfulness: its accuracy over the whole model's."""

    accuracy: Estimate
    probability: Estimate
    faithfulness: Estimate


@dataclass(frozen=True)
class Likeliest:
    """The likeliest answers to a prompt, by their numbers among the example's tokens."""

    tokens: tuple[int, ...]
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class Example:
    """A prompt, and what is answered to it: by the whole model, and in each state.

    words, roles: of its tokens, an empty role where there is none; columns: the word that stands
    above each group; tokens: all that are among the likeliest.
    """

    words: tuple[str, ...]
    roles: tuple[str, ...]
    columns: Mapping[str, str]
    answer: str
    tokens: tuple[str, ...]
    whole: Likeliest
    states: tuple[Likeliest, ...]


@dataclass(frozen=True)
class Knockouts:
    """The states in the order of `removals`, and what the untouched model does."""

    model: str
    shape: ModelShape
    whole_accuracy: Estimate
    whole_probability: Estimate
    states: tuple[State, ...]
    examples: tuple[Example, ...]
    n_reference: int
    forced_choice: ForcedChoice

    @property
    def choices(self) -> tuple[ForcedChoice]:
        """How the model does beside guessing."""
        return (self.forced_choice,)


def removals(circuit: Circuit) -> list[frozenset[Node]]:
    """What is off in each state: nothing, each head, each group, each pair of heads; each once."""
    members = circuit.members
    groups = [[node for node in members if node[0] == key] for key in circuit.task.keys]
    heads, pairs = ([*combinations(members, size)] for size in (1, 2))
    return [*dict.fromkeys(map(frozenset, ((), *heads, *groups, *pairs)))]


def removal_name(circuit: Circuit, off: frozenset[Node]) -> str:
    """“everything on”, “without B”, “without A L4.2 and C L0.1”."""
    if not off:
        return "everything on"
    for key in circuit.task.keys:
        if off == {node for node in circuit.members if node[0] == key}:
            return f"without {key}"
    return "without " + " and ".join(f"{key} {head}" for key, head in sorted(off))


def knockouts(
    evaluation: Evaluation,
    circuit: Circuit,
    reading: Reading = Reading.circuit,
    progress: Progress = silent,
    kept_in: Kept | None = None,
) -> Knockouts:
    """Every state of the circuit on the same prompts, and the first few prompts as examples.

    What is finished is kept in a folder, if there is one, and taken from there. Raises UserError
    when the circuit has heads that the model does not have, or too many.
    """
    check_size(circuit)
    circuit.check(evaluation.loaded.shape, evaluation.loaded.name)
    questions = _questions(circuit, reading)
    distinct = [*dict.fromkeys(questions)]
    n = len(evaluation.prompts)
    split = n / (n + min(n, N_EXAMPLES))
    rows = _asked(evaluation, distinct, reading, between(progress, 0, split), kept_in)
    found = dict(zip(distinct, rows, strict=True))
    whole, choice = evaluation.whole, evaluation.choice
    return Knockouts(
        evaluation.loaded.name,
        evaluation.loaded.shape,
        wilson(whole),
        mean_share(evaluation.whole_by(Metric.probability)),
        tuple(
            State(
                wilson(right := ~np.signbit(found[asked])),
                mean_share(np.abs(found[asked])),
                faithfulness(right, whole, choice),
            )
            for asked in questions
        ),
        _examples(evaluation, questions, reading, between(progress, split, 1)),
        evaluation.n_reference,
        choice,
    )


def check_size(circuit: Circuit) -> None:
    """Raise UserError for a circuit of too many heads."""
    if (n := len(circuit.members)) > MOST_HEADS:
        raise UserError(
            f"“{circuit.name}” has {n} heads, too many to knock out every pair beforehand: at most "
            f"{MOST_HEADS}. Choose a smaller circuit."
        )


def _questions(circuit: Circuit, reading: Reading) -> list[frozenset[Site]]:
    """What is asked for each state: the sites that are on, or those that are knocked out."""
    off = [
        frozenset(Site(head, circuit.task.group(key).position) for key, head in nodes)
        for nodes in removals(circuit)
    ]
    if reading is Reading.model:
        return off
    return [frozenset(circuit.sites - sites) for sites in off]


def _asked(
    evaluation: Evaluation,
    questions: Questions,
    reading: Reading,
    progress: Progress,
    kept_in: Kept | None,
) -> Rows:
    """Probabilities of the right answer, with a minus sign where another one is first: [k, n]."""
    import torch

    from backend.engine import checkpoints
    from backend.engine.mean_ablation import CIRCUITS_AT_ONCE, alike_first, circuits_measured

    is_alone = reading is Reading.circuit
    order = alike_first(questions) if is_alone else [*range(len(questions))]
    ordered = [questions[number] for number in order]

    def ask(batch: Batch, some: Questions) -> Iterator[Tensor]:
        def measure(logits: Tensor) -> Tensor:
            probability = batch.measured(logits, Metric.probability)
            return torch.where(batch.measured(logits, Metric.accuracy), probability, -probability)

        if is_alone:
            return circuits_measured(batch.started(ordered), some, measure)
        return (measure(logits[None]) for logits in _logits(batch, some, reading))

    scale = evaluation.scale
    cost = scale.circuits(1, len(questions)) if is_alone else scale.patches(1, questions)
    folder = checkpoints.inside(kept_in, f"{reading.name}-{evaluation.ablation.name}-signed")
    at_once = CIRCUITS_AT_ONCE if is_alone else 1
    rows = evaluation.answered(
        ordered, ask, cost, progress, folder, dtype=torch.float64, at_once=at_once
    )
    return rows[np.argsort(order)]


def _logits(batch: Batch, questions: Questions, reading: Reading) -> Iterator[Tensor]:
    """Logits [n, vocab] for each question, in order."""
    from backend.engine.activation_patching import patched_logits
    from backend.engine.mean_ablation import circuits_logits

    if reading is Reading.circuit:
        for start in range(0, len(questions), _AT_ONCE):
            yield from circuits_logits(batch.ablated_run, questions[start : start + _AT_ONCE])
        return
    for sites in questions:
        yield patched_logits(batch.clean, sites, batch.off_values)


def _examples(
    evaluation: Evaluation,
    questions: Sequence[frozenset[Site]],
    reading: Reading,
    progress: Progress,
) -> tuple[Example, ...]:
    """The first prompts, with the likeliest answers to them."""
    from backend.core.runtime import at_work
    from backend.engine.activation_patching import clean_logits
    from backend.engine.answers import read_answers
    from backend.methods.evaluation import Batch

    batch = Batch(evaluation, np.arange(len(evaluation.prompts)) < N_EXAMPLES)
    with at_work(evaluation.loaded.runtime):
        whole = read_answers([clean_logits(batch.clean)], batch.prompts)
        states = []
        for logits in _logits(batch, questions, reading):
            states.append(read_answers([logits], batch.prompts))
            progress(len(states), len(questions))
    decode = evaluation.loaded.tokenizer.decode
    return tuple(
        _example(batch.prompts, decode, i, whole, states) for i in range(len(batch.prompts))
    )


def _example(
    prompts: PromptSet,
    decode: Callable[[list[int]], str],
    i: int,
    whole: Answers,
    states: Sequence[Answers],
) -> Example:
    words, task = prompts.words(i), prompts.task
    answer = int(prompts.answer_ids[i])
    ids = [answer, *whole.top_ids[i, :_SHOWN].tolist()]
    ids += [token for state in states for token in state.top_ids[i, :_SHOWN].tolist()]
    numbers = {token: number for number, token in enumerate(dict.fromkeys(ids))}

    def likeliest(answers: Answers) -> Likeliest:
        top = answers.top_ids[i, :_SHOWN].tolist()
        shown = top if answer in top else [*top[:-1], answer]
        return Likeliest(
            tuple(numbers[token] for token in shown),
            tuple(answers.probability_of(i, token) for token in shown),
        )

    return Example(
        tuple(words),
        tuple(role or "" for role in prompts.roles_of(i)),
        {
            group.key: task.position(group.position).column.format(
                words[prompts.positions[group.position][i]]
            )
            for group in task.groups
        },
        decode([answer]).strip(),
        tuple(decode([token]).strip() for token in numbers),
        likeliest(whole),
        tuple(map(likeliest, states)),
    )


def _plan(request: KnockoutsRequest) -> Plan:
    """Examples cost what as many more prompts do."""
    questions = _questions(request.circuit, request.reading)
    prompts = replace(request.prompts, n=request.prompts.n + min(request.prompts.n, N_EXAMPLES))
    if request.reading is Reading.circuit:
        return [examined(request.model, prompts, len(questions))]
    return [examined(request.model, prompts, 0, questions)]


def _work(
    request: KnockoutsRequest, _: Finished, report: Report, unfinished: Unfinished
) -> Iterator[Knockouts]:
    check_size(request.circuit)
    plan = _plan(request)
    evaluation = averaged(request.model, request, report, plan, 0)
    told, kept_in = step_of(report, plan, 0, 1), unfinished(0)
    yield knockouts(evaluation, request.circuit, request.reading, told, kept_in)


def _rows(request: KnockoutsRequest, _: int, part: Knockouts) -> Iterator[Figure]:
    label = catalogue.label(request.model)
    yield Figure(label, "full model", part.whole_accuracy)
    yield Figure(label, "full model, probability of the right answer", part.whole_probability)
    for off, state in zip(removals(request.circuit), part.states, strict=True):
        name = removal_name(request.circuit, off)
        yield Figure(name, "accuracy", state.accuracy)
        yield Figure(name, "probability of the right answer", state.probability)
        yield Figure(name, "faithfulness", state.faithfulness)


def _named(part: Knockouts, models: Mapping[str, str], _: str) -> Knockouts:
    return replace(part, model=models[part.model])


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--reading",
        choices=[reading.name for reading in Reading],
        default=Reading.circuit.name,
        help="what the heads are taken out of: the circuit alone, or the whole model (default: "
        "circuit)",
    )


def _fields(options: Namespace, _: Circuit) -> Mapping[str, Any]:
    return {"reading": Reading[options.reading]}


METHOD = Method(
    "knockouts",
    "Knock-outs",
    KnockoutsRequest,
    lambda _: (Knockouts,),
    _plan,
    _work,
    _rows,
    lambda request: _READINGS[request.reading],
    _named,
    command=Command(
        "what is left without each head of a circuit, each pair of heads and each group",
        "knockouts base --circuit base",
        N_PROMPTS,
        _arguments,
        _fields,
    ),
)
