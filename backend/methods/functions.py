"""Functions: what does each group of a circuit carry?

A desideratum is a change of prompt, and the answer to the base prompt if one variable went along:
see `backend.tasks.desiderata`. All heads of a group, at its token, give the value that they have on
the alternate prompt, at that prompt's own token; the rest of the model computes. What is read off
is the share of prompts that are answered as expected (Prakash et al., circuit functionality,
activation patching), beside

- the same with nothing patched;
- the same with as many random heads of all others at the same token, in several draws, their
  mean;
- what one who guesses among the prompt's answers would get;
- the share that is still answered with the base's own answer.

The pairs are drawn several times over, each time of other base prompts, so that all of them are
independent and one interval holds for all. A group carries a variable where its share is clearly
above that with nothing patched, that of random heads, and chance, among all that were tried: heads
whose loss only makes the model guess are above the first two.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from backend.core.arguments import whole
from backend.core.errors import UserError
from backend.core.files import shown
from backend.core.heads import Head, ModelShape, Site
from backend.core.kept import Kept
from backend.core.metrics import Ablation
from backend.core.progress import Plan, Progress, Report, Step, silent, step_of
from backend.core.statistics import (
    Estimate,
    clear_among,
    mean_share,
    mean_share_difference,
    share_above,
    share_difference,
    wilson,
)
from backend.methods.asking import loaded
from backend.methods.method import Command, Figure, Finished, Method, Unfinished
from backend.methods.plans import scale_of
from backend.tasks.chance import ForcedChoice
from backend.tasks.circuit import Circuit
from backend.tasks.desiderata import Desideratum, Pairs
from backend.tasks.prompts import N_PATCHED, Prompts, select

if TYPE_CHECKING:
    from torch import Tensor

    from backend.methods.evaluation import Batch, Evaluation, Questions, Right

N_DRAWS = 3
N_RANDOM = 5
"""Random groups beside each group, drawn with the prompts' seed."""


@dataclass(frozen=True)
class FunctionsRequest:
    """What the groups of a circuit carry.

    desiderata: by name, all of the task's if there are none; draws: how many times as many pairs
    as prompts are drawn. Raises UserError for a desideratum that the task does not have.
    """

    model: str
    circuit: Circuit
    prompts: Prompts
    desiderata: tuple[str, ...] = ()
    draws: int = N_DRAWS

    def __post_init__(self) -> None:
        task = self.prompts.task
        if not task.desiderata:
            raise UserError(f"{task.title} has no desiderata. Choose another task.")
        known = [each.name for each in task.desiderata]
        for name in self.desiderata:
            if name not in known:
                raise UserError(
                    f"{task.title} has no desideratum “{shown(name)[:60]}”. Choose of "
                    f"{', '.join(known)}."
                )
        if len({*self.desiderata}) < len(self.desiderata):
            raise UserError("A desideratum is asked for twice. Name each once.")
        if self.draws < 1:
            raise UserError(f"Pairs are drawn once or more, not {self.draws} times. Choose more.")
        _ = self.all_prompts  # raises for more than there can be

    @property
    def all_prompts(self) -> Prompts:
        """The base prompts of all draws, one draw after the other."""
        return replace(self.prompts, n=self.prompts.n * self.draws)

    @property
    def tested(self) -> tuple[Desideratum, ...]:
        """The desiderata, each a part of the result."""
        task = self.prompts.task
        return tuple(map(task.desideratum, self.desiderata)) or task.desiderata


@dataclass(frozen=True)
class Carried:
    """How a model answers with a whole group patched.

    expected: share of the answer expected if the variable is carried, with the p of chance; change:
    that less what it is with nothing patched, with McNemar's p; own: share of the base's own
    answer; random: share of the expected one with random groups, its interval over prompts;
    above_random: expected − random, with Student's p; by_draw: share of the expected one in each
    draw of pairs.
    """

    expected: Estimate
    change: Estimate
    own: Estimate
    random: Estimate
    above_random: Estimate
    by_draw: tuple[float, ...]


@dataclass(frozen=True)
class Functions:
    """What the groups of a circuit, by key, carry by one desideratum.

    unpatched: share of the expected answer with nothing patched; chance: of guessing it among the
    answers that it competes with; reason: why there are no prompts of it, and so no figures.
    """

    desideratum: str
    unpatched: Estimate | None = None
    chance: float = float("nan")
    groups: Mapping[str, Carried] = field(default_factory=dict)
    forced_choice: ForcedChoice | None = None
    reason: str = ""

    @property
    def choices(self) -> tuple[ForcedChoice | None]:
        """How the model does beside guessing."""
        return (self.forced_choice,)


def functions(
    evaluation: Evaluation,
    circuit: Circuit,
    desideratum: Desideratum,
    draws: int = 1,
    progress: Progress = silent,
    kept_in: Kept | None = None,
) -> Functions:
    """What each group that the desideratum is about carries, on the evaluation's prompts.

    They are as many for each of the `draws`, one draw after the other. What is finished is kept in
    a folder, if there is one, and taken from there. Raises UserError when the circuit has heads
    that the model does not have.
    """
    circuit.check(evaluation.loaded.shape, evaluation.loaded.name)
    base = evaluation.prompts
    try:
        pairs = desideratum.draw(evaluation.loaded.tokenizer, base, base.seed)
    except UserError as error:
        return Functions(desideratum.name, reason=str(error))
    keys = _tested_groups(circuit, desideratum)
    questions = [frozenset(), *(circuit.sites_of([key]) for key in keys)]
    for key in keys:
        questions += random_groups(circuit, key, evaluation.loaded.shape, base.seed)
    said = _answers(evaluation, pairs, questions, progress, kept_in)
    expected, own = said == pairs.expected_ids, said == base.answer_ids
    n_patched, chance = 1 + len(keys), _chance(pairs)
    random = expected[n_patched:].reshape(len(keys), N_RANDOM, -1)
    rows = zip(keys, expected[1:n_patched], own[1:n_patched], random, strict=True)
    found = {
        key: _carried(patched, kept, others, expected[0], chance, draws)
        for key, patched, kept, others in rows
    }
    return Functions(
        desideratum.name,
        wilson(expected[0]),
        chance,
        found,
        evaluation.choice,
    )


def random_groups(
    circuit: Circuit, key: str, shape: ModelShape, seed: int
) -> list[frozenset[Site]]:
    """`N_RANDOM` draws of as many heads as a group has, of all others, at its token."""
    rng, position = np.random.default_rng(seed), circuit.task.group(key).position
    everything = {Head(layer, i) for layer in range(shape.n_layers) for i in range(shape.n_heads)}
    others, size = sorted(everything - {*circuit.heads(key)}), len(circuit.heads(key))
    return [
        frozenset(Site(others[chosen], position) for chosen in rng.permutation(len(others))[:size])
        for _ in range(N_RANDOM)
    ]


def _tested_groups(circuit: Circuit, desideratum: Desideratum) -> list[str]:
    """Keys of the groups that it is about and that have heads."""
    return [key for key in desideratum.groups or circuit.task.keys if circuit.heads(key)]


def _answers(
    evaluation: Evaluation,
    pairs: Pairs,
    questions: Questions,
    progress: Progress,
    kept_in: Kept | None,
) -> NDArray[np.int64]:
    """The tokens answered when sites give their alternate's head outputs: [questions, n]."""
    import torch

    from backend.engine.activation_patching import patched_logits
    from backend.engine.answers import answered
    from backend.engine.positions import position_head_outputs

    def ask(batch: Batch, some: Questions) -> Iterator[Tensor]:
        alternate = select(pairs.alternate, batch.chosen)
        values = position_head_outputs(evaluation.loaded.model, alternate)
        for sites in some:
            yield answered(patched_logits(batch.clean, sites, values))[None].cpu()

    scale = evaluation.scale
    cost = scale.runs(1) + scale.patches(1, questions)
    return evaluation.answered(questions, ask, cost, progress, kept_in, dtype=torch.int64)


def _carried(
    expected: Right, own: Right, random: Right, unpatched: Right, chance: float, draws: int
) -> Carried:
    """A group's figures, of [n] each, and [N_RANDOM, n] of the random ones."""
    by_prompt = random.mean(0)
    return Carried(
        share_above(expected, chance),
        share_difference(expected, unpatched),
        wilson(own),
        mean_share(by_prompt, random.size),
        mean_share_difference(expected, by_prompt),
        tuple(float(each.mean()) for each in np.split(expected, draws)),
    )


def _chance(pairs: Pairs) -> float:
    """Of guessing the expected answer among those of the prompt that has it."""
    in_base = (pairs.base.choice_ids == pairs.expected_ids[:, None]).any()
    return 1 / (pairs.base if in_base else pairs.alternate).n_choices


def carried(parts: Sequence[Functions]) -> list[tuple[str, str]]:
    """The groups that carry something, and by which desideratum, by key and name.

    Their share is clearly above that with nothing patched, that of random groups and chance, all
    that were tried taken together (Benjamini and Hochberg). Controls are among them.
    """
    cells = [(key, part.desideratum, found) for part in parts for key, found in part.groups.items()]
    above = [
        _above([found.change for *_, found in cells]),
        _above([found.above_random for *_, found in cells]),
        _above([found.expected for *_, found in cells]),
    ]
    found = zip(cells, *above, strict=True)
    return [(key, name) for (key, name, _), *is_above in found if all(is_above)]


def _above(estimates: Sequence[Estimate]) -> list[bool]:
    """Which of them are clearly more than nothing, all taken together."""
    clear = clear_among(estimates)
    return [is_clear and e.value > 0 for is_clear, e in zip(clear, estimates, strict=True)]


def _plan(request: FunctionsRequest) -> Plan:
    scale, n = scale_of(request.model, request.prompts), request.all_prompts.n
    return [
        [
            Step(
                f"Testing “{each.label}”",
                2 * scale.runs(n) + scale.patches(n, _sets(request, each)),
            )
        ]
        for each in request.tested
    ]


def _sets(request: FunctionsRequest, desideratum: Desideratum) -> Iterator[frozenset[Site]]:
    """Every group, and random ones: these begin in the first layer or soon after."""
    circuit = request.circuit
    for key in _tested_groups(circuit, desideratum):
        yield circuit.sites_of([key])
        first = frozenset({Site(Head(0, 0), circuit.task.group(key).position)})
        yield from [first] * N_RANDOM


def _work(
    request: FunctionsRequest, done: Finished, report: Report, unfinished: Unfinished
) -> Iterator[Functions]:
    plan = _plan(request)
    loaded(request.model, report, plan, len(done))
    from backend.methods.evaluation import evaluation

    examined = evaluation(request.model, request.all_prompts, Ablation.mean)
    for place, desideratum in islice(enumerate(request.tested), len(done), None):
        told, folder = step_of(report, plan, place, 0), unfinished(place)
        yield functions(examined, request.circuit, desideratum, request.draws, told, folder)


def _rows(request: FunctionsRequest, place: int, part: Functions) -> Iterator[Figure]:
    if part.unpatched is None:
        return
    label = request.tested[place].label
    for key, found in part.groups.items():
        item = f"{key}, {label.lower()}"
        yield Figure(item, "expected answer", found.expected)
        yield Figure(item, "less nothing patched", found.change)
        yield Figure(item, "less random groups", found.above_random)
        yield Figure(item, "expected answer with random groups", found.random)
        yield Figure(item, "the base’s own answer", found.own)
    yield Figure(f"nothing patched, {label.lower()}", "expected answer", part.unpatched)


def _settings(request: FunctionsRequest) -> str:
    names = "all desiderata"
    if request.desiderata:
        names = ", ".join(each.label.lower() for each in request.tested)
    return f"{names}, {request.draws} draws"


def _remarks(request: FunctionsRequest, parts: Finished) -> Iterator[str]:
    labels = {
        each.name: each.label.lower() + (" (a control)" if each.control else "")
        for each in request.tested
    }
    for part in parts:
        if part.reason:
            yield f"no figures of {labels[part.desideratum]}: {part.reason}"
    clear = carried(parts)
    for key in request.circuit.task.keys:
        names = [labels[name] for of, name in clear if of == key]
        yield f"group {key} carries, clearly: {', '.join(names) or 'nothing that was tried'}"


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--desiderata",
        type=lambda text: tuple(filter(None, text.split(","))),
        default=(),
        metavar="NAMES",
        help="names with commas between them, such as object,label (default: all of the task’s)",
    )
    parser.add_argument(
        "--draws",
        type=whole(1, 100),
        default=N_DRAWS,
        help=f"draws of that many pairs each (default: {N_DRAWS})",
    )


METHOD = Method(
    "functions",
    "Function",
    FunctionsRequest,
    lambda request: (Functions,) * len(request.tested),
    _plan,
    _work,
    _rows,
    _settings,
    command=Command(
        "what each group carries: its heads take the value of another prompt",
        "functions base --circuit base --desiderata object,label,position",
        N_PATCHED,
        _arguments,
        remarks=_remarks,
    ),
)
