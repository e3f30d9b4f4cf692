"""Head outputs averaged over reference prompts: the same for all that is asked with one seed."""

from __future__ import annotations

from hashlib import sha256
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from backend.core.progress import Progress, silent
from backend.core.runtime import at_work
from backend.engine.positions import mean_head_outputs
from backend.models import loaded_models
from backend.models.loading import LoadedModel
from backend.tasks.prompts import PromptSet

_kept: WeakKeyDictionary[nn.Module, dict[str, Tensor]] = WeakKeyDictionary()
"""By model, and by the token ids of the reference; they go with the model."""


def reference_means(
    loaded: LoadedModel, reference: PromptSet, progress: Progress = silent
) -> Tensor:
    """`mean_head_outputs` [n_layers, seq, n_heads, d_head].

    Made once for the same prompts and a model that is kept loaded; one that a caller holds may
    change under his hands, and is run each time.
    """
    is_kept = loaded_models.loaded().get(loaded.name) is loaded
    kept = _kept.setdefault(loaded.model, {}) if is_kept else {}
    ids = reference.input_ids
    name = sha256(f"{ids.shape}".encode() + ids.tobytes()).hexdigest()
    if name not in kept:
        with at_work(loaded.runtime):
            kept[name] = mean_head_outputs(loaded.model, reference, progress)
    return kept[name]
