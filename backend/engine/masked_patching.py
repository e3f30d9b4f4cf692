"""Patching by degrees: heads that are partly their own, and how the answer changes with the parts.

A head under a mask gives mask · own + (1 − mask) · value, where *own* is what it computes in this
very run, below other masked heads, and the value is another prompt's. Nothing of the model changes;
what is differentiated is the mask alone (desiderata-based component masking: Davies et al. 2023;
Prakash et al., circuit functionality). As in `backend.engine.activation_patching`, only what masked
heads can change is run again.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from backend.core.heads import Site
from backend.engine.activation_patching import CleanRun, edited_logits
from backend.engine.architectures import shape_of
from backend.engine.hooks import Edit
from backend.engine.positions import site_mask


def masked_logits(clean: CleanRun, sites: Sequence[Site], mask: Tensor, values: Tensor) -> Tensor:
    """Logits at the last token [n, vocab] under a mask over some sites, at least one.

    mask [n_sites], 1 for a site's own output and 0 for its value, and anything between; values
    [n_layers, n, n_positions, n_heads, d_head]. Gradients reach the mask, and stop at the model.
    Raises ValueError for a site at no token of the task.
    """
    shape, positions = shape_of(clean.model), clean.positions
    masked = site_mask(shape, sites, positions)
    places = torch.tensor([(layer, positions.index(at), index) for (layer, index), at in sites])
    own = torch.ones(masked.shape, dtype=mask.dtype, device=mask.device)
    own = own.index_put(tuple(places.to(mask.device).T), mask)

    def mixing(rows: Tensor, new: Tensor) -> Edit:
        def edit(layer: int, heads: Tensor) -> Tensor | None:
            if not masked[layer].any():
                return None
            return _mixed(heads, rows, masked[layer], own[layer].to(heads), new[layer])

        return edit

    return edited_logits(clean, masked, values, mixing)


def _mixed(heads: Tensor, rows: Tensor, masked: Tensor, own: Tensor, values: Tensor) -> Tensor:
    """One layer's head outputs [n, seq, n_heads, d_head], at some sites in part with new values.

    rows [n, n_positions] holds the tokens; masked [n_positions, n_heads] has the sites; own
    [n_positions, n_heads], their own parts; values [n, n_positions, n_heads, d_head].
    """
    prompts = torch.arange(len(rows), device=rows.device)
    for position in masked.any(-1).nonzero()[:, 0].tolist():
        at, part = (prompts, rows[:, position]), own[position][:, None]
        heads = heads.index_put(at, part * heads[at] + (1 - part) * values[:, position])
    return heads
