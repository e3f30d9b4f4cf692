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

from collections.abc import Callable, Collection, Iterator

import torch
from torch import Tensor, nn

from backend.circuit import Group, Head
from backend.hooks import Projection, decoder, shape_of
from backend.receivers_runs import receivers_runs
from backend.replay import logits_of
from backend.run_pairs import RunPairs, Scene, scenes
from backend.sender_runs import sender_runs
from backend.tasks import PromptSet

Progress = Callable[[int, int], None]
"""(steps done, steps in all, at least one); called between steps, and may raise to cancel."""

_RECEIVED: dict[Group, Projection] = {Group.B: "q_proj", Group.C: "v_proj", Group.D: "v_proj"}


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
        for rows, scene in scenes(pair, group):
            before = _answer_log_probability(scene, scene.run.residuals[-1][:, -1:])
            for layer, final in _patched(scene, layers, group, receivers):
                after = _answer_log_probability(scene, final)
                scores[batch[rows.cpu()], layer] = torch.expm1(after - before).to(scores)
                done += len(rows)
                progress(done, total)
    return scores


def _patched(
    scene: Scene, layers: Collection[int], group: Group, receivers: Collection[Head]
) -> Iterator[tuple[int, Tensor]]:
    """Each layer, and the last residuals [n, n_heads, d_model] with its heads' paths patched."""
    if group is not Group.A:
        yield from receivers_runs(scene, layers, receivers, _RECEIVED[group])
        return
    for layer in layers:
        *_, (_, final) = sender_runs(scene, layer, shape_of(scene.model).n_layers)
        yield layer, final


def _answer_log_probability(scene: Scene, final: Tensor) -> Tensor:
    """Of the right answer, read from last residuals [n, k, d_model]: [n, k]."""
    logits = logits_of(scene.model, final)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    answers = scene.answers[:, None, None].expand(-1, logits.shape[1], 1)
    return logits.gather(-1, answers)[..., 0] - logits.logsumexp(-1)
