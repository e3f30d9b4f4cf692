"""DCM, desiderata-based component masking: which heads carry a variable?

Pairs of prompts say what would be answered if the heads of a group carried it (a desideratum). A
mask over the heads is learnt on half of the pairs: 1 leaves a head as it is, 0 gives it its value
on the alternate prompt, and λ is what a head costs that is not left as it is
(`backend.methods.mask_learning`). Of the masks on the way, rounded, the one is kept that brings
most expected answers on a quarter of the pairs; of several, that with the fewest heads. What it
does is measured on the last quarter, beside the whole group, as many random heads, and nothing
(Prakash et al., circuit functionality; Davies et al. 2023).

As in the authors' code: Adam at a rate of 0.1, λ = 0.01, two epochs in batches of 32, 2,000 pairs,
a check every four batches. Ours: the mask before the first batch is checked, too, so that no head
is kept where none helps.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import Enum
from functools import cache, lru_cache, partial
from itertools import compress, islice, product
from math import ceil
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from backend.core.arguments import checked_by, number, whole
from backend.core.errors import UserError
from backend.core.files import shown
from backend.core.heads import Head, Site
from backend.core.kept import Kept
from backend.core.progress import Plan, Progress, Report, Step, step_of
from backend.core.statistics import (
    Estimate,
    mean_share,
    mean_share_difference,
    share_difference,
    wilson,
)
from backend.methods.asking import loaded
from backend.methods.method import Command, Figure, Finished, Method, Unfinished
from backend.methods.plans import scale_of
from backend.models import catalogue
from backend.tasks.circuit import Circuit
from backend.tasks.prompts import MAX_PROMPTS, Prompts

if TYPE_CHECKING:
    from backend.engine.costs import Scale
    from backend.methods.evaluation import Evaluation, Right
    from backend.methods.mask_learning import Learning
    from backend.models.loading import LoadedModel

N_PAIRS = 2000
PENALTY, RATE, EPOCHS, BATCH = 0.01, 0.1, 2, 32
TRAINING, VALIDATION = 0.5, 0.25
CHECKED_EVERY = 4
"""The authors'; the last in batches."""
N_RANDOM = 10
"""Random sets of heads, drawn to compare with."""
_IN_WORDS = {
    "rate": "rate",
    "epochs": "epochs",
    "batch": "batches of",
    "training": "training",
    "validation": "validation",
}


class Among(Enum):
    """Which heads the mask is over: the circuit's in the group, or all of the model's, at the
    group's token."""

    group = "group"
    all = "all"


@dataclass(frozen=True)
class DcmRequest:
    """Which heads of a group carry what a desideratum asks for; the paper's settings.

    prompts: one for each pair; penalties: values of λ, in logits for each head, each a part of the
    result; training, validation: shares of the pairs, the rest being those of the test. Raises
    UserError for what there cannot be.
    """

    model: str
    circuit: Circuit
    prompts: Prompts
    group: str
    desideratum: str
    among: Among = Among.group
    penalties: tuple[float, ...] = (PENALTY,)
    rate: float = RATE
    epochs: int = EPOCHS
    batch: int = BATCH
    training: float = TRAINING
    validation: float = VALIDATION

    def __post_init__(self) -> None:
        task = self.prompts.task
        self.circuit.check_task(task)
        known = {each.name for each in task.desiderata}
        _check(
            self.group in task.keys,
            f"{task.title} has no group “{shown(self.group)[:40]}”",
            f"Choose of {', '.join(task.keys)}",
        )
        _check(
            self.desideratum in known,
            f"{task.title} has no desideratum “{shown(self.desideratum)[:40]}”",
            f"Choose of {', '.join(each.name for each in task.desiderata) or 'another task'}",
        )
        _check(
            self.among is Among.all or bool(self.circuit.heads(self.group)),
            f"The circuit “{self.circuit.name}” has no heads in group {self.group}",
            "Choose another group, or learn the mask among all heads",
        )
        _check(
            bool(self.penalties) and all(0 <= each <= 100 for each in self.penalties),
            "A penalty is a number from 0 to 100, and at least one is needed",
            "Give such numbers",
        )
        _check(
            len({*self.penalties}) == len(self.penalties),
            "A penalty is there twice",
            "Leave it out",
        )
        _check(0 < self.rate <= 10, "A learning rate is above 0, at most 10", "Give such a number")
        _check(
            self.epochs >= 1 and self.batch >= 1,
            "At least one epoch, and one pair in a batch, are needed",
            "Give larger numbers",
        )
        _check(
            min(len(range(*rows.indices(self.prompts.n))) for rows in self.split) > 0,
            f"{self.prompts.n} pairs cannot be split so that some are learnt from, some validate "
            "and some test",
            "Ask for more pairs, or other shares",
        )

    @property
    def split(self) -> tuple[slice, slice, slice]:
        """The pairs to learn from, to validate with and to test on."""
        n = self.prompts.n
        first = int(n * self.training)
        second = min(n, first + int(n * self.validation))
        return slice(0, first), slice(first, second), slice(second, n)

    @property
    def n_batches(self) -> int:
        """In an epoch; the last may be smaller."""
        return ceil(self.split[0].stop / self.batch)

    @property
    def n_steps(self) -> int:
        """Batches that are learnt from."""
        return self.n_batches * self.epochs

    @property
    def n_checks(self) -> int:
        """After steps."""
        return ceil(self.n_steps / CHECKED_EVERY)

    def candidates(self, n_layers: int, n_heads: int) -> tuple[Head, ...]:
        """The heads that the mask is over, in a model of so many."""
        if self.among is Among.group:
            return self.circuit.heads(self.group)
        return tuple(Head(*place) for place in product(range(n_layers), range(n_heads)))

    def sites(self, heads: Sequence[Head]) -> tuple[Site, ...]:
        """These heads, at the group's token."""
        position = self.prompts.task.group(self.group).position
        return tuple(Site(head, position) for head in heads)


class Masked(NamedTuple):
    """A head, and how much of its own output the mask leaves it, from 0 to 1."""

    head: Head
    mask: float


@dataclass(frozen=True)
class Check:
    """What a rounded mask does on the pairs of the validation, after so many batches."""

    step: int
    n_heads: int
    accuracy: Estimate


@dataclass(frozen=True)
class Curve:
    """How a mask was learnt: the loss at each batch, in logits, and every check."""

    losses: tuple[float, ...]
    checks: tuple[Check, ...]


@dataclass(frozen=True)
class Dcm:
    """The heads that a mask keeps for a variable, and what they do on the pairs of the test.

    mask: of every head that it is over, not rounded, at the check whose heads were kept. Shares of
    expected answers: accuracy, with the heads kept; group, with the circuit's whole group; random,
    with as many random heads of those that the mask is over, the mean of several draws, None where
    there is no choice; nothing, as the model is. above_nothing, above_random and above_group: the
    difference to the heads kept, on the same pairs. chance: 1 / answers that compete.
    """

    penalty: float
    heads: tuple[Head, ...]
    mask: tuple[Masked, ...]
    curve: Curve
    accuracy: Estimate
    group: Estimate
    random: Estimate | None
    nothing: Estimate
    above_nothing: Estimate
    above_random: Estimate | None
    above_group: Estimate
    chance: float

    @property
    def is_carried(self) -> bool:
        """Whether the heads clearly bring about the expected answer, more than a guess would:
        heads whose loss only makes a model guess are above nothing, too."""
        return self.above_nothing.low > 0 and self.accuracy.low > self.chance

    @property
    def validated(self) -> Check:
        """The check whose heads were kept."""
        order = range(len(self.curve.checks))
        return self.curve.checks[max(order, key=self._rank)]

    def _rank(self, place: int) -> tuple[float, int]:
        check = self.curve.checks[place]
        return check.accuracy.value, -check.n_heads


def random_heads(heads: Sequence[Head], k: int, n: int, seed: int) -> list[tuple[Head, ...]]:
    """`n` draws of `k` of these heads; none where there is no choice."""
    if k in (0, len(heads)):
        return []
    rng = np.random.default_rng([seed, k])
    drawn = (rng.choice(len(heads), k, replace=False) for _ in range(n))
    return [tuple(heads[place] for place in sorted(places)) for places in drawn]


def curve(learning: Learning) -> Curve:
    """How a mask was learnt so far."""
    from backend.methods.mask_learning import chosen

    n_steps, n_heads = len(learning.losses), chosen(learning.checked).sum(-1).tolist()
    checks = (
        Check(min(place * CHECKED_EVERY, n_steps), n, wilson(right))
        for place, (n, right) in enumerate(zip(n_heads, learning.right.numpy(), strict=True))
    )
    return Curve(tuple(learning.losses.tolist()), tuple(checks))


def curve_so_far(kept_in: Kept | None) -> Curve | None:
    """Of a part that is not finished, out of the folder that it keeps things in, to be seen while
    it is learnt; None while there is none."""
    from backend.methods.mask_learning import so_far

    learning = so_far(kept_in)
    return curve(learning) if learning else None


def found_circuit(request: DcmRequest, part: Dcm, name: str) -> Circuit:
    """The heads kept, as a circuit of the group alone."""
    about = {
        "method": "desiderata-based component masking",
        "model": request.model,
        "desideratum": request.desideratum,
        "penalty": part.penalty,
        "among": request.among,
        "n_pairs": request.prompts.n,
        "seed": request.prompts.seed,
    }
    return Circuit.of(request.prompts.task, {request.group: part.heads}, name, about)


def best(parts: Sequence[Dcm]) -> Dcm:
    """Of several penalties the one whose heads did best in the validation, or are fewest."""
    return max(parts, key=lambda part: (part.validated.accuracy.value, -len(part.heads)))


def _check(holds: bool, what: str, to_do: str) -> None:
    if not holds:
        raise UserError(f"{what}. {to_do}.")


def _plan(request: DcmRequest) -> Plan:
    scale = scale_of(request.model, request.prompts)
    return [
        [
            Step(
                f"Learning the mask, λ {penalty:g}",
                _learning_cost(request, scale, place, request.n_steps, request.n_checks),
            ),
            Step(f"Testing the heads, λ {penalty:g}", _testing_cost(request, scale, place)),
        ]
        for place, penalty in enumerate(request.penalties)
    ]


def _learning_cost(
    request: DcmRequest, scale: Scale, place: int, n_steps: int, n_checks: int
) -> float:
    """Of so many steps and checks; the pairs are run whole in the first part only."""
    training, validation, _ = request.split
    n_training, n_validation = (rows.stop - rows.start for rows in (training, validation))
    patch = scale.patches(1, [request.sites(request.candidates(scale.n_layers, scale.n_heads))])
    n_run = min(n_steps * request.batch, n_training) + n_validation
    whole = 0.0 if place else 2 * scale.runs(n_run)
    # There and back again.
    return whole + (2 * n_training * n_steps / request.n_batches + n_validation * n_checks) * patch


def _testing_cost(request: DcmRequest, scale: Scale, place: int) -> float:
    """Of the heads kept, the group and the random sets, all as if they began as early."""
    n = request.split[2].stop - request.split[2].start
    sites = request.sites(request.candidates(scale.n_layers, scale.n_heads))
    whole = 0.0 if place else 2 * scale.runs(n)
    return whole + scale.patches(n, [sites] * (2 + N_RANDOM))


@dataclass(frozen=True, eq=False)
class _Asked:
    """A model and its pairs: batches to learn from, made when they are asked for, and the rest."""

    training: Sequence[Callable[[], Evaluation]]
    validation: Evaluation
    test: Evaluation


def _asked(request: DcmRequest, model: LoadedModel) -> _Asked:
    from backend.engine.memory import fits
    from backend.methods.pairs_patched import examined_pairs, some_pairs

    prompts, (training, validation, test) = request.prompts, request.split
    desideratum = prompts.task.desideratum(request.desideratum)
    pairs = desideratum.draw(model.tokenizer, prompts.sample(model.tokenizer), prompts.seed)
    all_fit = fits(model.model, prompts.n, pairs.base.input_ids.shape[1])

    @lru_cache(maxsize=None if all_fit else 1)
    def batch(start: int) -> Evaluation:
        end = min(start + request.batch, training.stop)
        return examined_pairs(model, some_pairs(pairs, slice(start, end)))

    starts = range(training.start, training.stop, request.batch)
    rest = (examined_pairs(model, some_pairs(pairs, rows)) for rows in (validation, test))
    return _Asked([partial(batch, start) for start in starts], *rest)


def _work(
    request: DcmRequest, done: Finished, report: Report, unfinished: Unfinished
) -> Iterator[Dcm]:
    plan = _plan(request)
    model = loaded(request.model, report, plan, len(done))
    request.circuit.check(model.shape, catalogue.label(request.model))
    heads = request.candidates(model.shape.n_layers, model.shape.n_heads)
    asked = _asked(request, model)

    @cache
    def validated(chosen: tuple[Head, ...]) -> Right:
        right: Right = asked.validation.ablated([request.sites(chosen)])[0]
        return right

    for place, penalty in islice(enumerate(request.penalties), len(done), None):
        kept_in = unfinished(place)
        told = partial(_tell, request, report, plan, place)
        learning = _learned(request, asked, heads, penalty, validated, told, kept_in)
        yield _tested(
            request, asked.test, heads, penalty, learning, step_of(report, plan, place, 1), kept_in
        )


def _learned(
    request: DcmRequest,
    asked: _Asked,
    heads: Sequence[Head],
    penalty: float,
    validated: Callable[[tuple[Head, ...]], Right],
    told: Callable[[Learning], None],
    kept_in: Kept | None,
) -> Learning:
    from backend.methods.mask_learning import learn

    return learn(
        asked.training,
        request.sites(heads),
        request.n_steps,
        CHECKED_EVERY,
        request.rate,
        penalty,
        lambda chosen: validated(tuple(compress(heads, chosen))),
        told,
        kept_in,
    )


def _tell(request: DcmRequest, report: Report, plan: Plan, place: int, now: Learning) -> None:
    """How far the learning of a part is, and what came of it so far."""
    scale = scale_of(request.model, request.prompts)
    last, n_heads = curve(now).checks[-1], len(now.mask)
    found = f"{last.n_heads} of {n_heads} heads, {last.accuracy.value:.0%} as expected"
    cost = partial(_learning_cost, request, scale, place)
    share = cost(len(now.losses), len(now.right) - 1), cost(request.n_steps, request.n_checks)
    step_of(lambda stage, at: report(f"{stage}: {found}", at), plan, place, 0)(*share)


def _tested(
    request: DcmRequest,
    test: Evaluation,
    heads: Sequence[Head],
    penalty: float,
    learning: Learning,
    progress: Progress,
    kept_in: Kept | None,
) -> Dcm:
    from backend.methods.mask_learning import chosen

    mask = learning.best
    kept = tuple(compress(heads, chosen(mask).tolist()))
    drawn = random_heads(heads, len(kept), N_RANDOM, request.prompts.seed)
    sets = [
        request.sites(some) for some in (kept, request.circuit.heads(request.group), (), *drawn)
    ]
    right = test.ablated(sets, progress, kept_in)
    with_kept, with_group, with_nothing, with_random = right[0], right[1], right[2], right[3:]
    by_random = with_random.mean(0) if drawn else None
    return Dcm(
        penalty,
        kept,
        tuple(map(Masked, heads, mask.tolist())),
        curve(learning),
        wilson(with_kept),
        wilson(with_group),
        None if by_random is None else mean_share(by_random, with_random.size),
        wilson(with_nothing),
        share_difference(with_kept, with_nothing),
        None if by_random is None else mean_share_difference(with_kept, by_random),
        share_difference(with_kept, with_group),
        1 / test.prompts.n_choices,
    )


def _rows(request: DcmRequest, _: int, part: Dcm) -> Iterator[Figure]:
    where, n = f"λ {part.penalty:g}", len(part.heads)
    heads = f"{n} of {len(part.mask)} heads"
    yield Figure(where, f"as expected, with {heads}", part.accuracy)
    yield Figure(where, "as expected, with the whole group", part.group)
    if part.random and part.above_random:
        yield Figure(where, f"as expected, with {n} random heads", part.random)
    yield Figure(where, "as expected, with nothing patched", part.nothing)
    yield Figure(where, f"{heads} − nothing", part.above_nothing)
    if part.random and part.above_random:
        yield Figure(where, f"{heads} − random heads", part.above_random)
    yield Figure(where, f"{heads} − whole group", part.above_group)
    yield Figure(where, f"validation, with {heads}", part.validated.accuracy)


def _settings(request: DcmRequest) -> str:
    """The paper's rate, epochs, batch and split are left out."""
    penalties = " ".join(f"{each:g}" for each in request.penalties)
    among = "among all heads" if request.among is Among.all else ""
    usual = {field.name: field.default for field in fields(DcmRequest)}
    own = (
        f"{words} {getattr(request, name):g}"
        for name, words in _IN_WORDS.items()
        if getattr(request, name) != usual[name]
    )
    what = request.prompts.task.desideratum(request.desideratum).label
    named = (f"group {request.group}", f"“{what}”", among, f"λ {penalties}", *own)
    return ", ".join(filter(None, named))


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--group", required=True, help="the key of the group, such as B")
    parser.add_argument(
        "--desideratum", required=True, metavar="NAME", help="what it may carry, such as position"
    )
    parser.add_argument(
        "--among",
        choices=Among.__members__,
        default=Among.group.name,
        help="the circuit’s heads in the group, or all heads at its token (default: group)",
    )
    parser.add_argument(
        "--penalty",
        dest="penalties",
        type=number(0, 100),
        nargs="+",
        default=[PENALTY],
        metavar="λ",
        help="what each head costs, in logits; several are compared (default: "
        f"{PENALTY}, as in the paper)",
    )
    parser.add_argument(
        "--rate", type=number(1e-6, 10), default=RATE, help=f"of learning (default: {RATE})"
    )
    for name, words, default in (
        ("epochs", "times that the pairs are gone through", EPOCHS),
        ("batch", "pairs in a batch", BATCH),
    ):
        parser.add_argument(
            f"--{name}",
            type=whole(1, MAX_PROMPTS),
            default=default,
            help=f"{words} (default: {default}, as in the paper)",
        )
    for name, words, share in (
        ("training", "to learn from", TRAINING),
        ("validation", "to choose the heads with; the rest is the test", VALIDATION),
    ):
        parser.add_argument(
            f"--{name}",
            type=number(0, 1),
            default=share,
            help=f"share of the pairs {words} (default: {share}, as in the paper)",
        )
    parser.add_argument(
        "--save",
        type=checked_by(catalogue.circuit_name),
        metavar="NAME",
        help="keep the heads as a circuit under this name, for the dashboard and for --circuit; "
        "of several penalties, those that do best in the validation",
    )


def _fields(options: Namespace, _: Circuit) -> Mapping[str, Any]:
    return {"penalties": tuple(options.penalties), "among": Among[options.among]}


def _beside(options: Namespace, request: DcmRequest, parts: Finished) -> Mapping[str, Any]:
    circuit = found_circuit(request, best(parts), options.save or request.circuit.name).as_data()
    return {name: circuit[name] for name in ("task", "name", "groups", "provenance")}


def _remarks(_: DcmRequest, parts: Finished) -> Iterator[str]:
    for part in parts:
        heads = ", ".join(map(str, part.heads)) or "none"
        yield f"λ {part.penalty:g}, heads: {heads}; chance: {part.chance:.3f}"
        if not part.is_carried:
            yield f"λ {part.penalty:g}: not clearly more than with nothing patched and than chance"


METHOD = Method(
    "dcm",
    "DCM",
    DcmRequest,
    lambda request: (Dcm,) * len(request.penalties),
    _plan,
    _work,
    _rows,
    _settings,
    command=Command(
        "which heads of a group carry what a desideratum asks for, by learning a mask",
        "dcm base --circuit base --group B --desideratum position --save position",
        N_PAIRS,
        _arguments,
        _fields,
        beside=_beside,
        remarks=_remarks,
    ),
)
