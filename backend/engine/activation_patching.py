"""*Whole model minus these heads*: what the model does when some heads give other values.

The values are means (knock-out), a counterfactual's (activation patching) or another model's
(CMAP). Only the layers from the first patched one and the tokens from the first patched one can
change; only they are run again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from backend.core.heads import Site
from backend.engine.architectures import last_logits, logits_of, shape_of
from backend.engine.hooks import Edit, edited_head_outputs
from backend.engine.positions import input_ids, position_tokens, site_mask
from backend.engine.replay import FullRun, full_run, replay
from backend.engine.validation import can_take_apart
from backend.tasks.prompts import PromptSet


@dataclass(frozen=True, eq=False)
class CleanRun:
    """A model's untouched run on some prompts; input_ids [n, seq], tokens [n, n_positions], where
    the task's `positions` are.

    Without a `run` to start from, everything is run whole.
    """

    model: nn.Module
    input_ids: Tensor
    tokens: Tensor
    positions: tuple[str, ...]
    run: FullRun | None


def prepare_clean(model: nn.Module, prompts: PromptSet) -> CleanRun:
    """Run the prompts once, keeping what patching needs."""
    whole = _to_run_whole(model, prompts)
    return replace(whole, run=full_run(model, whole.input_ids)) if can_take_apart(model) else whole


def _to_run_whole(model: nn.Module, prompts: PromptSet) -> CleanRun:
    ids, tokens = input_ids(model, prompts), position_tokens(model, prompts)
    return CleanRun(model, ids, tokens, prompts.task.position_names, None)


def clean_logits(clean: CleanRun) -> Tensor:
    """Logits at the last token of the untouched run: [n, vocab]."""
    if clean.run is None:
        return last_logits(clean.model, clean.input_ids)
    return logits_of(clean.model, clean.run.residuals[-1][:, -1])


@torch.no_grad()
def patched_logits(clean: CleanRun, patches: Collection[Site], values: Tensor) -> Tensor:
    """Logits at the last token [n, vocab] when these sites give `values`.

    values [n_layers, n, n_positions, n_heads, d_head].
    """
    if not patches:
        return clean_logits(clean)
    mask = site_mask(shape_of(clean.model), patches, clean.positions)
    return edited_logits(clean, mask, values, lambda rows, new: giving(rows, mask, new))


def edited_logits(
    clean: CleanRun, mask: Tensor, values: Tensor, edit_of: Callable[[Tensor, Tensor], Edit]
) -> Tensor:
    """Logits at the last token [n, vocab] when head outputs pass through an edit.

    mask [n_layers, n_positions, n_heads] has the sites that it changes; edit_of(rows, values) is
    given where the task's tokens are among those run again, [some, n_positions], and `values`
    [n_layers, some, n_positions, n_heads, d_head] of the same prompts. Gradients flow through it.
    """
    run = clean.run
    if run is None:
        with edited_head_outputs(clean.model, edit_of(clean.tokens, values)):
            return last_logits(clean.model, clean.input_ids)

    def rerun(prompts: Tensor | slice, start: int, layer: int) -> Tensor:
        hidden = run.residuals[layer][prompts, start:]
        tokens = torch.arange(start, start + hidden.shape[1], device=hidden.device)[None]
        context = run.context.before(start).of_prompts(prompts)
        edit = edit_of(clean.tokens[prompts] - start, values[:, prompts])
        with edited_head_outputs(clean.model, edit):
            return replay(clean.model, hidden, tokens, context, layer)[:, 0]

    return rerun_logits(clean, mask, rerun)


def rerun_logits(
    clean: CleanRun, mask: Tensor, rerun: Callable[[Tensor | slice, int, int], Tensor]
) -> Tensor:
    """Logits at the last token [n, vocab] after running again only what the sites can change.

    mask [n_layers, n_positions, n_heads] has the sites; `rerun` is given prompts whose first site
    is at the same token, that token, and the first layer, and gives the residuals [n, d_model]
    that leave the last layer at the last token.
    """
    first_layer = int(mask.any(-1).any(-1).nonzero()[0])
    first_token = clean.tokens[:, int(mask.any(-1).any(0).nonzero()[0])]
    starts = first_token.unique().tolist()
    if len(starts) == 1:
        return logits_of(clean.model, rerun(slice(None), starts[0], first_layer))
    by_start = [(first_token == start).nonzero()[:, 0] for start in starts]
    finals = [
        rerun(prompts, start, first_layer) for prompts, start in zip(by_start, starts, strict=True)
    ]
    return logits_of(clean.model, torch.cat(finals)[torch.cat(by_start).argsort()])


def patched_logits_plainly(
    model: nn.Module, prompts: PromptSet, patches: Collection[Site], values: Tensor
) -> Tensor:
    """`patched_logits` by its definition, one hooked run of the whole prompts: [n, vocab]."""
    return patched_logits(_to_run_whole(model, prompts), patches, values)


def giving(rows: Tensor, mask: Tensor, values: Tensor) -> Edit:
    """Give the sites of `mask` [n_layers, 3, n_heads] their values; `rows` [n, n_positions] holds
    the tokens."""

    def edit(layer: int, heads: Tensor) -> Tensor | None:
        return given(heads, rows, mask[layer], values[layer]) if mask[layer].any() else None

    return edit


def given(heads: Tensor, rows: Tensor, mask: Tensor, values: Tensor) -> Tensor:
    """One layer's head outputs [n, seq, n_heads, d_head] with new values at some sites.

    rows [n, n_positions] holds the tokens; mask [n_positions, n_heads]; values [n, n_positions,
    n_heads, d_head].
    """
    prompts = torch.arange(len(rows), device=rows.device)
    heads = heads.clone()
    for position, chosen in enumerate(mask):
        if chosen.any():
            at = prompts, rows[:, position]
            new = values[:, position]
            heads[at] = torch.where(chosen.to(heads.device)[:, None], new, heads[at])
    return heads
