"""A head with another model's queries, keys or values, and its own everything else.

At a site, a head's output is attention of one token to the tokens it sees. Transplanting

- q: the site's query is the source's, keys and values are the target's own in this run;
- k: the keys of all tokens that the site sees are the source's, query and values are its own;
- v: likewise the values.

Every prompt uses its own tokens. Held fixed: nobody else reads what is transplanted. The outputs of
the same head at other tokens, and of other heads at the site's token, come from the target's own
queries, keys and values, computed in this run; downstream of the site everything is recomputed.
(The authors' code sets head outputs at all tokens but the last back to the untouched target's. For
sites at the last token that is the same; of sites before it, it would leave nothing. And of keys
and values, it takes the source's at the tokens before the site only: what the site has to itself
stays the target's there, and is the source's here.)

Queries, keys and values are what leaves the projections of the source; the target norms and rotates
them. Under grouped-query attention keys and values belong to a key-value head that several query
heads share: a site then reads the source's key-value head, its siblings their own.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from backend.core.heads import Site
from backend.engine.activation_patching import CleanRun, clean_logits, given, rerun_logits
from backend.engine.architectures import Projection, decoder, last_logits, layers, shape_of
from backend.engine.hooks import (
    Edit,
    edited_head_outputs,
    edited_projections,
    recorded_head_outputs,
)
from backend.engine.positions import input_ids, site_mask
from backend.engine.replay import Context, Recorder, layer_inputs
from backend.tasks.prompts import PromptSet


@dataclass(frozen=True, eq=False)
class Foreign:
    """A source's queries, keys or values, ready to be read by a target.

    projected: one [n, seq, n_heads, d_head] a layer; keys and values have as many heads as there
    are key-value heads. context: the target's untouched keys and values, with these in their place;
    None if everything is run whole.
    """

    name: Projection
    projected: tuple[Tensor, ...]
    context: Context | None


@torch.no_grad()
def foreign(clean: CleanRun, source: nn.Module, prompts: PromptSet, name: Projection) -> Foreign:
    """What the source projects on the prompts of the target's clean run."""
    projected: list[Tensor] = []
    with edited_projections(source, name, lambda _, heads: projected.append(heads.clone())):
        decoder(source)(input_ids=input_ids(source, prompts), use_cache=False)
    if clean.run is None:
        return Foreign(name, tuple(projected), None)
    tokens, recorder = clean.run.context.tokens, Recorder()
    residuals = clean.run.residuals[:-1]
    inputs = layer_inputs(clean.model, residuals[0], tokens, tokens[:, :0])
    with edited_projections(clean.model, name, lambda layer, _: projected[layer]):
        for layer, residual, given in zip(layers(clean.model), residuals, inputs, strict=True):
            layer.attend(residual, given, recorder)
    return Foreign(name, tuple(projected), recorder.context(tokens))


@torch.no_grad()
def transplanted_logits(clean: CleanRun, sites: Collection[Site], source: Foreign) -> Tensor:
    """Logits at the last token [n, vocab] of the target with the source's part at these sites.

    Only the layers from the first site's on and the tokens from the first site's on are run again.
    """
    if not sites:
        return clean_logits(clean)
    model, run, foreign_context = clean.model, clean.run, source.context
    mask = site_mask(shape_of(model), sites, clean.positions)
    if run is None or foreign_context is None:
        return _transplanted_plainly(clean, mask, source)

    def rerun(prompts: Tensor | slice, start: int, first: int) -> Tensor:
        hidden = run.residuals[first][prompts, start:]
        own, other = (
            context.before(start).of_prompts(prompts) for context in (run.context, foreign_context)
        )
        tokens = torch.arange(start, start + hidden.shape[1], device=hidden.device)[None]
        inputs = layer_inputs(model, hidden, tokens, own.tokens)
        rows = (clean.tokens[prompts] - start).clamp(min=0)
        for number, layer in enumerate(layers(model)[first:], first):
            with recorded_head_outputs(model) as computed:
                attended = layer.attend(hidden, inputs[number], own)
            if mask[number].any():
                with (
                    edited_projections(
                        model, source.name, lambda at, _: source.projected[at][prompts, start:]
                    ),
                    recorded_head_outputs(model, rows) as transplanted,
                ):
                    layer.attend(hidden, inputs[number], other)
                heads = given(computed[0], rows, mask[number], transplanted[0])
                attended = layer.add_heads(heads)
            hidden = layer.leave(hidden, attended)
        return hidden[:, -1]

    return rerun_logits(clean, mask, rerun)


def _transplanted_plainly(clean: CleanRun, mask: Tensor, source: Foreign) -> Tensor:
    """`transplanted_logits` by whole runs: one for each layer with sites, from below, and a last.

    mask [n_layers, 3, n_heads] has the sites.
    """
    model, tokens = clean.model, clean.tokens
    values: dict[int, Tensor] = {}

    def give(layer: int, heads: Tensor) -> Tensor | None:
        return given(heads, tokens, mask[layer], values[layer]) if layer in values else None

    def read_at(reading: int) -> Edit:
        return lambda layer, _: source.projected[layer] if layer == reading else None

    for layer in mask.any(-1).any(-1).nonzero()[:, 0].tolist():
        with (
            edited_head_outputs(model, give),
            edited_projections(model, source.name, read_at(layer)),
            recorded_head_outputs(model, tokens) as transplanted,
        ):
            last_logits(model, clean.input_ids)
        values[layer] = transplanted[layer]
    with edited_head_outputs(model, give):
        return last_logits(model, clean.input_ids)
