"""A head with another model's queries, keys or values, and its own everything else.

At a site, a head's output is attention of one token to the tokens it sees. Transplanting

- q: the site's query is the source's, keys and values are the target's own in this run;
- k: the keys of all tokens that the site sees are the source's, query and values are its own;
- v: likewise the values.

Every prompt uses its own tokens. Held fixed: nobody else reads what is transplanted. The outputs of
the same head at other tokens, and of other heads at the site's token, come from the target's own
queries, keys and values, computed in this run; downstream of the site everything is recomputed.
(The authors' code sets head outputs at all tokens but the last back to the untouched target's. For
sites at the last token that is the same; of sites before it, it would leave nothing.)

Queries, keys and values are what leaves the projections of the source; the target norms and rotates
them. Under grouped-query attention keys and values belong to a key-value head that several query
heads share: a site then reads the source's key-value head, its siblings their own.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from backend.circuit import Site
from backend.clicks import CleanRun, clean_logits, given, rerun_logits
from backend.hooks import (
    Projection,
    decoder,
    edited_projections,
    recorded_head_outputs,
    shape_of,
)
from backend.replay import Context, Recorder, layer_inputs, through_mlp
from backend.tasks import PromptSet
from backend.vital import input_ids, site_mask


@dataclass(frozen=True, eq=False)
class Foreign:
    """A source's queries, keys or values, ready to be read by a target.

    projected: one [n, seq, n_heads, d_head] a layer; keys and values have as many heads as there
    are key-value heads. context: the target's untouched keys and values, with these in their place.
    """

    name: Projection
    projected: tuple[Tensor, ...]
    context: Context


@torch.no_grad()
def foreign(clean: CleanRun, source: nn.Module, prompts: PromptSet, name: Projection) -> Foreign:
    """What the source projects on the prompts of the target's clean run."""
    projected: list[Tensor] = []
    with edited_projections(source, name, lambda _, heads: projected.append(heads.clone())):
        decoder(source)(input_ids=input_ids(source, prompts), use_cache=False)
    tokens, recorder = clean.run.context.tokens, Recorder()
    inputs = layer_inputs(clean.model, clean.run.residuals[0], tokens, tokens[:, :0], 1)
    with edited_projections(clean.model, name, lambda layer, _: projected[layer]):
        for residual, block in zip(clean.run.residuals, decoder(clean.model).layers, strict=False):
            block.self_attn(block.input_layernorm(residual), past_key_values=recorder, **inputs)
    return Foreign(name, tuple(projected), recorder.context(tokens))


@torch.no_grad()
def transplanted_logits(clean: CleanRun, sites: Collection[Site], source: Foreign) -> Tensor:
    """Logits at the last token [n, vocab] of the target with the source's part at these sites.

    Only the layers from the first site's on and the tokens from the first site's on are run again.
    """
    if not sites:
        return clean_logits(clean)
    model = clean.model
    mask = site_mask(shape_of(model), sites)

    def rerun(prompts: Tensor | slice, start: int, first: int) -> Tensor:
        hidden = clean.run.residuals[first][prompts, start:]
        own, other = (
            context.before(start).of_prompts(prompts)
            for context in (clean.run.context, source.context)
        )
        tokens = torch.arange(start, start + hidden.shape[1], device=hidden.device)[None]
        inputs = layer_inputs(model, hidden, tokens, own.tokens, 1)
        rows = (clean.tokens[prompts] - start).clamp(min=0)
        for layer, block in enumerate(decoder(model).layers[first:], first):
            normed = block.input_layernorm(hidden)
            with recorded_head_outputs(model) as computed:
                attended, _ = block.self_attn(normed, past_key_values=own, **inputs)
            if mask[layer].any():
                with (
                    edited_projections(
                        model, source.name, lambda at, _: source.projected[at][prompts, start:]
                    ),
                    recorded_head_outputs(model, rows) as transplanted,
                ):
                    block.self_attn(normed, past_key_values=other, **inputs)
                heads = given(computed[0], rows, mask[layer], transplanted[0])
                attended = block.self_attn.o_proj(heads.flatten(-2))
            hidden = through_mlp(block, hidden + attended)
        return hidden[:, -1]

    return rerun_logits(clean, mask, rerun)
