"""Faithfulness: how much of a model its circuit does alone, with every other head knocked out.

The accuracy of the circuit over that of the model (Prakash et al., circuit evaluation), or another
metric so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from backend.core.estimates import figure
from backend.core.metrics import Ablation, Metric
from backend.core.progress import Plan, Progress, Report, between, silent, step_of
from backend.core.statistics import Estimate
from backend.methods.asking import averaged, not_done
from backend.methods.method import Command, Figure, Finished, Method, Unfinished
from backend.methods.plans import examined
from backend.models import catalogue
from backend.tasks.chance import ForcedChoice, faithfulness
from backend.tasks.circuit import Circuit
from backend.tasks.prompts import N_PROMPTS, Prompts

if TYPE_CHECKING:
    from backend.methods.evaluation import Evaluation


@dataclass(frozen=True)
class FaithfulnessRequest:
    """How much of each model a circuit does alone."""

    models: tuple[str, ...]
    circuit: Circuit
    prompts: Prompts
    metric: Metric = Metric.accuracy
    ablation: Ablation = Ablation.mean


@dataclass(frozen=True)
class FaithfulnessReport:
    """How much of a model its circuit does alone (Prakash et al., circuit evaluation)."""

    model: Estimate
    circuit: Estimate
    faithfulness: Estimate
    n_reference: int
    forced_choice: ForcedChoice | None = None

    @property
    def choices(self) -> tuple[ForcedChoice | None]:
        """How the model does beside guessing."""
        return (self.forced_choice,)


def faithfulness_report(
    evaluation: Evaluation,
    circuit: Circuit,
    progress: Progress = silent,
    metric: Metric = Metric.accuracy,
) -> FaithfulnessReport:
    """A metric of the circuit alone over that of the model, on the same prompts.

    Raises UserError when the circuit has heads that the model does not have.
    """
    circuit.check(evaluation.loaded.shape, evaluation.loaded.name)
    (alone,) = evaluation.circuit_only([circuit.sites], between(progress, 0, 0.5), metric=metric)
    whole = evaluation.whole_by(metric, between(progress, 0.5, 1))
    return FaithfulnessReport(
        figure(metric, whole),
        figure(metric, alone),
        faithfulness(alone, whole, evaluation.choice, metric),
        evaluation.n_reference,
        evaluation.choice,
    )


def _plan(request: FaithfulnessRequest) -> Plan:
    return [examined(name, request.prompts, 1) for name in request.models]


def _work(
    request: FaithfulnessRequest, done: Finished, report: Report, _: Unfinished
) -> Iterator[FaithfulnessReport]:
    plan = _plan(request)
    for place, name in not_done(request.models, done):
        evaluation = averaged(name, request, report, plan, place)
        told = step_of(report, plan, place, 1)
        yield faithfulness_report(evaluation, request.circuit, told, request.metric)


def _rows(request: FaithfulnessRequest, place: int, part: FaithfulnessReport) -> Iterator[Figure]:
    model = catalogue.label(request.models[place])
    yield Figure(model, "full model", part.model)
    yield Figure(model, "circuit", part.circuit)
    yield Figure(model, "faithfulness", part.faithfulness)


METHOD = Method(
    "faithfulness",
    "Faithfulness",
    FaithfulnessRequest,
    lambda request: (FaithfulnessReport,) * len(request.models),
    _plan,
    _work,
    _rows,
    command=Command(
        "how much of the models a circuit does alone, with everything else knocked out",
        "faithfulness base arithmetic-full --circuit base",
        N_PROMPTS,
    ),
)
