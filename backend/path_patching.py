"""Exact path patching: how much of the answer flows from each head into some receivers.

For every sender head, in theory two runs (Wang et al., 2023; Prakash et al., 2024, circuit
discovery):

1. the *sender run*: the sender's output at the group's token comes from the counterfactual prompt,
   every other head output is frozen to its clean value, MLPs are recomputed;
2. the *receivers' run*: the receivers' queries or values at that token come from the sender run,
   everything else is computed.

The score is (p_patched - p_clean) / p_clean of the right answer: negative when the path matters.

| group | token | receivers |
|---|---|---|
| A | last | the logits: the sender run is all |
| B | last | queries of heads in A |
| C | label asked for | values of heads in B |
| D | previous occurrence of that label | values of heads in C |

In practice neither run is whole. With all other heads frozen, the sender run changes the residual
stream at one token only, through MLPs: no attention, and all heads of a layer are rows of one
batch. The receivers' run starts at the first receiver above the sender and at the group's token,
over cached keys and values of the tokens before it. Nothing is approximated.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import torch
from torch import Tensor, nn

from backend.circuit import Group, Head
from backend.clicks import CleanRun, prepare_clean
from backend.hooks import (
    Edit,
    Projection,
    decoder,
    edited_projections,
    recorded_head_outputs,
    shape_of,
)
from backend.replay import FullRun, logits_of, replay, through_mlp
from backend.tasks import PromptSet, select
from backend.vital import VITAL, prompt_batches, vital_head_outputs, vital_tokens

Progress = Callable[[int, int], None]
"""(steps done, steps in all, at least one); called between steps, and may raise to cancel."""

_RECEIVED: dict[Group, Projection] = {Group.B: "q_proj", Group.C: "v_proj", Group.D: "v_proj"}

_ROWS_AT_ONCE = 192
"""Senders times tokens in one receivers' run: matrices large enough, attention not yet wasteful."""


@dataclass(frozen=True, eq=False)
class RunPair:
    """The clean and the counterfactual run of some prompts.

    heads, counterfactual [n_layers, n, 3, n_heads, d_head]: head outputs at the vital tokens, in
    the counterfactual at its own. answers [n], token ids.
    """

    clean: CleanRun
    heads: Tensor
    counterfactual: Tensor
    answers: Tensor


class RunPairs:
    """The pairs of runs that path patching compares, batch by batch, as they fit into memory.

    The latest batch is kept: prompts that fit into one run once for all stages.
    """

    def __init__(self, model: nn.Module, prompts: PromptSet, counterfactual: PromptSet) -> None:
        self.model = model
        self.n_prompts = len(prompts)
        self._batches = prompt_batches(model, *prompts.input_ids.shape)
        self._pair = lru_cache(maxsize=1)(partial(_run_pair, model, prompts, counterfactual))

    def __iter__(self) -> Iterator[tuple[Tensor, RunPair]]:
        """Row numbers of the prompts, and their runs."""
        for batch in self._batches:
            yield torch.arange(batch.start, batch.stop), self._pair(batch.start, batch.stop)


def _run_pair(
    model: nn.Module, prompts: PromptSet, counterfactual: PromptSet, start: int, stop: int
) -> RunPair:
    numbers = np.arange(len(prompts))
    chosen = (start <= numbers) & (numbers < stop)
    prompts = select(prompts, chosen)
    tokens = vital_tokens(model, prompts)
    with recorded_head_outputs(model, tokens) as heads:
        clean = prepare_clean(model, prompts)
    other_heads = vital_head_outputs(model, select(counterfactual, chosen))
    answers = torch.tensor(prompts.answer_ids, device=tokens.device)
    return RunPair(clean, torch.stack(heads), other_heads, answers)


@dataclass(frozen=True, eq=False)
class _Scene:
    """Prompts whose group's token is the same.

    clean, counterfactual [n_layers, n, n_heads, d_head]: head outputs at that token.
    """

    model: nn.Module
    run: FullRun
    token: int
    clean: Tensor
    counterfactual: Tensor
    answers: Tensor


def path_patching_scores(
    model: nn.Module,
    prompts: PromptSet,
    counterfactual: PromptSet,
    group: Group,
    receivers: Collection[Head] = (),
    progress: Progress = lambda done, total: None,
) -> Tensor:
    """The score of every head as a sender to the receivers: [n, n_layers, n_heads].

    `receivers` are heads of the next group, and are not looked at in group A. A head that is not
    below any receiver scores exactly zero. Under grouped-query attention a receiver of values is
    the key-value head that a query head shares with others: all of them receive.
    """
    return scores_of(RunPairs(model, prompts, counterfactual), group, receivers, progress)


@torch.no_grad()
def scores_of(
    pairs: RunPairs,
    group: Group,
    receivers: Collection[Head] = (),
    progress: Progress = lambda done, total: None,
    senders: Collection[Head] | None = None,
) -> Tensor:
    """`path_patching_scores`, when several stages or receivers share the same runs.

    If there are `senders`, layers without any of them are left at zero.
    """
    shape = shape_of(pairs.model)
    below = max((head.layer for head in receivers), default=0)
    n_sending_layers = shape.n_layers if group is Group.A else below
    dtype = torch.promote_types(decoder(pairs.model).embed_tokens.weight.dtype, torch.float32)
    scores = torch.zeros(pairs.n_prompts, shape.n_layers, shape.n_heads, dtype=dtype)
    layers = [
        layer
        for layer in range(n_sending_layers)
        if senders is None or layer in {head.layer for head in senders}
    ]
    if not layers:
        return scores
    done, total = 0, pairs.n_prompts * len(layers)
    progress(done, total)
    for batch, pair in pairs:
        for rows, scene in _scenes(pair, group):
            before = _answer_log_probability(scene, scene.run.residuals[-1][:, -1:])
            for layer in layers:
                if group is Group.A:
                    *_, (_, final) = _send(scene, layer, shape.n_layers)
                else:
                    final = _receive(scene, layer, receivers, _RECEIVED[group])
                after = _answer_log_probability(scene, final)
                scores[batch[rows.cpu()], layer] = torch.expm1(after - before).to(scores)
                done += len(rows)
                progress(done, total)
    return scores


def _scenes(pair: RunPair, group: Group) -> Iterator[tuple[Tensor, _Scene]]:
    """Row numbers in the pair, and their scene, for each token at which the group may be."""
    position = VITAL.index(group.position)
    tokens = pair.clean.tokens[:, position]
    for token in tokens.unique().tolist():
        rows = (tokens == token).nonzero()[:, 0]
        everyone = len(rows) == len(tokens)
        yield (
            rows,
            _Scene(
                pair.clean.model,
                pair.clean.run if everyone else pair.clean.run.of_prompts(rows),
                token,
                pair.heads[:, rows, position],
                pair.counterfactual[:, rows, position],
                pair.answers[rows],
            ),
        )


def _send(scene: _Scene, layer: int, top: int) -> Iterator[tuple[int, Tensor]]:
    """Sender runs of all heads of a layer, up to layer `top`.

    Gives, for each layer above the senders', the residuals [n, n_heads, d_model] that enter it at
    the group's token; for `n_layers`, those that leave the last layer.
    """
    blocks = decoder(scene.model).layers
    senders = torch.arange(scene.clean.shape[2], device=scene.clean.device)
    sent = scene.clean[layer][:, None].repeat(1, len(senders), 1, 1)
    sent[:, senders, senders] = scene.counterfactual[layer]
    residual = scene.run.residuals[layer][:, scene.token, None]
    for above in range(layer, top):
        block = blocks[above]
        heads = sent if above == layer else scene.clean[above][:, None]
        residual = through_mlp(block, residual + block.self_attn.o_proj(heads.flatten(-2)))
        yield above + 1, residual


def _receive(
    scene: _Scene,
    layer: int,
    receivers: Collection[Head],
    projection: Projection,
) -> Tensor:
    """Receivers' runs for all heads of a layer: last residuals [n, n_heads, d_model] at the end."""
    first = min(head.layer for head in receivers if head.layer > layer)
    received = _received(scene, layer, receivers, projection)
    hidden = scene.run.residuals[first][:, scene.token :]
    n_rows = hidden.shape[1]
    tokens = torch.arange(scene.token, scene.token + n_rows, device=hidden.device)[None]
    context = scene.run.context.before(scene.token)
    finals = []
    for senders in torch.arange(scene.clean.shape[2]).split(max(1, _ROWS_AT_ONCE // n_rows)):
        rows = hidden.repeat(1, len(senders), 1)
        with edited_projections(scene.model, projection, _arrive(received, senders)):
            finals.append(replay(scene.model, rows, tokens, context, first, len(senders)))
    return torch.cat(finals, 1)


def _received(
    scene: _Scene,
    layer: int,
    receivers: Collection[Head],
    projection: Projection,
) -> dict[int, tuple[list[int], Tensor]]:
    """By layer: which projected heads receive, and what [n, n_heads, n_receivers, d_head]."""
    shape = shape_of(scene.model)
    shared_by = 1 if projection == "q_proj" else shape.n_heads // shape.n_kv_heads
    received = {}
    for above, residual in _send(scene, layer, max(head.layer for head in receivers)):
        indices = sorted({head.index // shared_by for head in receivers if head.layer == above})
        if indices:
            block = decoder(scene.model).layers[above]
            projected = getattr(block.self_attn, projection)(block.input_layernorm(residual))
            received[above] = indices, projected.unflatten(-1, (-1, shape.d_head))[:, :, indices]
    return received


def _arrive(received: Mapping[int, tuple[list[int], Tensor]], senders: Tensor) -> Edit:
    """Give the receivers what these senders sent, at the first row of each sender's variant."""

    def edit(layer: int, heads: Tensor) -> Tensor | None:
        if layer not in received:
            return None
        indices, arriving = received[layer]
        heads = heads.clone()
        heads.unflatten(1, (len(senders), -1))[:, :, 0, indices] = arriving[:, senders]
        return heads

    return edit


def _answer_log_probability(scene: _Scene, final: Tensor) -> Tensor:
    """Of the right answer, read from last residuals [n, k, d_model]: [n, k]."""
    logits = logits_of(scene.model, final)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    answers = scene.answers[:, None, None].expand(-1, logits.shape[1], 1)
    return logits.gather(-1, answers)[..., 0] - logits.logsumexp(-1)
