"""The paper's own results out of `cache/published/`, as plain values (no torch).

Source: Prakash et al., *Fine-Tuning Enhances Existing Mechanisms: A Case Study on Entity Tracking*,
ICLR 2024, arXiv:2402.14811; the paper, its project page and the authors' repository
(Nix07/finetuning, commit 379765d). `cache/published/README.md` says what each file is. Every
function reads its file anew, and raises UserError when it is missing or damaged.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np

from backend.core.errors import UserError
from backend.core.heads import Head, ModelShape
from backend.core.serialize import from_json
from backend.core.statistics import Estimate, wilson
from backend.tasks.circuit import Circuit
from backend.tasks.entity_tracking import ENTITY_TRACKING

FOLDER = Path(__file__).parent.parent / "cache" / "published"
CITATION = (
    "Prakash et al., Fine-Tuning Enhances Existing Mechanisms: A Case Study on Entity Tracking, "
    "ICLR 2024, arXiv:2402.14811; the authors’ repository Nix07/finetuning, commit 379765d"
)
SHAPE = ModelShape(32, 32, 32, 128)
"""The shape of Llama-7B and of the models fine-tuned from it."""

MODELS: Mapping[str, str] = MappingProxyType(
    {"llama-7b": "Llama-7B", "goat-7b": "Goat-7B", "float-7b": "FLoat-7B"}
)
"""The models with a published circuit, by their names in the files."""

LABELS: Mapping[str, str] = MappingProxyType(
    {"llama-7b": "Llama-7B", "vicuna-7b": "Vicuna-7B", **MODELS}
)
"""Every model with a published figure, in the order of the paper's table."""

ATTENTION_EDGES = (
    "from_last_to_correct_obj_pos",
    "from_last_to_query_box_pos",
    "from_query_box_to_prev_query_box",
    "from_last_to_random_pos",
    "from_query_box_to_random_pos",
)
"""The attention edges that were cut; the last two are controls."""

LEAST_GAINS: Mapping[str, float] = MappingProxyType(
    {"llama-7b": 0.01, "goat-7b": 0.0, "float-7b": 0.0}
)
"""Where the cut of minimality runs that gives each stored circuit."""

N_PATCHING, N_FAITHFULNESS, N_CMAP, N_MINIMALITY, N_REPEAT = 300, 500, 500, 100, 500
"""How many prompts path patching, faithfulness, CMAP, minimality and a repeat of patching had."""

CHANCE = 1 / 7
"""The share of right answers of a guess among seven boxes."""

NOTHING_PATCHED = 0.134
"""What the desideratum “position” gives when no head is patched."""


class Flaw(Enum):
    """What is known to be wrong with published figures; to be told wherever they are shown."""

    adapter = (
        "Goat-7B: the authors’ interventions multiplied by the raw `o_proj` weight, which leaves "
        "its LoRA adapter out (inferred from their code). A correct engine may not reproduce its "
        "circuit’s 0.73 and 0.89."
    )
    shifted = (
        "Goat-7B’s scores are shifted as a whole: the median head scores −0.087 in A and −0.024 in "
        "C, and 0.000 in the other two models. An adapter that was left out could do this."
    )
    a_and_b = (
        "“A” alone may have been A and B (a list extended in place), and these numbers were typed "
        "by hand."
    )
    cuts = (
        "Llama-7B’s circuit holds the heads that add at least 1 %; those of Goat-7B and FLoat-7B "
        "match a cut at 0, so they hold heads that add nothing."
    )
    replacement = "Random circuits were drawn with replacement."
    label = (
        "“Label” is 0.0 everywhere by construction: the expected token was encoded without the "
        "word-start mark that every token of the prompt has, so no model could answer it (inferred "
        "from the authors’ code). What the groups encode about the label was not measured."
    )
    first_index = (
        "The base prompt’s index was read from its question, which has one segment, and so was "
        "always the first: alternate prompts never ask for the first box, and may ask for the same "
        "index as the base, about one in seven, which counts as right with nothing patched."
    )
    foreign_token = (
        "In activation patching, D’s values were read at the base prompt’s token, not at the "
        "alternate’s own, and D’s mask was validated with the tokens of a training batch."
    )
    summary = (
        "One summary quotes 54 % for Llama-7B and more than 97 % for the fine-tuned models; this "
        "is the authors’ own table."
    )


@dataclass(frozen=True)
class Faithfulness:
    """A row of the paper's table 1: accuracies, and circuit / model."""

    finetuned: str | None
    model: float
    circuit: float
    random: float
    faithfulness: float


@dataclass(frozen=True)
class RandomSets:
    """Accuracies without 20 random sets of heads; `score` is |model − circuit|."""

    model_mean: float
    model_std: float
    circuit_mean: float
    circuit_std: float
    score_mean: float
    score_std: float


@dataclass(frozen=True)
class WithoutGroup:
    """Accuracies of circuit and model, each without one group."""

    circuit: float
    model: float


@dataclass(frozen=True)
class Completeness:
    """How alike FLoat-7B and its circuit lose heads; groups by letter."""

    random_sets: RandomSets
    groups: Mapping[str, WithoutGroup]


@dataclass(frozen=True)
class Removed:
    """A head of the pool, and the circuit's accuracy without K, then without K and this head."""

    head: Head
    accuracy_before: float
    accuracy_after: float

    @property
    def gain(self) -> float:
        """What the head adds, as a share; NaN where nothing is left."""
        if not self.accuracy_after:
            return float("nan")
        return self.accuracy_before / self.accuracy_after - 1


@dataclass(frozen=True)
class Desideratum:
    """The heads of a group that a DCM mask kept, and the accuracy of patching them."""

    heads: tuple[Head, ...]
    test_accuracy: float


Desiderata = Mapping[str, Mapping[str, Desideratum]]
"""By group, then by desideratum."""

Patching = Mapping[str, Mapping[str, tuple[float, ...]]]
"""Shares of ten repeats by group, then by desideratum."""

Part = TypeVar("Part")


def circuit(model: str) -> Circuit:
    """The published circuit of a model, with its path-patching scores in the provenance."""
    file = "circuits.json"
    groups = _part(_read(file, Mapping[str, Mapping[str, tuple[Head, ...]]]), model, file)
    heads = {key: _part(groups, key, f"{file}, {model}") for key in ENTITY_TRACKING.keys}
    found = Circuit.of(
        ENTITY_TRACKING,
        heads,
        LABELS[model],
        {
            "model": LABELS[model],
            "source": CITATION,
            "n_prompts": N_PATCHING,
            "scores": scores(model),
        },
    )
    found.check(SHAPE, LABELS[model])
    return found


def scores(model: str) -> Mapping[str, tuple[tuple[float, ...], ...]]:
    """Path-patching scores of every head by group: [32][32], mean over 300 prompts."""
    file = "path_patching_scores.json"
    kind = Mapping[str, Mapping[str, tuple[tuple[float, ...], ...]]]
    tables = _by_group(_part(_read(file, kind), model, file), file)
    sizes = {(len(table), len(row)) for table in tables.values() for row in table}
    if sizes != {SHAPE[:2]}:
        raise _damaged(f"{file}, {model}: the scores are not 32 × 32")
    return tables


def faithfulness() -> Mapping[str, Faithfulness]:
    """Faithfulness of Llama-7B's circuit by model (table 1; 500 prompts)."""
    rows = _table("faithfulness_llama-7b_circuit", Mapping[str, Faithfulness])
    return {name: _part(rows, name, "tables.json, faithfulness") for name in LABELS}


def cmap() -> Mapping[str, Mapping[str, float]]:
    """Accuracies of CMAP into Llama-7B by source model: source, target, full circuit, A to D."""
    found = _table("cmap_output_into_llama-7b", Mapping[str, Mapping[str, float]])
    names = ("source", "target", "full circuit", *ENTITY_TRACKING.keys)
    where = "tables.json, CMAP"
    return {
        source: {name: _part(_part(found, source, where), name, where) for name in names}
        for source in ("goat-7b", "float-7b")
    }


def completeness() -> Completeness:
    """Completeness of FLoat-7B's circuit, the one for which it is known."""
    found: Completeness = _table("completeness_float-7b_circuit", Completeness)
    _by_group(found.groups, "tables.json, completeness")
    return found


def minimality(model: str) -> Mapping[str, tuple[Removed, ...]]:
    """What each head of the pool adds, by group (100 prompts)."""
    file = "minimality.json"
    kind = Mapping[str, Mapping[str, tuple[Removed, ...]]]
    return _by_group(_part(_read(file, kind), model, file), file)


def desiderata(model: str) -> Desiderata:
    """What the groups of a model's circuit encode, by DCM (λ = 0.01)."""
    file = "dcm.json"
    found = _part(_read(file, Mapping[str, Desiderata]), model, file)
    return _by_group(found, file)


def patching(circuit_of: str) -> Mapping[str, Patching]:
    """Activation patching of the groups of a circuit, by the model that was patched.

    Shares of prompts with the desideratum's expected answer, in each of ten repeats (500 prompts).
    """
    found = _patching(circuit_of)
    return {name: _by_group(_part(found, name, _PATCHING), _PATCHING) for name in LABELS}


def further_patching() -> Mapping[str, tuple[float, ...]]:
    """The same for group B of Llama-7B, by desiderata that the other groups were not asked."""
    name = "llama-7b (additional desiderata)"
    return _part(_part(_patching("llama-7b"), name, _PATCHING), "B", _PATCHING)


def attention_knockout() -> Mapping[str, Mapping[int, float]]:
    """Accuracy of Llama-7B by the attention edge that is cut, then by the cut's first layer."""
    file = "attention_knockout_llama-7b.json"
    edges = _read(file, Mapping[str, Mapping[str, float]])
    try:
        return {
            edge: {int(layer): accuracy for layer, accuracy in _part(edges, edge, file).items()}
            for edge in ATTENTION_EDGES
        }
    except ValueError as error:
        raise _damaged(f"{file}: {error}") from error


def estimate(share: float, n: int) -> Estimate:
    """A published accuracy with Wilson's interval, which is ours: the paper gives none."""
    return wilson(np.arange(n) < round(share * n))


_PATCHING = "functionality_patching_percent.json"


def _patching(circuit_of: str) -> Mapping[str, Patching]:
    percent = _read(_PATCHING, Mapping[str, Mapping[str, Patching]])
    return {
        name: {
            group: {asked: tuple(p / 100 for p in repeats) for asked, repeats in found.items()}
            for group, found in groups.items()
        }
        for name, groups in _part(percent, f"{circuit_of} circuit", _PATCHING).items()
    }


def _table(name: str, kind: Any) -> Any:
    tables = _read("tables.json", None)
    if not isinstance(tables, dict) or name not in tables:
        raise _damaged(f"tables.json: there is no “{name}”")
    return _revived("tables.json", kind, tables[name])


def _read(file: str, kind: Any) -> Any:
    """The file's content as values of type `kind`; as it is if that is None."""
    try:
        data = json.loads((FOLDER / file).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(f"{file}: {error}") from error
    return data if kind is None else _revived(file, kind, data)


def _revived(file: str, kind: Any, data: Any) -> Any:
    try:
        return from_json(kind, data)
    except UserError as error:
        raise _damaged(f"{file}: it holds something else than expected") from error


def _by_group(groups: Mapping[str, Part], file: str) -> Mapping[str, Part]:
    return {name: _part(groups, name, file) for name in ENTITY_TRACKING.keys}


def _part(whole: Mapping[str, Part], name: str, where: str) -> Part:
    if name not in whole:
        raise _damaged(f"{where}: there is no “{name}”")
    return whole[name]


def _damaged(what: str) -> UserError:
    return UserError(
        f"The paper’s results cannot be read ({what}). Restore the files, for example with "
        "`git checkout cache/published`."
    )
