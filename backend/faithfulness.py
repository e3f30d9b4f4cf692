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

from backend.circuit import Site
from backend.hooks import at_tokens, decoder, edited_head_outputs, shape_of, unwrapped
from backend.replay import Context, full_run, logits_of, replay
from backend.tasks import PromptSet
from backend.vital import VITAL, input_ids, site_mask, vital_means, vital_tokens

_CIRCUITS_AT_ONCE = 8


@dataclass(frozen=True, eq=False)
class Backdrop:
    """A model with every head knocked out, ready for circuits to be switched on.

    hidden [n, 3, d_model]: embeddings of the vital tokens, at `tokens` [n, 3].
    off_values [n_layers, n, 3, n_heads, d_head]: what a head gives when it is not on.
    """

    model: nn.Module
    context: Context
    tokens: Tensor
    hidden: Tensor
    off_values: Tensor


@torch.no_grad()
def prepare_backdrop(model: nn.Module, prompts: PromptSet, means: Tensor) -> Backdrop:
    """Run the prompts with every head at its mean; `means` [n_layers, seq, n_heads, d_head]."""
    ids, tokens = input_ids(model, prompts), vital_tokens(model, prompts)
    with edited_head_outputs(model, lambda layer, heads: means[layer].expand_as(heads)):
        run = full_run(model, ids)
    others = torch.ones_like(ids, dtype=torch.bool).scatter(1, tokens, False)
    other_tokens = others.nonzero()[:, 1].view(len(ids), -1)
    return Backdrop(
        model,
        run.context.at(other_tokens),
        tokens,
        at_tokens(run.residuals[0], tokens),
        vital_means(means, prompts),
    )


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
    model = backdrop.model
    shape = shape_of(model)
    on = torch.stack([site_mask(shape, sites) for sites in circuits], 1).to(backdrop.tokens.device)

    def switch_off(layer: int, heads: Tensor) -> Tensor:
        by_circuit = heads.unflatten(1, (len(circuits), len(VITAL)))
        off_values = backdrop.off_values[layer][:, None]
        return torch.where(on[layer][..., None], by_circuit, off_values).flatten(1, 2)

    rows = backdrop.hidden.repeat(1, len(circuits), 1)
    with edited_head_outputs(model, switch_off):
        final = replay(model, rows, backdrop.tokens, backdrop.context, variants=len(circuits))
    return logits_of(model, final.transpose(0, 1))


def circuits_right(
    backdrop: Backdrop, circuits: Sequence[Collection[Site]], answer_ids: Tensor
) -> Iterator[Tensor]:
    """Whether each circuit alone gives the answers `answer_ids` [n]: some rows [k, n] at a time."""
    answers = answer_ids.to(backdrop.tokens.device)
    for start in range(0, len(circuits), _CIRCUITS_AT_ONCE):
        some = circuits[start : start + _CIRCUITS_AT_ONCE]
        yield (circuits_logits(backdrop, some).argmax(-1) == answers).cpu()


@torch.no_grad()
def circuit_logits_plainly(
    model: nn.Module, prompts: PromptSet, means: Tensor, on: Collection[Site]
) -> Tensor:
    """`circuit_logits` by its definition, one hooked run of the whole prompts: [n, vocab]."""
    ids, tokens = input_ids(model, prompts), vital_tokens(model, prompts)
    mask = site_mask(shape_of(model), on).to(ids.device)

    def switch_off(layer: int, heads: Tensor) -> Tensor:
        free = torch.zeros(heads.shape[:3], dtype=torch.bool, device=heads.device)
        for position, at in enumerate(tokens.T):
            free[torch.arange(len(ids), device=at.device), at] = mask[layer, position]
        return torch.where(free[..., None], heads, means[layer])

    with edited_head_outputs(model, switch_off):
        final = decoder(model)(input_ids=ids, use_cache=False).last_hidden_state[:, -1]
    logits: Tensor = unwrapped(model).get_output_embeddings()(final)
    return logits
