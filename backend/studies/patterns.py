"""Where every head of a model attends on one prompt, as it is and with heads switched.

Importing this module imports torch: pages reach it from a background job.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from backend.core.errors import UserError
from backend.core.metrics import Ablation
from backend.core.runtime import at_work
from backend.engine.activation_patching import giving
from backend.engine.attention import attention_patterns
from backend.engine.hooks import Edit, edited_head_outputs
from backend.engine.mean_ablation import (
    ablated_to_run_whole,
    alone,
    resampled_to_run_whole,
    with_values,
)
from backend.engine.positions import (
    input_ids,
    position_head_outputs,
    position_means,
    position_tokens,
    site_mask,
)
from backend.methods.cmap import compatible, read_alike
from backend.methods.evaluation import Evaluation, evaluation
from backend.models import elsewhere
from backend.models.elsewhere import Elsewhere
from backend.models.loaded_models import load, until_unload
from backend.models.loading import LoadedModel
from backend.studies import remote
from backend.tasks.prompts import Prompts, PromptSet, select
from backend.tasks.setting import Intervention, Mode, Reading

_ABLATIONS: Mapping[Mode, Ablation] = {
    Mode.zero: Ablation.zero,
    Mode.counterfactual: Ablation.resample,
}


@dataclass(frozen=True, eq=False)
class Patterns:
    """Attention of every head on one prompt: weights [n_layers, n_heads, seq, seq].

    words [seq]: its tokens; roles [seq]: theirs, if they have one; positions: the task's tokens.
    """

    words: tuple[str, ...]
    roles: tuple[str | None, ...]
    positions: Mapping[str, int]
    weights: NDArray[np.float32]


def patterns(
    model: str, prompts: Prompts, number: int, switched: Intervention | None = None
) -> Patterns:
    """Of the prompt of this number, in the model as it is, or with heads switched.

    Raises UserError when the model cannot be loaded, does not have the heads, or does not fit the
    model that the intervention takes values from.
    """
    if remote.is_remote(model):
        return _patterns_there(elsewhere.known()[model], model, prompts, number, switched)
    load(model)  # files that have changed are another model: what was kept of it goes
    return _patterns(model, prompts, number, switched)


@lru_cache(maxsize=8)
def _patterns_there(
    there: Elsewhere, model: str, prompts: Prompts, number: int, switched: Intervention | None
) -> Patterns:
    """there: the model as it is known now, so that of another one nothing is kept."""
    return remote.patterns(model, prompts, number, switched)


@until_unload(maxsize=8)
def _patterns(model: str, prompts: Prompts, number: int, switched: Intervention | None) -> Patterns:
    loaded = load(model)
    drawn = prompts.sample(loaded.tokenizer)
    row = number % len(drawn)
    one = _only(drawn, row)
    with at_work(loaded.runtime):
        edit = _edit(loaded, prompts, row, one, switched) if switched else None
        with edited_head_outputs(loaded.model, edit) if edit else nullcontext():
            weights = attention_patterns(loaded.model, input_ids(loaded.model, one))
    ids = loaded.tokenizer.convert_ids_to_tokens(one.input_ids[0].tolist())
    return Patterns(
        tuple(word or str(token) for word, token in zip(one.words(0), ids, strict=True)),
        tuple(one.roles_of(0)),
        {name: int(tokens[0]) for name, tokens in one.positions.items()},
        weights[:, 0].float().cpu().numpy(),
    )


def _only(prompts: PromptSet, row: int) -> PromptSet:
    return select(prompts, np.arange(len(prompts)) == row)


def _edit(
    loaded: LoadedModel, prompts: Prompts, row: int, one: PromptSet, switched: Intervention
) -> Edit:
    """What the intervention makes of head outputs on the one prompt."""
    model, names = loaded.model, one.task.position_names
    others = switched.source or switched.desideratum
    ablation = Ablation.mean if others else _ABLATIONS.get(switched.mode, Ablation.mean)
    examined = evaluation(loaded.name, prompts, ablation)
    if switched.reading is Reading.model:
        values = _values(loaded, examined, row, one, switched)
        return giving(
            position_tokens(model, one), site_mask(loaded.shape, switched.off, names), values
        )
    if ablation is Ablation.resample:
        knocked_out = resampled_to_run_whole(model, one, _only(examined.counterfactual, row))
    else:
        knocked_out = ablated_to_run_whole(model, one, examined.means)
    if others:
        values = _values(loaded, examined, row, one, switched)
        knocked_out = with_values(knocked_out, switched.off, values)
    return alone(knocked_out, switched.on)


def _values(
    loaded: LoadedModel, examined: Evaluation, row: int, one: PromptSet, switched: Intervention
) -> Tensor:
    """What heads give that are off: [n_layers, 1, n_positions, n_heads, d_head]."""
    if switched.source:
        return _from_another(loaded, switched.source, one)
    if switched.desideratum:
        test = one.task.desideratum(switched.desideratum)
        pairs = test.draw(loaded.tokenizer, examined.prompts, examined.prompts.seed)
        return position_head_outputs(loaded.model, _only(pairs.alternate, row))
    if switched.mode is Mode.counterfactual:
        return position_head_outputs(loaded.model, _only(examined.counterfactual, row))
    return position_means(examined.means, one)


def _from_another(loaded: LoadedModel, source: str, one: PromptSet) -> Any:
    other = load(source)
    if reason := compatible(other, loaded) or read_alike(other, loaded, one):
        raise UserError(f"{reason} Choose a source of the same shape and tokenizer, loaded alike.")
    with at_work(other.runtime):
        return position_head_outputs(other.model, one)
