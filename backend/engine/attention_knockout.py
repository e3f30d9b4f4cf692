"""*Attention knockout*: what the model answers when one token may not attend to another.

The score of the query token to the key token is −∞ in some heads, before the softmax (Geva et al.
2023; Prakash et al., attention knockout); what the query token sees besides takes the weight over.
Nothing below the first such layer and nothing before the query token can change; only the rest is
run again. Knockouts of the same pair of tokens go through in one run: each joins at its first
layer, as the untouched run left it there.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from backend.engine.activation_patching import CleanRun, clean_logits
from backend.engine.architectures import last_logits, layers, logits_of
from backend.engine.hooks import edited_attention_masks
from backend.engine.replay import Context, FullRun, layer_inputs

_ROWS_AT_ONCE = 64
"""Their attention scores take no more room than those of a whole prompt."""


@torch.no_grad()
def knocked_out_logits(clean: CleanRun, query: Tensor, key: Tensor, heads: Tensor) -> Tensor:
    """Logits at the last token [k, n, vocab] of k knockouts of the attention of `query` to `key`.

    query, key [n]: a token of each prompt; heads [k, n_layers, n_heads]: where each knockout cuts.
    A prompt in which the key comes after the query stays as it is: nothing attends forward.
    """
    run = clean.run
    if run is None:
        return torch.stack([_run_whole(clean, query, key, each) for each in heads])
    found = clean_logits(clean).repeat(len(heads), 1, 1)
    cutting = heads.any(-1).any(-1).nonzero()[:, 0]
    first = heads[cutting].any(-1).int().argmax(1)
    cutting = cutting[first.argsort(stable=True)]
    for start in query.unique().tolist():
        prompts = (query == start).nonzero()[:, 0]
        n_rows = clean.input_ids.shape[1] - start
        for some in cutting.split(max(1, _ROWS_AT_ONCE // n_rows)):
            final = _rerun(clean.model, run, prompts, start, key[prompts], heads[some])
            found[some[:, None], prompts] = logits_of(clean.model, final).transpose(0, 1)
    return found


def knocked_out_logits_plainly(
    model: nn.Module, input_ids: Tensor, query: Tensor, key: Tensor, heads: Tensor
) -> Tensor:
    """`knocked_out_logits` by its definition, runs of the whole prompts [n, seq]."""
    clean = CleanRun(model, input_ids, query[:, None], (), None)
    return knocked_out_logits(clean, query, key, heads)


def _run_whole(clean: CleanRun, query: Tensor, key: Tensor, heads: Tensor) -> Tensor:
    """Logits [n, vocab] of one knockout; heads [n_layers, n_heads]."""

    def edit(layer: int, mask: Tensor) -> Tensor | None:
        chosen = heads[layer]
        return _cut(mask, query[:, None], key[:, None], chosen[None]) if chosen.any() else None

    with edited_attention_masks(clean.model, edit):
        return last_logits(clean.model, clean.input_ids)


def _rerun(
    model: nn.Module, run: FullRun, prompts: Tensor, start: int, key: Tensor, heads: Tensor
) -> Tensor:
    """What leaves the last layer at the last token, of every knockout: [n, k, d_model].

    prompts, key [n]: those whose query token is `start`; heads [k, n_layers, n_heads], in the order
    of their first layers.
    """
    stack, first = layers(model), heads.any(-1).int().argmax(1)
    context = run.context.before(start).of_prompts(prompts)
    n_rows = run.residuals[0].shape[1] - start
    hidden = run.residuals[0][prompts, :0]

    def edit(layer: int, mask: Tensor) -> Tensor:
        rows = n_rows * torch.arange(int((first <= layer).sum()), device=key.device)[None]
        # A token that is not in the context is a row, of the knockout's own.
        columns = torch.where(key[:, None] < start, key[:, None], key[:, None] + rows)
        return _cut(mask, rows, columns, heads[: rows.shape[1], layer])

    with edited_attention_masks(model, edit):
        for number in range(int(first[0]), len(stack)):
            joining, running = int((first == number).sum()), int((first <= number).sum())
            untouched = run.residuals[number][prompts, start:].repeat(1, joining, 1)
            hidden = torch.cat([hidden, untouched], 1)
            inputs = _inputs(model, hidden, start, context, running, number)
            attended = stack[number].attend(hidden, inputs, context)
            if number == len(stack) - 1:
                hidden, attended = (
                    each.unflatten(1, (running, -1))[:, :, -1] for each in (hidden, attended)
                )
            hidden = stack[number].leave(hidden, attended)
    return hidden


def _inputs(
    model: nn.Module, hidden: Tensor, start: int, context: Context, variants: int, layer: int
) -> dict[str, object]:
    n_rows = hidden.shape[1] // variants
    tokens = torch.arange(start, start + n_rows, device=hidden.device)[None]
    return layer_inputs(model, hidden, tokens, context.tokens, variants)[layer]


def _cut(mask: Tensor, rows: Tensor, columns: Tensor, heads: Tensor) -> Tensor:
    """A mask [n or 1, n_heads or 1, rows, tokens] that hides one token from each of k rows.

    rows [n or 1, k]; columns [n, k]; heads [k, n_heads]: in which of them.
    """
    n, (k, n_heads) = len(columns), heads.shape
    mask = mask.expand(n, n_heads, -1, -1).clone()
    device = mask.device
    at = (
        torch.arange(n, device=device)[:, None, None],
        torch.arange(n_heads, device=device)[:, None],
        rows.expand(n, k)[:, None],
        columns[:, None],
    )
    hidden = torch.full((), torch.finfo(mask.dtype).min, dtype=mask.dtype, device=device)
    mask[at] = torch.where(heads.T.to(device), hidden, mask[at])
    return mask
