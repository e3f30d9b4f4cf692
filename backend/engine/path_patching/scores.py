"""Exact path patching: how much of the answer flows from each head into some receivers.

For every sender head, in theory two runs (Wang et al., 2023; Prakash et al., 2024, circuit
discovery):

1. the *sender run*: the sender's output at the group's token comes from the counterfactual prompt,
   every other head output is frozen to its clean value, MLPs are recomputed;
2. the *receivers' run*: the receivers' queries, keys or values at that token are the sender run's,
   everything else is computed.

The score is (p_patched - p_clean) / p_clean of the right answer, or the change of its logit
difference to the answers that it competes with (`backend.core.metrics.Score`): negative when the
path matters.

Where a group writes into the logits, the sender run is all. Else its task says what receives, at
the group's own token: the queries, keys or values of the heads in other groups.

In practice neither run is whole. With all other heads frozen, the sender run changes the residual
stream at one token only, through MLPs: no attention, and all heads of a layer are rows of one
batch. The receivers' run starts at the first receiver above the sender and at the group's token,
over cached keys and values of the tokens before it. Nothing is approximated. A model that cannot be
taken apart like that is run whole (`backend.engine.path_patching.plain_patching`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from backend.core.errors import UserError
from backend.core.heads import Head
from backend.core.kept import Kept
from backend.core.metrics import Score
from backend.core.progress import Progress, silent
from backend.engine import checkpoints
from backend.engine.activation_patching import clean_logits
from backend.engine.answers import log_probability, logit_difference
from backend.engine.architectures import Projection, dtype_of, logits_of, logits_of_tokens, shape_of
from backend.engine.memory import memory_errors_explained
from backend.engine.path_patching.few_tokens import few_tokens
from backend.engine.path_patching.plain_patching import patched_plainly
from backend.engine.path_patching.receivers_runs import receivers_runs
from backend.engine.path_patching.run_pairs import RunPair, RunPairs, Scene, scenes
from backend.engine.path_patching.sender_runs import Senders, sender_finals
from backend.tasks.prompts import PromptSet
from backend.tasks.task import Group

RECEIVED: Mapping[str, Projection] = {"q": "q_proj", "k": "k_proj", "v": "v_proj"}
"""What receives, by what a group's heads feed."""

Ready = Sequence[tuple[Tensor, Scene, Tensor | None]]
"""Row numbers of prompts in a pair, their scene, and which few of its tokens run again, if not all
do."""


def path_patching_scores(
    model: nn.Module,
    prompts: PromptSet,
    counterfactual: PromptSet,
    group: str,
    receivers: Collection[Head] = (),
    progress: Progress = silent,
    score: Score = Score.probability,
) -> Tensor:
    """The score of every head as a sender to the receivers: [n, n_layers, n_heads].

    `receivers` are heads of the groups that this one writes into, and are not looked at where it
    writes into the logits. A head that is not below any receiver scores exactly zero. Under
    grouped-query attention a receiver of keys or values is the key-value head that a query head
    shares with others: all of them receive.
    """
    pairs = RunPairs(model, prompts, counterfactual)
    return scores_of(pairs, group, receivers, progress, score=score)


@torch.no_grad()
def scores_of(
    pairs: RunPairs,
    group: str,
    receivers: Collection[Head] = (),
    progress: Progress = silent,
    senders: Collection[Head] | None = None,
    kept_in: Kept | None = None,
    score: Score = Score.probability,
    n_tokens: int | None = None,
) -> Tensor:
    """`path_patching_scores`, when several stages or receivers share the same runs.

    If there are `senders`, only they are run, and all other heads are left at zero. Scores of the
    layers of batches of prompts are kept, if there is a place, and taken from there. With
    `n_tokens`, at most so many tokens of each prompt run again, and the others stay as they were
    (`backend.engine.path_patching.few_tokens`).
    """
    shape, sending = shape_of(pairs.model), pairs.task.group(group)
    dtype = torch.promote_types(dtype_of(pairs.model), torch.float32)
    chosen: dict[int, list[int]] = {}
    for layer in range(n_sending_layers(pairs, sending, receivers)):
        heads = [index for index in range(shape.n_heads) if _sends(Head(layer, index), senders)]
        if heads:
            chosen[layer] = heads
    folder = checkpoints.inside(kept_in, score.name)
    receiving = {head.layer for head in receivers}
    costs = {
        layer: cost * len(chosen[layer]) / shape.n_heads
        for layer, cost in pairs.scale.senders(sending, receiving, n_tokens).items()
        if layer in chosen
    }
    if not chosen:
        return torch.zeros(pairs.n_prompts, *shape[:2], dtype=dtype)

    costs_of_runs: dict[int, float] = {}
    ready: dict[int, Ready] = {}
    """The scenes of one batch, for all its layers."""

    def of_layer(batch: slice, layer: int) -> Tensor:
        size, before = batch.stop - batch.start, sum(costs[each] for each in costs if each < layer)
        if batch.start not in costs_of_runs:
            progress(batch.start, pairs.n_prompts)
            costs_of_runs[batch.start] = pairs.cost_of(batch)
        pair = pairs.of(batch)
        if batch.start not in ready:
            ready.clear()
            ready[batch.start] = _ready(pair, sending, receivers, n_tokens)
        first = costs_of_runs[batch.start]
        whole = first + sum(costs.values())

        def told(n_done: int) -> None:
            done = first + before + costs[layer] * n_done / size
            progress(batch.start + size * done / whole, pairs.n_prompts)

        given = pair, ready[batch.start], sending, {layer: chosen[layer]}, receivers
        return _of_pair(*given, dtype, told, score)

    blocks = [
        checkpoints.Block(
            f"{checkpoints.name_of(batch)}_layer{layer}",
            (batch.stop - batch.start, len(chosen[layer])),
            dtype,
            partial(of_layer, batch, layer),
        )
        for batch in pairs.batches
        for layer in chosen
    ]
    with memory_errors_explained(pairs.model, pairs.batches[0].stop):
        found = iter(checkpoints.tensors(folder, blocks))
    scores = torch.zeros(pairs.n_prompts, *shape[:2], dtype=dtype)
    for batch in pairs.batches:
        for layer, heads in chosen.items():
            scores[batch, layer, torch.tensor(heads)] = next(found)
    return scores


def n_sending_layers(pairs: RunPairs, group: Group, receivers: Collection[Head]) -> int:
    """How many layers, from the first on, have heads that can reach the logits or a receiver."""
    if group.component == "logits":
        return shape_of(pairs.model).n_layers
    return max((head.layer for head in receivers), default=0)


def _sends(head: Head, senders: Collection[Head] | None) -> bool:
    return senders is None or head in senders


def _ready(pair: RunPair, group: Group, receivers: Collection[Head], n_tokens: int | None) -> Ready:
    """The scenes of a pair; none where everything is run whole. Raises UserError where few tokens
    cannot run again alone."""
    if pair.clean.run is None:
        if n_tokens:
            raise UserError(
                "This model can only be run whole, so that no few of its tokens run again alone. "
                "Estimate by gradients, or run the stages."
            )
        return []
    projection = RECEIVED.get(group.component)
    return [
        (
            rows,
            scene,
            few_tokens(scene, receivers, projection, n_tokens) if projection and n_tokens else None,
        )
        for rows, scene in scenes(pair, pair.clean.run, group)
    ]


def _of_pair(
    pair: RunPair,
    ready: Ready,
    group: Group,
    senders: Senders,
    receivers: Collection[Head],
    dtype: torch.dtype,
    told: Callable[[int], None],
    score: Score,
) -> Tensor:
    """The scores of the senders of one layer on a batch's prompts: [n, n_senders]; `told` on how
    many prompts they are done."""
    (heads,) = senders.values()
    scores = torch.zeros(len(pair.answers), len(heads), dtype=dtype)
    n_done = 0
    for rows, patched in _patched_runs(pair, ready, group, senders, receivers, score):
        change = change_from(pair, rows, score)
        for _, logits in patched:
            scores[rows.cpu()] = change(logits).to(scores)
            n_done += len(rows)
            told(n_done)
    return scores


def change_from(pair: RunPair, rows: Tensor, score: Score) -> Callable[[Tensor], Tensor]:
    """How patched logits, as `scored` gives them, score against the clean ones: [n, k].

    rows [n]: which prompts of the pair they are.
    """
    clean = scored(clean_logits(pair.clean)[rows, None], pair, rows, score)
    answers, choices = pair.answers[rows], pair.choices[rows]
    if score is Score.logit_difference:
        places = torch.arange(choices.shape[1], device=choices.device).expand_as(choices)
        answer = (choices == answers[:, None]).int().argmax(1)
        difference = logit_difference(clean, answer, places)
        return lambda logits: logit_difference(logits, answer, places) - difference
    before = log_probability(clean, answers)
    return lambda logits: torch.expm1(log_probability(logits, answers) - before)


def scored(logits: Tensor, pair: RunPair, rows: Tensor, score: Score) -> Tensor:
    """What a score looks at of logits [n, k, vocab]: all, or those of the choices [n, k, m]."""
    if score is Score.probability:
        return logits
    return logits.gather(-1, pair.choices[rows][:, None].expand(-1, logits.shape[1], -1))


def scored_logits_of(
    model: nn.Module, final: Tensor, pair: RunPair, rows: Tensor, score: Score
) -> Tensor:
    """`scored`, of residuals [n, k, d_model] that left the last layer."""
    if score is Score.probability:
        return logits_of(model, final)
    return logits_of_tokens(model, final, pair.choices[rows])


def _patched_runs(
    pair: RunPair,
    ready: Ready,
    group: Group,
    senders: Senders,
    receivers: Collection[Head],
    score: Score,
) -> Iterator[tuple[Tensor, Iterator[tuple[int, Tensor]]]]:
    """Row numbers of some prompts, and for each layer their logits with its senders' paths patched.

    Logits are [n, n_senders, scored tokens], at the last token.
    """
    model = pair.clean.model
    if pair.clean.run is None:
        everyone = torch.arange(len(pair.answers), device=pair.answers.device)
        runs = patched_plainly(pair, group, senders, receivers, RECEIVED.get(group.component))
        yield everyone, ((layer, scored(logits, pair, everyone, score)) for layer, logits in runs)
        return
    for rows, scene, few in ready:
        if group.component == "logits":
            finals = sender_finals(scene, senders)
        else:
            finals = receivers_runs(scene, senders, receivers, RECEIVED[group.component], few)
        yield (
            rows,
            ((layer, scored_logits_of(model, final, pair, rows, score)) for layer, final in finals),
        )
