"""What an experiment is run on, and what is done in it, as plain data (no torch)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from backend.core.heads import Site
from backend.tasks.circuit import Circuit, Node
from backend.tasks.prompts import Prompts


class Reading(Enum):
    """What the heads that are switched off are taken out of."""

    circuit = "circuit"
    """Every head outside the circuit is knocked out, at every token (the paper's evaluation)."""
    model = "model"
    """Everything runs as usual, less the heads that are switched off."""


class Mode(Enum):
    """What replaces the output of a head that is switched off."""

    mean = "mean"
    """Its mean over reference prompts (mean ablation, the paper's)."""
    zero = "zero"
    """Zeros (zero ablation)."""
    counterfactual = "counterfactual"
    """Its value in the run on the counterfactual prompt (resample ablation), or on the alternate
    prompt of a desideratum (activation patching)."""
    other = "other"
    """Its value in another model on the same prompt (cross-model activation patching)."""


@dataclass(frozen=True)
class Setting:
    """A model and the prompts it is asked: everything that a run depends on but the heads."""

    model: str
    prompts: Prompts


@dataclass(frozen=True)
class Intervention:
    """Sites that are on, and sites that are switched off and take the mode's value.

    When only the circuit is read, every other site of the model is knocked out, by the mode, or by
    means where that is another model's or a desideratum's; when the whole model is, every other
    site runs as usual.
    """

    reading: Reading
    mode: Mode
    on: frozenset[Site]
    off: frozenset[Site]
    source: str | None = None
    """The model that gives the values, when the mode is another model's."""
    desideratum: str | None = None
    """The test whose alternate prompts give the values, where one does in a counterfactual."""


def intervention(
    circuit: Circuit,
    reading: Reading,
    mode: Mode,
    off: frozenset[Node] = frozenset(),
    switched: frozenset[Node] = frozenset(),
    source: str | None = None,
    desideratum: str | None = None,
) -> Intervention:
    """What it does to the sites when heads of the circuit are off and others are switched.

    Heads outside the circuit are off when only the circuit is read and on when the whole model is,
    unless they are `switched`. A head drawn in two groups that work at one token is one site: off
    in one of them is off.
    """
    off_sites, others = (
        frozenset(Site(head, circuit.task.group(key).position) for key, head in nodes)
        for nodes in (off, switched)
    )
    source = source if mode is Mode.other else None
    tested = desideratum or None if mode is Mode.counterfactual else None
    if reading is Reading.model:
        return Intervention(
            reading, mode, circuit.sites - off_sites, off_sites | others, source, tested
        )
    on = (circuit.sites | others) - off_sites
    return Intervention(reading, mode, on, off_sites, source, tested)
