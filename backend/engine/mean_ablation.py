"""*Circuit only*: what the circuit does alone, with everything else knocked out.

Every head outside the circuit is set to its mean at every token (Prakash et al., circuit
evaluation). Circuits work at the three vital tokens, so the other tokens are the same for all
circuits: their keys and values are computed once, as a backdrop, and each circuit costs a run over
three tokens.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from backend.core.circuit import Site
from backend.engine.answers import right
from backend.engine.architectures import last_logits, logits_of, shape_of
from backend.engine.hooks import at_tokens, edited_head_outputs
from backend.engine.positions import VITAL, input_ids, site_mask, vital_means, vital_tokens
from backend.engine.replay import Context, full_run, replay
from backend.engine.validation import holds
from backend.tasks.entity_tracking import PromptSet

_CIRCUITS_AT_ONCE = 8


@dataclass(frozen=True, eq=False)
class Backdrop:
    """A model with every head knocked out, ready for circuits to be switched on.

    input_ids [n, seq]; tokens [n, 3], the vital ones; means [n_layers, seq, n_heads, d_head], what
    heads give at other tokens; off_values [n_layers, n, 3, n_heads, d_head], what a head gives at
    vital ones when it is not on. Without a `run` to start from, everything is run whole.
    """

    model: nn.Module
    input_ids: Tensor
    tokens: Tensor
    means: Tensor
    off_values: Tensor
    run: _OtherTokens | None


@dataclass(frozen=True, eq=False)
class _OtherTokens:
    """What circuits do not change: keys and values of other tokens, and what enters the model.

    hidden [n, 3, d_model]: embeddings of the vital tokens.
    """

    context: Context
    hidden: Tensor


def prepare_backdrop(model: nn.Module, prompts: PromptSet, means: Tensor) -> Backdrop:
    """Run the prompts with every head at its mean; `means` [n_layers, seq, n_heads, d_head]."""
    whole = _to_run_whole(model, prompts, means)
    return replace(whole, run=_other_tokens(whole)) if holds(model) else whole


def _to_run_whole(model: nn.Module, prompts: PromptSet, means: Tensor) -> Backdrop:
    ids, tokens = input_ids(model, prompts), vital_tokens(model, prompts)
    return Backdrop(model, ids, tokens, means, vital_means(means, prompts), None)


@torch.no_grad()
def _other_tokens(backdrop: Backdrop) -> _OtherTokens:
    model, means = backdrop.model, backdrop.means
    ids, tokens = backdrop.input_ids, backdrop.tokens
    with edited_head_outputs(model, lambda layer, heads: means[layer].expand_as(heads)):
        run = full_run(model, ids)
    others = torch.ones_like(ids, dtype=torch.bool).scatter(1, tokens, False)
    other_tokens = others.nonzero()[:, 1].view(len(ids), -1)
    return _OtherTokens(run.context.at(other_tokens), at_tokens(run.residuals[0], tokens))


def with_values(backdrop: Backdrop, sites: Collection[Site], values: Tensor) -> Backdrop:
    """The backdrop in which these sites, while off, take `values` instead of the mean.

    values [n_layers, n, 3, n_heads, d_head], of a counterfactual or another model.
    """
    chosen = site_mask(shape_of(backdrop.model), sites).to(values.device)
    off_values = torch.where(chosen[:, None, ..., None], values, backdrop.off_values)
    return replace(backdrop, off_values=off_values)


def circuit_logits(backdrop: Backdrop, on: Collection[Site]) -> Tensor:
    """Logits at the last token [n, vocab] when only these sites compute freely."""
    return circuits_logits(backdrop, [on])[0]


@torch.no_grad()
def circuits_logits(backdrop: Backdrop, circuits: Sequence[Collection[Site]]) -> Tensor:
    """`circuit_logits` of several circuits in one run: [n_circuits, n, vocab]."""
    model, run = backdrop.model, backdrop.run
    if run is None:
        return torch.stack([_run_whole(backdrop, sites) for sites in circuits])
    shape = shape_of(model)
    on = torch.stack([site_mask(shape, sites) for sites in circuits], 1).to(backdrop.tokens.device)

    def switch_off(layer: int, heads: Tensor) -> Tensor:
        by_circuit = heads.unflatten(1, (len(circuits), len(VITAL)))
        off_values = backdrop.off_values[layer][:, None]
        return torch.where(on[layer][..., None], by_circuit, off_values).flatten(1, 2)

    rows = run.hidden.repeat(1, len(circuits), 1)
    with edited_head_outputs(model, switch_off):
        final = replay(model, rows, backdrop.tokens, run.context, variants=len(circuits))
    return logits_of(model, final.transpose(0, 1))


def _run_whole(backdrop: Backdrop, on: Collection[Site]) -> Tensor:
    """Logits [n, vocab] when only these sites compute freely, by one run of the whole prompts."""
    mask = site_mask(shape_of(backdrop.model), on).to(backdrop.tokens.device)
    prompts = torch.arange(len(backdrop.tokens), device=backdrop.tokens.device)

    def switch_off(layer: int, heads: Tensor) -> Tensor:
        given = backdrop.means[layer].expand_as(heads).clone()
        for position, at in enumerate(backdrop.tokens.T):
            free, off = heads[prompts, at], backdrop.off_values[layer][:, position]
            given[prompts, at] = torch.where(mask[layer, position][:, None], free, off)
        return given

    with edited_head_outputs(backdrop.model, switch_off):
        return last_logits(backdrop.model, backdrop.input_ids)


def circuits_right(
    backdrop: Backdrop, circuits: Sequence[Collection[Site]], answer_ids: Tensor
) -> Iterator[Tensor]:
    """Whether each circuit alone gives the answers `answer_ids` [n]: some rows [k, n] at a time."""
    for start in range(0, len(circuits), _CIRCUITS_AT_ONCE):
        some = circuits[start : start + _CIRCUITS_AT_ONCE]
        yield right(circuits_logits(backdrop, some), answer_ids).cpu()


def circuit_logits_plainly(
    model: nn.Module, prompts: PromptSet, means: Tensor, on: Collection[Site]
) -> Tensor:
    """`circuit_logits` by its definition, one hooked run of the whole prompts: [n, vocab]."""
    return circuit_logits(_to_run_whole(model, prompts, means), on)
